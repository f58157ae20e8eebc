"""Environment steps per second in training: this project against stable-baselines3 and SBX, the same settings, one run.

    python benchmarks/training_speed.py --json results/training_speed.json
    python benchmarks/training_speed.py --only '^SAC|floors' --rounds 3

Each training has a process of its own, with THREADS cores and as many threads. All trainings of a work begin, make
their random steps and compile; from then on they wait, and go on one at a time for a block of steps, round by round, so
that the machine's moods hit all. So the figures are of the steady state: without the random steps, compilation and the
first updates. Everything that a training does in it counts: acting, stepping, replay, updates, logging. Only the
checkpoints of this project are left out, since the others write none.

The floors are what bare parts reach in the same run: see training_floors.py.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import provenance
import training_floors
from training_contenders import THREADS, WORKS, Contender, Work, compete, use_threads
from training_speed_section import spread

from edge.conditions import Conditions
from edge.report import table

PACKAGES = (
    "tfqrl",
    "tensorflow",
    "tf-keras",
    "stable-baselines3",
    "torch",
    "sbx-rl",
    "jax",
    "gymnasium",
    "mujoco",
    "ale-py",
    "numpy",
)
SPAWN = multiprocessing.get_context("spawn")

# PyTorch's threads spin for so long after their last work before they leave the cores to the next.
REST_S = 0.3

Row = dict[str, Any]


class Training:
    """A contender's process, waiting for its turn once it has been made."""

    def __init__(self, work: Work, contender: Contender, block_steps: int) -> None:
        """Begin it, and wait until it is warm."""
        self._connection, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=compete, args=(work, contender, block_steps, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def block_s(self) -> float:
        """Let it train for a block; returns how long that took."""
        self._connection.send(None)
        return self._receive()

    def end(self) -> None:
        """End it in the middle of its training."""
        self._process.kill()
        self._process.join()

    def _receive(self) -> float:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise SystemExit(f"A training ended with exit code {self._process.exitcode}.") from None
        if isinstance(answer, str):
            raise SystemExit(answer)
        return float(answer)


def measure(work: Work, contenders: Sequence[Contender], rounds: int, steps: int | None) -> list[Row]:
    """A row for each contender: steps per second in each round, and how much faster `tfqrl` was in the same one."""
    block_steps = work.block_steps(steps)
    trainings: list[Training] = []
    found: list[list[float]] = [[] for _ in contenders]
    try:
        for contender in contenders:
            print(f"{work.name}: {contender.name} is warming up", file=sys.stderr, flush=True)
            trainings.append(Training(work, contender, block_steps))
        for turn in range(rounds):
            for place in range(len(contenders)):
                i = (turn + place) % len(contenders)
                time.sleep(REST_S)
                found[i].append(block_steps / trainings[i].block_s())
    finally:
        for training in trainings:
            training.end()
    ours = dict(zip((contender.name for contender in contenders), found)).get("tfqrl")
    rows = []
    for contender, speeds in zip(contenders, found):
        rows.append(
            {
                "work": work.name,
                "contender": contender.name,
                "settings": {**work.settings, **contender.settings},
                "block_steps": block_steps,
                "steps_per_s": summary(speeds),
                "tfqrl_ratio": summary([our / speed for our, speed in zip(ours, speeds)]) if ours else None,
                "wanted": work.wanted.get(contender.name),
            }
        )
    return rows


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles, with the values themselves."""
    low, median, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return {"median": median, "quartiles": [low, high], "rounds": [round(value, 4) for value in values]}


def in_process(measurement: str, rounds: int) -> Any:
    """What a function of training_floors.py returns, in a process of its own."""
    with SPAWN.Pool(1, use_threads) as pool:
        return pool.apply(getattr(training_floors, measurement), (rounds,))


def floors(rounds: int) -> dict[str, Any]:
    """What the parts reach by themselves."""
    print("floors", file=sys.stderr, flush=True)
    arithmetic = {name: summary(values) for name, values in in_process("arithmetic", rounds).items()}
    stepping = {name: summary(values) for name, values in in_process("stepping", rounds).items()}
    parts = {name: summary(values) for name, values in in_process("sac_step_us", rounds).items()}
    return {"arithmetic": arithmetic, "stepping_steps_per_s": stepping, "sac_step_us": parts}


def text(result: dict[str, Any]) -> str:
    """All tables."""
    cells = []
    for row in result["rows"]:
        ratio, wanted = row["tfqrl_ratio"], row["wanted"]
        cells.append(
            [
                f"{row['work']}: {row['contender']}",
                spread(row["steps_per_s"], 0),
                "" if ratio is None or row["contender"] == "tfqrl" else spread(ratio, 2),
                "" if wanted is None else f"{wanted:g}",
            ]
        )
    tables = [table(("training", "steps/s", "tfqrl is faster by", "wanted"), cells)] if cells else []
    for name, rows in result["floors"].items():
        tables.append(table((name, "median (quartiles)"), [[what, spread(values, 2)] for what, values in rows.items()]))
    return "\n\n".join(tables)


def main() -> None:
    """Measure what is asked for, print the tables, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", metavar="REGEX", default="", help="of 'WORK: CONTENDER' and 'floors', what to measure"
    )
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each training")
    parser.add_argument("--steps", type=int, help="environment steps of a block, rounded up to whole cycles")
    parser.add_argument("--list", action="store_true", help="list what there is, and measure nothing")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    chosen = [
        (
            work,
            [contender for contender in work.contenders if re.search(options.only, f"{work.name}: {contender.name}")],
        )
        for work in WORKS
    ]
    if options.list:
        print("\n".join(f"{work.name}: {contender.name}" for work, found in chosen for contender in found))
        return
    result: dict[str, Any] = {
        "commit": provenance.commit(),
        "command": " ".join(["python benchmarks/training_speed.py", *command_words(options)]),
        "threads": THREADS,
        "rounds": options.rounds,
        "machine": vars(Conditions.now()),
        "versions": {package: version(package) for package in PACKAGES},
        "rows": [],
        "floors": {},
    }
    began_s = time.perf_counter()
    for work, contenders in chosen:
        if contenders:
            result["rows"] += measure(work, contenders, options.rounds, options.steps)
    if re.search(options.only, "floors"):
        result["floors"] = floors(options.rounds)
    result["minutes"] = round((time.perf_counter() - began_s) / 60, 1)
    print(text(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def command_words(options: argparse.Namespace) -> list[str]:
    """The options that say what is measured."""
    words = [f"--rounds {options.rounds}"]
    if options.only:
        words.append(f"--only '{options.only}'")
    if options.steps:
        words.append(f"--steps {options.steps}")
    return words


if __name__ == "__main__":
    main()
