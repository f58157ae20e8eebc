"""What ActorQ's learner costs by itself: an update, taking in a message, making a policy for the actors.

    python benchmarks/actorq_learner.py --json results/actorq_learner.json

The learner of `tfqrl actorq d4pg` on dmc:walker-stand, with a critic of 512-512-256, in this process, with a replay
that is full and nobody to wait for; blocks of the networks take turns. docs/actorq-scaling.md reckons with it.
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

from edge.conditions import Conditions
from edge.report import table
from tfqrl.actorq.learner import Learner
from tfqrl.actorq.messages import Experience, Hello
from tfqrl.actorq.options import RECIPES, Distribution
from tfqrl.actorq.publisher import Publisher
from tfqrl.actorq.stopwatch import Stopwatch, Usage
from tfqrl.agents.d4pg import D4PGConfig
from tfqrl.replay import Transitions
from tfqrl.runs import Run
from tfqrl.training.off_policy import learn

ENV = "dmc:walker-stand"
NETWORKS = ((256, 256), (512, 512, 512), (2048, 2048, 2048))
PUSH_EVERY, ACTORS = 30, 4
CALLS, MESSAGES, PUSHES = 3, 50, 10
PACKAGES = ("tfqrl", "tensorflow", "ai-edge-litert", "dm-control", "mujoco", "numpy")


class Bench:
    """A learner, and blocks of its work."""

    def __init__(self, hidden: tuple[int, ...], folder: Path) -> None:
        """With a replay that is full."""
        config = D4PGConfig(
            env=ENV,
            hidden=hidden,
            critic_hidden=(512, 512, 256),
            learning_starts=1000,
            replay_size=20_000,
            steps=10**9,
            checkpoint_period_s=1e9,
        )
        path = folder / "-".join(map(str, hidden))
        Run.create(path, "d4pg", config)
        self.learner = Learner(path, Distribution(actors=ACTORS, samples_per_insert=1e-3), np.copy)
        self.config, self.session = config, self.learner._session
        spec, rng = self.learner._collected.spec, np.random.default_rng(0)
        n, observation, action = config.replay_size, spec.observation.shape[0], spec.action.shape[0]

        def some(rows: int) -> Transitions:
            return Transitions(
                observation=rng.standard_normal((rows, observation), np.float32),
                action=rng.uniform(-1, 1, (rows, action)).astype(np.float32),
                reward=rng.uniform(0, 1, rows).astype(np.float32),
                next_observation=rng.standard_normal((rows, observation), np.float32),
                discount=np.full(rows, 0.95, np.float32),
            )

        self.learner._replay.insert(some(n))
        self.message = some(PUSH_EVERY)
        self.learner.join(Hello(0, 0, 1, 0, 0))
        self.updates_per_call = Distribution(actors=ACTORS).updates_per_call(config)
        agent = self.session.agent
        self.publishers = {
            precision: Publisher(agent.policy, spec.observation, None, precision, acts=PUSH_EVERY, put=np.copy)
            for precision in RECIPES
        }

    def block(self) -> dict[str, float]:
        """Seconds: of an update and its batch, of a call's report, of a message, of a policy."""
        learner, session, watch = self.learner, self.session, Stopwatch("sample", "update", "report")
        for _ in range(CALLS):
            batch = learner._replay.sample(self.updates_per_call, self.config.batch_size, session.rng)
            watch.lap("sample")
            metrics, learnt_from = learn(session, learner._replay, batch)
            watch.lap("update")
            learner._take_stock()
            session.updated(metrics | learner._spent().metrics(), learnt_from, learner._state)
            watch.lap("report")
        found = {name: seconds / CALLS for name, seconds in watch.spans.items()}
        found["sample"] /= self.updates_per_call
        found["update"] /= self.updates_per_call
        began_s = time.perf_counter()
        for number in range(MESSAGES):
            learner.insert(Experience(0, 1, self.message, number * PUSH_EVERY, [], 0, Usage({}, 0.0)))
        found["receive"] = (time.perf_counter() - began_s) / MESSAGES
        for precision, publisher in self.publishers.items():
            watch = Stopwatch("quantise", "push")
            for _ in range(PUSHES):
                publisher.publish(
                    session.agent.acting.weights, None, updates=0, explorer=session.agent.explorer(0), watch=watch
                )
            found[f"publish {precision}"] = sum(watch.spans.values()) / PUSHES
        return found


def main() -> None:
    """Measure, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each network, in turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    arguments = parser.parse_args()
    conditions = Conditions.now()
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
    results = []
    for hidden, bench in benches.items():
        us = {
            name: dict(
                zip(
                    ("median", "p25", "p75"),
                    map(float, np.percentile([block[name] * 1e6 for block in blocks[hidden]], [50, 25, 75])),
                )
            )
            for name in blocks[hidden][0]
        }
        arrays = vars(bench.message).values()
        results.append(
            {
                "hidden": list(hidden),
                "us": us,
                "push_bytes": {name: publisher.push_bytes for name, publisher in bench.publishers.items()},
                "transition_bytes": sum(array[0].nbytes for array in arrays if isinstance(array, np.ndarray)),
            }
        )
    print(text(results))
    if arguments.json is not None:
        record = {
            "command": f"python benchmarks/actorq_learner.py --rounds {arguments.rounds}",
            "commit": provenance.commit(),
            "env": ENV,
            "push_every": PUSH_EVERY,
            "batch_size": benches[NETWORKS[0]].config.batch_size,
            "updates_per_call": benches[NETWORKS[0]].updates_per_call,
            "conditions": vars(conditions),
            "versions": {package: version(package) for package in PACKAGES},
            "results": results,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def text(results: list[dict[str, Any]]) -> str:
    """A row for each network."""
    rows = [
        ["-".join(map(str, result["hidden"])), *(f"{us['median']:,.0f}" for us in result["us"].values())]
        for result in results
    ]
    return table(["network", *(f"{name}, us" for name in results[0]["us"])], rows)


if __name__ == "__main__":
    main()
