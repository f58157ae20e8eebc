"""What ActorQ's learner costs by itself: updates, messages, policies for the actors.

    python benchmarks/actorq_learner.py --json results/actorq_learner.json

The learner of `tfqrl actorq d4pg` on dmc:walker-stand, with a critic of 512-512-256, in this process, with a replay
that is full and nobody to wait for; blocks of the networks take turns. Messages go by Ray to a process that inserts
them: what they cost is the processor time of either side. docs/actorq-scaling.md reckons with all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import provenance
from spread import quartiles

from edge.conditions import Conditions
from edge.report import table
from tfqrl.actorq.learner import Learner
from tfqrl.actorq.limited_replay import LimitedReplay
from tfqrl.actorq.messages import Experience, Order
from tfqrl.actorq.options import RECIPES, Distribution
from tfqrl.actorq.publisher import Publisher
from tfqrl.actorq.stopwatch import Stopwatch, Usage
from tfqrl.agents.d4pg import D4PGConfig
from tfqrl.envs import spec_of
from tfqrl.ray_engine import ray_engine
from tfqrl.replay import Transitions
from tfqrl.runs import Run
from tfqrl.training.off_policy import learn

ENV = "dmc:walker-stand"
NETWORKS = ((256, 256), (512, 512, 512), (2048, 2048, 2048))
PUSH_EVERY = 30
CALLS, MESSAGES, PUSHES = 3, 500, 10
# Updates to a call: what lies between says what an update costs, and a call beside its updates.
FEW, MANY = 1, 32
PACKAGES = ("tfqrl", "tensorflow", "ai-edge-litert", "ray", "dm-control", "mujoco", "numpy")


def some(rows: int) -> Transitions:
    """Transitions of the task, at random."""
    spec, rng = spec_of(ENV), np.random.default_rng(0)
    return Transitions(
        observation=rng.standard_normal((rows, *spec.observation.shape), np.float32),
        action=rng.uniform(-1, 1, (rows, *spec.action.shape)).astype(np.float32),
        reward=rng.uniform(0, 1, rows).astype(np.float32),
        next_observation=rng.standard_normal((rows, *spec.observation.shape), np.float32),
        discount=np.full(rows, 0.95, np.float32),
    )


class Bench:
    """A learner, and blocks of its work."""

    def __init__(self, hidden: tuple[int, ...], folder: Path) -> None:
        """With a replay that is full."""
        self.config = D4PGConfig(
            env=ENV,
            hidden=hidden,
            critic_hidden=(512, 512, 256),
            learning_starts=1000,
            replay_size=20_000,
            steps=10**9,
            checkpoint_period_s=1e9,
        )
        path = folder / "-".join(map(str, hidden))
        Run.create(path, "d4pg", self.config)
        self.learner = Learner(path, Distribution(samples_per_insert=1e-3), np.copy)
        self.learner._replay.insert(some(self.config.replay_size))
        self.session = self.learner._session
        spec = self.learner._collected.spec
        self.publishers = {
            precision: Publisher(
                self.session.agent.policy, spec.observation, None, precision, acts=PUSH_EVERY, put=np.copy
            )
            for precision in RECIPES
        }

    def block(self) -> dict[str, float]:
        """Seconds of an update, of its batch, of a call beside its updates, of a policy; and of how many cores."""
        spans = {updates: self._calls(updates) for updates in (FEW, MANY)}
        found = {
            name: (spans[MANY][name] - spans[FEW][name]) / (MANY - FEW) for name in ("sample", "update", "processors")
        }
        cores = found.pop("processors") / (found["sample"] + found["update"])
        found["call"] = sum(spans[FEW][name] for name in ("sample", "update", "report"))
        found["call"] -= FEW * (found["sample"] + found["update"])
        agent = self.session.agent
        for precision, publisher in self.publishers.items():
            watch = Stopwatch("quantise", "push")
            for _ in range(PUSHES):
                publisher.publish(agent.acting.weights, None, updates=0, explorer=agent.explorer(0), watch=watch)
            found[f"publish {precision}"] = sum(watch.spans.values()) / PUSHES
        return found | {"cores": cores}

    def _calls(self, updates: int) -> dict[str, float]:
        """By what they go to, seconds of a call of so many updates, and all processors' time."""
        learner, session, watch = self.learner, self.session, Stopwatch("sample", "update", "report")
        before_s = time.process_time()
        for _ in range(CALLS):
            batch = learner._replay.sample(updates, self.config.batch_size, session.rng)
            watch.lap("sample")
            metrics, learnt_from = learn(session, learner._replay, batch)
            watch.lap("update")
            learner._take_stock()
            session.updated(metrics | learner._spent().metrics(), learnt_from, learner._state)
            watch.lap("report")
        spans = {name: seconds / CALLS for name, seconds in watch.spans.items()}
        return spans | {"processors": (time.process_time() - before_s) / CALLS}


