"""ActorQ from end to end: how long steps take, by the precision of actors and by how much is learnt from a step.

    python benchmarks/actorq.py --json results/actorq.json

Each is a training by `tfqrl actorq d4pg` on dmc:walker-stand, with a critic of 512-512-256 as the paper's; they take
turns, round by round. What is timed is the part after WARM of the steps: before that processes start, and the update
is compiled. The learner has no device of its own: it shares the cores with the actors.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import provenance

from edge.conditions import Conditions
from edge.report import table
from tfqrl.actorq.stopwatch import shares

ENV = "dmc:walker-stand"
NETWORKS = {"512-512-512": 20_000, "2048-2048-2048": 6_000}  # and the steps of a training
RATIOS = (0.25, 1.0, 4.0, 16.0)
PRECISIONS = ("float32", "float16", "int8")
WARM = 0.3
PACKAGES = ("tfqrl", "tensorflow", "ai-edge-litert", "ray", "dm-control", "mujoco", "numpy")


def trained(network: str, precision: str, ratio: float, actors: int, seed: int) -> dict[str, Any]:
    """One training: seconds of the part that is timed, its updates, and where the time went."""
    steps = NETWORKS[network]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = ["d4pg", "--env", ENV, "--no-zoo", "--steps", str(steps), "--seed", str(seed), "--out", str(run)]
        words += [
            "--hidden",
            *network.split("-"),
            "--critic-hidden",
            "512",
            "512",
            "256",
            "--learning-starts",
            "1000",
            "--checkpoint-period-s",
            "3600",
        ]
        words += ["--actors", str(actors), "--actor-precision", precision, "--samples-per-insert", str(ratio)]
        command = [sys.executable, "-m", "tfqrl", "actorq", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        report = json.loads((run / "actorq.json").read_text())
    first, last = next(record for record in records if record["steps"] >= WARM * steps), records[-1]
    timed_steps = last["steps"] - first["steps"]
    return {
        "s_per_1000_steps": (last["elapsed_s"] - first["elapsed_s"]) / timed_steps * 1000,
        "steps": report["steps"],
        "updates": report["updates"],
        "staleness_mean": report["staleness_mean"],
        "in_place": report["in_place"],
        "actors": report["actors"],
        "learner": report["learner"],
    }


def main() -> None:
    """Measure, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each, in turns")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    arguments = parser.parse_args()
    conditions = Conditions.now()
    grid = list(itertools.product(NETWORKS, RATIOS, PRECISIONS))
    measured: dict[tuple[str, float, str], list[dict[str, Any]]] = {cell: [] for cell in grid}
    for turn in range(arguments.rounds):
        for network, ratio, precision in grid:
            measured[network, ratio, precision].append(trained(network, precision, ratio, arguments.actors, turn))
            print(
                f"round {turn + 1}: {network}, {ratio:g} samples per insert, {precision}", file=sys.stderr, flush=True
            )
    rows = [
        {"network": network, "samples_per_insert": ratio, "precision": precision, "trainings": trainings}
        for (network, ratio, precision), trainings in measured.items()
    ]
    print(text(rows))
    if arguments.json is not None:
        record = {
            "command": f"python benchmarks/actorq.py --rounds {arguments.rounds} --actors {arguments.actors}",
            "commit": provenance.commit(),
            "env": ENV,
            "actors": arguments.actors,
            "conditions": vars(conditions),
            "versions": {package: version(package) for package in PACKAGES},
            "results": rows,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def text(rows: list[dict[str, Any]]) -> str:
    """A row for each network and ratio, with precisions beside each other."""
    cells = {(row["network"], row["samples_per_insert"], row["precision"]): row["trainings"] for row in rows}
    lines = []
    for network, ratio in dict.fromkeys((network, ratio) for network, ratio, _ in cells):
        seconds = {
            precision: np.array([each["s_per_1000_steps"] for each in cells[network, ratio, precision]])
            for precision in PRECISIONS
        }
        busy = [1 - shares(each["learner"])["wait"] for each in cells[network, ratio, "int8"]]
        gain = seconds["float32"] / seconds["int8"]
        spread = f"{gain.min():.2f}..{gain.max():.2f}"
        lines.append(
            [
                *(network, f"{ratio:g}", *(f"{np.median(seconds[p]):.2f}" for p in PRECISIONS)),
                *(f"{np.median(gain):.2f}", spread, f"{np.median(busy):.0%}"),
            ]
        )
    header = ["network", "samples per insert", *(f"{p}, s/1000 steps" for p in PRECISIONS)]
    return table([*header, "float32 / int8", "range", "learner busy (int8)"], lines)


if __name__ == "__main__":
    main()
