"""A training by ActorQ in which an actor is killed every minute: does it end well, does everything add up?

    python benchmarks/actorq_faults.py --json results/actorq_faults.json

`tfqrl actorq d4pg` on dmc:walker-stand with four actors, one of which, drawn at random, gets SIGKILL once in a minute
until the training ends. Written down are the books at the end (inserted = stepped - lost - refused - unfinished) and
the resident memory of the actors, the learner and all other processes, every ten seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import provenance

from edge.conditions import Conditions

ENV, ACTORS = "dmc:walker-stand", 4
LOOK_S = 10.0
# All processes of the training have this in their environment.
MARK = "TFQRL_FAULTS"
PACKAGES = ("tfqrl", "tensorflow", "ai-edge-litert", "ray", "dm-control", "mujoco", "numpy")


def processes(mark: str) -> dict[int, str]:
    """Those of the training that are alive, and what they are: "actor", "learner" or "other"."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment, words = (path / "environ").read_bytes(), (path / "cmdline").read_bytes()
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment.split(b"\0"):
            kinds = {b"ActorProcess": "actor", b"LearnerProcess": "learner"}
            found[int(path.name)] = next((kind for title, kind in kinds.items() if title in words), "other")
    return found


def resident_mib(pid: int) -> float:
    """Its memory, that which it shares by its share, in MiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> int:
    """Train, kill, and write down what became of it; 1 if it did not end well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2_000_000, help="of the training")
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds from one kill to the next")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    options = parser.parse_args()
    conditions, rng, mark = Conditions.now(), random.Random(0), uuid.uuid4().hex
    words = ["d4pg", "--env", ENV, "--seed", "0", "--steps", str(options.steps), "--actors", str(ACTORS)]
    words += ["--samples-per-insert", "4", "--replay-size", "100000"]
    kills, samples = 0, []
    with tempfile.TemporaryDirectory() as folder:
        run, log = Path(folder) / "run", Path(folder) / "log"
        with log.open("wb") as output:
            training = subprocess.Popen(
                [sys.executable, "-m", "tfqrl", "actorq", *words, "--out", str(run)],
                env=os.environ | {MARK: mark},
                stdout=output,
                stderr=output,
            )
        began_s = killed_s = time.monotonic()
        while training.poll() is None:
            try:
                training.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                alive = processes(mark)
            else:
                break
            memory = dict.fromkeys(("actor", "learner", "other"), 0.0)
            for pid, kind in alive.items():
                memory[kind] += resident_mib(pid)
            samples.append({"s": round(time.monotonic() - began_s, 1), **{k: round(v, 1) for k, v in memory.items()}})
            actors = sorted(pid for pid, kind in alive.items() if kind == "actor")
            if actors and time.monotonic() > killed_s + options.every_s:
                killed_s, kills = time.monotonic(), kills + 1
                os.kill(rng.choice(actors), signal.SIGKILL)
                print(f"{kills} killed", file=sys.stderr, flush=True)
        minutes = (time.monotonic() - began_s) / 60
        time.sleep(LOOK_S)
        left = len(processes(mark))
        report: dict[str, Any] = {}
        if (run / "actorq.json").exists():
            report = json.loads((run / "actorq.json").read_text())
        else:
            print(log.read_text()[-3000:], file=sys.stderr)
    account = report.get("account", {})
    gone = sum(account.get(name, 0) for name in ("lost", "refused", "unfinished"))
    balanced = bool(account) and account["inserted"] == account["stepped"] - gone
    replaced = report.get("replaced", {})
    record = {
        "command": f"python benchmarks/actorq_faults.py --steps {options.steps} --every-s {options.every_s:g}",
        "commit": provenance.commit(),
        "actors": ACTORS,
        "every_s": options.every_s,
        "exit_code": training.returncode,
        "minutes": round(minutes, 1),
        "kills": kills,
        "replaced": replaced,
        "account": account,
        "balanced": balanced,
        "processes_left": left,
        "memory_growth_mib_per_10_min": growth(samples),
        "memory_mib": samples,
        "conditions": vars(conditions),
        "versions": {package: version(package) for package in PACKAGES},
    }
    print(text(record))
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    well = training.returncode == 0 and balanced and not left and kills > 0 and replaced.get("died", 0) >= kills
    return 0 if well else 1


def growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """By kind, the slope of a line through the memory of the second half: by then the replay is full."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return {}
    seconds = [sample["s"] for sample in half]
    return {
        kind: float(np.polyfit(seconds, [sample[kind] for sample in half], 1)[0] * 600)
        for kind in ("actor", "learner", "other")
    }


def text(record: dict[str, Any]) -> str:
    """For people."""
    account, slope = record["account"], record["memory_growth_mib_per_10_min"]
    return (
        f"{record['minutes']} minutes, {record['kills']} actors killed, replaced: {record['replaced']}; exit code "
        f"{record['exit_code']}, {record['processes_left']} processes left; {account}, "
        f"{'balanced' if record['balanced'] else 'NOT BALANCED'}; memory grew by "
        + ", ".join(f"{value:+.1f} MiB ({kind})" for kind, value in slope.items())
        + " in 10 minutes."
    )


if __name__ == "__main__":
    sys.exit(main())
