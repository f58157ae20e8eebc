"""Where ActorQ's replay should be: in the learner's process, or in one of its own.

    python benchmarks/actorq_replay.py --json results/actorq_replay.json

What a learner waits for the batches of a call of updates, and what that takes of all processors: drawn in its own
process (`tfqrl.actorq.limited_replay`), by another process of Ray that it asks, and by that one with the next call's
batches asked for ahead. They take turns. Messages of actors cost the same either way: one call of a Ray process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import provenance

from edge.conditions import Conditions
from edge.report import table
from tfqrl.actorq.limited_replay import LimitedReplay
from tfqrl.agents.d4pg import D4PGConfig
from tfqrl.envs import spec_of
from tfqrl.ray_engine import ray_engine
from tfqrl.replay import Transitions

ENV = "dmc:walker-stand"
SIZE, CALLS = 100_000, 20
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


def measured(rounds: int) -> list[dict[str, Any]]:
    """A row for each place and number of updates."""
    with ray_engine(1, None, "actorq") as ray:
        here, there = Replay(), ray.remote(num_cpus=1)(Replay).remote()
        asked: dict[int, Any] = {}

        def ahead(updates: int) -> Transitions:
            batches = ray.get(asked[updates]) if updates in asked else None
            asked[updates] = there.sample.remote(updates)
            return ray.get(there.sample.remote(updates)) if batches is None else batches

        places: dict[str, Callable[[int], Transitions]] = {
            "with the learner": here.sample,
            "a process of Ray": lambda updates: ray.get(there.sample.remote(updates)),
            "a process of Ray, asked ahead": ahead,
        }
        waits: dict[tuple[str, int], list[float]] = {}
        used: dict[tuple[str, int], list[float]] = {}
        for turn in range(rounds + 1):
            for updates in UPDATES:
                for name, sample in places.items():
                    before_s, began_s = here.cpu_s() + ray.get(there.cpu_s.remote()), time.perf_counter()
                    for _ in range(CALLS):
                        batches = sample(updates)
                        assert batches.observation.shape[0] == updates
                    took_s = (time.perf_counter() - began_s) / CALLS
                    cpu_s = (here.cpu_s() + ray.get(there.cpu_s.remote()) - before_s) / CALLS
                    if turn:  # the first round was to warm up
                        waits.setdefault((name, updates), []).append(took_s * 1e6)
                        used.setdefault((name, updates), []).append(cpu_s * 1e6)
            print(f"round {turn} of {rounds}", file=sys.stderr, flush=True)
    return [
        {"place": name, "updates": updates, "wait_us": _spread(wait), "cpu_us": _spread(used[name, updates])}
        for (name, updates), wait in waits.items()
    ]


def _spread(values: list[float]) -> dict[str, float]:
    return dict(zip(("median", "p25", "p75"), map(float, np.percentile(values, [50, 25, 75]))))


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