class Inbox:
    """A process that inserts what it is sent, as the learner does."""

    def __init__(self) -> None:
        config = D4PGConfig(env=ENV, replay_size=20_000)
        self._replay = LimitedReplay(
            config.make_replay(spec_of(ENV)), samples_per_insert=1.0, samples_per_call=1, learning_starts=10**9
        )

    def insert(self, experience: Experience) -> Order:
        """Take what an actor has seen."""
        self._replay.insert(experience.transitions)
        return Order(None, False, False)

    def cpu_s(self) -> float:
        """Processor time of this process."""
        return time.process_time()


def messages(ray: Any, inbox: Any) -> dict[str, float]:
    """Processor time of a message, on either side, one of them always under way."""
    message = Experience(0, 1, some(PUSH_EVERY), 0, [], 0, Usage({}, 0.0))
    sent, there_s, here_s = None, ray.get(inbox.cpu_s.remote()), time.process_time()
    for _ in range(MESSAGES):
        if sent is not None:
            ray.get(sent)
        sent = inbox.insert.remote(message)
    ray.get(sent)
    here_s = time.process_time() - here_s
    return {"send": here_s / MESSAGES, "receive": (ray.get(inbox.cpu_s.remote()) - there_s) / MESSAGES}


def main() -> None:
    """Measure, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each network, in turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    arguments = parser.parse_args()
    conditions = Conditions.now()
    with ray_engine(1, None, "actorq") as ray:
        inbox = ray.remote(num_cpus=1)(Inbox).remote()
        messages(ray, inbox)  # to warm up
        sent = [messages(ray, inbox) for _ in range(arguments.rounds)]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_:
        benches = {hidden: Bench(hidden, Path(folder)) for hidden in NETWORKS}
        for bench in benches.values():
            open_.enter_context(bench.session)
            bench.block()  # compiles
        blocks: dict[tuple[int, ...], list[dict[str, float]]] = {hidden: [] for hidden in NETWORKS}
        for turn in range(arguments.rounds):
            for hidden, bench in benches.items():
                blocks[hidden].append(bench.block())
            print(f"round {turn + 1}", file=sys.stderr, flush=True)
    record = {
        "command": f"python benchmarks/actorq_learner.py --rounds {arguments.rounds}",
        "commit": provenance.commit(),
        "env": ENV,
        "push_every": PUSH_EVERY,
        "batch_size": benches[NETWORKS[0]].config.batch_size,
        "transition_bytes": sum(array[0].nbytes for array in vars(some(1)).values() if isinstance(array, np.ndarray)),
        "conditions": vars(conditions),
        "versions": {package: version(package) for package in PACKAGES},
        "message_us": {name: quartiles([each[name] * 1e6 for each in sent]) for name in sent[0]},
        "results": [
            {
                "hidden": list(hidden),
                "cores": quartiles([block["cores"] for block in blocks[hidden]]),
                "us": {
                    name: quartiles([block[name] * 1e6 for block in blocks[hidden]])
                    for name in blocks[hidden][0]
                    if name != "cores"
                },
                "push_bytes": {name: publisher.push_bytes for name, publisher in bench.publishers.items()},
            }
            for hidden, bench in benches.items()
        ],
    }
    print(text(record))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def text(record: dict[str, Any]) -> str:
    """A row for each network."""
    rows = [
        [
            "-".join(map(str, result["hidden"])),
            *(f"{us['median']:,.0f}" for us in result["us"].values()),
            f"{result['cores']['median']:.2f}",
        ]
        for result in record["results"]
    ]
    sent = ", ".join(f"{name} {us['median']:.0f} us" for name, us in record["message_us"].items())
    header = ["network", *(f"{name}, us" for name in record["results"][0]["us"]), "cores busy in an update"]
    return f"{table(header, rows)}\nA message of {record['push_every']} transitions, of processors: {sent}"


if __name__ == "__main__":
    main()
