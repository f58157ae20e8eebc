"""Where ActorQ's replay should be: in the learner's process, or in one of its own.

    python benchmarks/actorq_replay.py --json results/actorq_replay.json

What a learner waits for the batches of a call of updates, and what they take of processors, of its own process and the
replay's: drawn in its own process (`tfqrl.actorq.limited_replay`), by another process of Ray that it asks, and by that
one with the next call's batches asked for ahead, while it is at an update (here: sleeps). They take turns. Messages of
actors cost the same either way: one call of a Ray process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import provenance
from spread import quartiles

from edge.conditions import Conditions
from edge.report import table
from tfqrl.actorq.limited_replay import LimitedReplay
from tfqrl.agents.d4pg import D4PGConfig
from tfqrl.envs import spec_of
from tfqrl.ray_engine import ray_engine
from tfqrl.replay import Transitions

ENV = "dmc:walker-stand"
SIZE, CALLS = 100_000, 20
# Between two calls, as the update of the smallest network that is worth it.
UPDATE_S = 0.01
# Updates to a call: of a training that learns little from a step, and the most there are.
UPDATES = (1, 8, 32)
PACKAGES = ("tfqrl", "ray", "numpy")


class Replay:
    """A full one, in whatever process."""

    def __init__(self) -> None:
        config, spec = D4PGConfig(env=ENV, replay_size=SIZE), spec_of(ENV)
        rng, observation, action = np.random.default_rng(0), spec.observation.shape[0], spec.action.shape[0]
        self._replay = LimitedReplay(
            config.make_replay(spec), samples_per_insert=1.0, samples_per_call=1, learning_starts=1
        )
        self._batch_size, self._rng = config.batch_size, rng
        self._replay.insert(
            Transitions(
                observation=rng.standard_normal((SIZE, observation), np.float32),
                action=rng.standard_normal((SIZE, action), np.float32),
                reward=rng.standard_normal(SIZE, np.float32),
                next_observation=rng.standard_normal((SIZE, observation), np.float32),
                discount=np.full(SIZE, 0.95, np.float32),
            )
        )

    def sample(self, updates: int) -> Transitions:
        """Batches of so many updates."""
        return self._replay.sample(updates, self._batch_size, self._rng)

    def cpu_s(self) -> float:
        """Processor time of this process."""
        return time.process_time()


class There:
    """The one in another process."""

    def __init__(self, ray: Any, *, ahead: bool) -> None:
        """With or without the next call's batches asked for ahead."""
        self._get, self._replay, self._ahead = ray.get, ray.remote(num_cpus=1)(Replay).remote(), ahead
        self._asked: Any = None

    def begin(self, updates: int) -> None:
        """A block of calls of so many updates begins."""
        self._asked = self._replay.sample.remote(updates) if self._ahead else None

    def sample(self, updates: int) -> Transitions:
        """Batches of so many updates."""
        asked = self._replay.sample.remote(updates) if self._asked is None else self._asked
        batches: Transitions = self._get(asked)
        if self._ahead:
            self._asked = self._replay.sample.remote(updates)
        return batches

    def cpu_s(self) -> float:
        """Processor time of its process and of this one."""
        return float(self._get(self._replay.cpu_s.remote())) + time.process_time()


class Here(Replay):
    """The one in this process."""

    def begin(self, updates: int) -> None:
        """Nothing to do before a block."""


def measured(rounds: int) -> list[dict[str, Any]]:
    """A row for each place and number of updates."""
    waits: dict[tuple[str, int], list[float]] = {}
    used: dict[tuple[str, int], list[float]] = {}
    with ray_engine(2, None, "actorq") as ray:
        places: dict[str, Here | There] = {
            "with the learner": Here(),
            "a process of Ray": There(ray, ahead=False),
            "a process of Ray, asked ahead": There(ray, ahead=True),
        }
        for turn in range(rounds + 1):
            for updates in UPDATES:
                for name, replay in places.items():
                    replay.begin(updates)
                    before_s, took_s = replay.cpu_s(), 0.0
                    for _ in range(CALLS):
                        time.sleep(UPDATE_S)
                        began_s = time.perf_counter()
                        batches = replay.sample(updates)
                        took_s += time.perf_counter() - began_s
                        assert batches.observation.shape[0] == updates
                    cpu_s = replay.cpu_s() - before_s
                    if turn:  # the first round was to warm up
                        waits.setdefault((name, updates), []).append(took_s / CALLS * 1e6)
                        used.setdefault((name, updates), []).append(cpu_s / CALLS * 1e6)
            print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    return [
        {"place": name, "updates": updates, "wait_us": quartiles(wait), "cpu_us": quartiles(used[name, updates])}
        for (name, updates), wait in waits.items()
    ]


def main() -> None:
    """Measure, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help=f"blocks of {CALLS} calls of each, in turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    arguments = parser.parse_args()
    conditions = Conditions.now()
    results = measured(arguments.rounds)
    rows = [
        [row["place"], str(row["updates"]), *(f"{row[name]['median']:,.0f}" for name in ("wait_us", "cpu_us"))]
        for row in results
    ]
    print(table(["replay", "updates to a call", "us waited for a call's batches", "us of processors"], rows))
    if arguments.json is not None:
        record = {
            "command": f"python benchmarks/actorq_replay.py --rounds {arguments.rounds}",
            "commit": provenance.commit(),
            "env": ENV,
            "conditions": vars(conditions),
            "versions": {package: version(package) for package in PACKAGES},
            "results": results,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
