"""The reference runs: every algorithm on the tasks of reference_runs.yaml, one JSON for each in results/algorithms/.

    python benchmarks/reference_runs.py --runs ~/tfqrl-runs
    python benchmarks/reference_runs.py --runs ~/tfqrl-runs --only 'sac-HalfCheetah' --jobs 2

Each is a `tfqrl train` into a folder in --runs, with the zoo's configuration, and then 20 episodes of the final policy
by `tfqrl evaluate`, the same ones for all. What is done is not done again, and what was cut short, by Ctrl-C, SIGTERM
or kill -9, is gone on with; a training whose runner was killed goes on by itself, and is left alone until it ends.
Trainings with stable-baselines3 are run in the same way by sb3_training.py, with the same settings. Those by `tfqrl
actorq` have the zoo's too, but learn as often from each step as their options say; their processes share the core.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import provenance
import yaml

from edge.conditions import Conditions
from edge.files import write_atomically
from edge.records import to_json

HERE = Path(__file__).parent
EPISODES, FIRST_SEED = 20, 2_000_000
CURVE_POINTS = 100
# In training.
EVALUATIONS = 20
OURS, ACTORQ = "tfqrl", "actorq"
ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
      algorithm, env, steps, seed: of it.
      library: what trains: `tfqrl train`, `tfqrl actorq` or another one.
      options: more of these than the zoo has.
    """

    algorithm: str
    env: str
    steps: int
    seed: int
    library: str = OURS
    options: str = ""

    @property
    def name(self) -> str:
        """Names folder and result: ppo-HalfCheetah-v5-1M-s10, or ppo-HalfCheetah-v5-1M-vec-envpool-s10."""
        library = [] if self.library == OURS else [self.library]
        options = [word.removeprefix("--") for word in self.options.split()]
        words = [*library, self.algorithm, re.sub("[:/]", "-", self.env), short(self.steps), *options, f"s{self.seed}"]
        return "-".join(words)


def short(steps: int) -> str:
    """A number of steps for people: 300k, 1M."""
    for unit, size in (("M", 1_000_000), ("k", 1_000)):
        if steps >= size and steps % (size // 10) == 0:
            return f"{steps / size:g}{unit}"
    return str(steps)


def plan() -> dict[str, Any]:
    """reference_runs.yaml."""
    loaded: dict[str, Any] = yaml.safe_load((HERE / "reference_runs.yaml").read_text())
    return loaded


def jobs() -> list[Job]:
    """All trainings, first things first."""
    entries = ((entry, entry.pop("seeds")) for entry in plan()["runs"])
    return [Job(**entry, seed=seed) for entry, seeds in entries for seed in seeds]


def commands(job: Job, folder: Path) -> list[list[str]]:
    """What does a job, words after `python`: it goes on with what `folder` has, and evaluates at the end."""
    options = ["--env", job.env, "--steps", str(job.steps), "--seed", str(job.seed), "--out", str(folder)]
    if job.library not in (OURS, ACTORQ):
        return [[str(HERE / "sb3_training.py"), job.algorithm, *options]]
    # So that a run that was cut short ends as it would have otherwise; memories of frames take gigabytes.
    memory = [] if job.algorithm in ("ppo", "a2c") or job.env.startswith("ale:") else ["--save-replay"]
    options += ["--evaluate-every", str(job.steps // EVALUATIONS), *memory, *job.options.split()]
    if (folder / "config.json").exists():
        options = ["--out", str(folder), "--resume"]
    evaluation = ["--episodes", str(EPISODES), "--seed", str(FIRST_SEED), "--json", f"{folder}.evaluation.json"]
    return [
        ["-m", "tfqrl", "train" if job.library == OURS else "actorq", job.algorithm, *options],
        ["-m", "tfqrl", "evaluate", str(folder), *evaluation],
    ]


def outcome(job: Job, folder: Path) -> dict[str, Any]:
    """What a job gave, once its commands are done."""
    if job.library not in (OURS, ACTORQ):
        loaded: dict[str, Any] = json.loads((folder / "result.json").read_text())
        return loaded
    run = json.loads((folder / "config.json").read_text())
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    if metrics[-1]["steps"] < job.steps:
        raise RuntimeError(f"{folder} ended after {metrics[-1]['steps']} steps.")
    wall_s = trained_s(metrics)
    return {
        "returns": json.loads(Path(f"{folder}.evaluation.json").read_text())["policies"][0]["returns"],
        "curve": thinned([(record["steps"], record["return"]) for record in metrics if "return" in record]),
        "evaluations": [
            (record["steps"], record["evaluation_return"], record["evaluation_return_std"])
            for record in metrics
            if "evaluation_return" in record
        ],
        "wall_s": wall_s,
        "steps_per_s": metrics[-1]["steps"] / wall_s,
        "config": run["config"],
        "versions": run["versions"],
    }


def trained_s(metrics: list[dict[str, float]]) -> float:
    """Seconds of training: `elapsed_s` begins again where a run was resumed."""
    elapsed = [0.0, *(record["elapsed_s"] for record in metrics)]
    return sum(now - before if now > before else now for before, now in itertools.pairwise(elapsed))


def thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most CURVE_POINTS of the points, evenly chosen, the last one among them."""
    stride = -(-len(curve) // CURVE_POINTS)
    return [(int(steps), round(value, 2)) for steps, value in curve[::-1][:: max(1, stride)][::-1]]


class Runner:
    """Does jobs, each on a core of its own if there is to be more than one at a time.

    Attributes:
      failed: the names of those that did not succeed.
    """

    def __init__(self, waiting: list[Job], runs: Path, results: Path) -> None:
        """Do the jobs of `waiting` that `results` does not have, with folders in `runs`."""
        self._waiting = [job for job in waiting if not (results / f"{job.name}.json").exists()]
        self._runs, self._results = runs, results
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self.failed: list[str] = []

    def run(self, at_a_time: int) -> None:
        """Do them all, until `stop`."""
        cores = sorted(os.sched_getaffinity(0))[:at_a_time] if at_a_time > 1 else [None]
        threads = [threading.Thread(target=self._work, args=(core,)) for core in cores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """Begin no more jobs; those that are running save a checkpoint and end."""
        self._stopped = True
        for child in list(self._children):
            child.terminate()

    def _work(self, core: int | None) -> None:
        while not self._stopped:
            with self._lock:
                if not self._waiting:
                    return
                job = self._waiting.pop(0)
            print(f"{job.name}: begins", flush=True)
            try:
                with open(self._runs / f"{job.name}.lock", "w") as lock:
                    # Children hold the lock too: one whose runner was killed goes on, and nobody else may join it.
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    result = self._do(job, core, lock.fileno())
            except BlockingIOError:
                print(f"{job.name}: another process is at it", flush=True)
            except Exception as error:
                if not self._stopped:
                    self.failed.append(job.name)
                    print(f"{job.name}: {error} See {self._runs / job.name}.log.", flush=True)
            else:
                print(f"{job.name}: return {statistics.mean(result['returns']):.1f}", flush=True)

    def _do(self, job: Job, core: int | None, lock: int) -> dict[str, Any]:
        folder = self._runs / job.name
        attempts_file = Path(f"{folder}.attempts.json")
        attempts = json.loads(attempts_file.read_text()) if attempts_file.exists() else []
        attempts.append({"commit": provenance.commit(), "threads": 1 if core is not None else os.cpu_count()})
        write_atomically(attempts_file, json.dumps(attempts).encode())
        conditions = Conditions.now()
        for words in commands(job, folder):
            self._call(words, core, lock, Path(f"{folder}.log"))
        train = commands(job, Path("RUN"))[0]
        result = {
            "schema_version": SCHEMA_VERSION,
            **asdict(job),
            "command": shlex.join(["python", *(word.removeprefix(f"{HERE.parent}/") for word in train)]),
            "first_seed": FIRST_SEED,
            "attempts": attempts,
            **outcome(job, folder),
            "conditions": asdict(conditions),
        }
        write_atomically(self._results / f"{job.name}.json", to_json(result).encode())
        return result

    def _call(self, words: list[str], core: int | None, lock: int, log: Path) -> None:
        command, environment = [sys.executable, *words], dict(os.environ)
        if core is not None:
            command = ["taskset", "-c", str(core), *command]
            environment |= dict.fromkeys(ONE_THREAD, "1")
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches it through `stop`, once.
            child = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                pass_fds=[lock],
                start_new_session=True,
            )
        self._children.add(child)
        if self._stopped:
            child.terminate()
        code = child.wait()
        self._children.discard(child)
        if code or self._stopped:
            raise RuntimeError(f"{shlex.join(words)} ended with exit code {code}.")


def main() -> int:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs, outside the repository")
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "algorithms", help="folder of JSONs")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="regex of names, such as sac-.*-s10")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=1, help="2: two at a time, of one thread each")
    parser.add_argument("--list", action="store_true", help="only say what there is to do")
    options = parser.parse_args()
    chosen = [job for job in jobs() if options.only.search(job.name)]
    if options.list:
        for job in chosen:
            print(f"{'done   ' if (options.results / f'{job.name}.json').exists() else 'missing'} {job.name}")
        return 0
    options.runs.mkdir(parents=True, exist_ok=True)
    options.results.mkdir(parents=True, exist_ok=True)
    runner = Runner(chosen, options.runs.resolve(), options.results.resolve())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: runner.stop())
    runner.run(options.jobs)
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
