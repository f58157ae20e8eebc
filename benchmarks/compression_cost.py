"""What a step of training costs when the policy is compressed: beside float training, the same settings, one run.

    python benchmarks/compression_cost.py --json results/compression_cost.json
    python benchmarks/compression_cost.py --only '^TD3' --rounds 3

Trainings, turns and steady state are those of training_speed.py. Quantisation-aware training is on its grids from the
first update on; pruning looks at its masks as often as it does in a training of a million steps.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import provenance
from training_contenders import TFQRL, THREADS, WORKS, Contender
from training_speed import measure
from training_speed_section import spread

from edge.conditions import Conditions
from edge.report import table

PACKAGES = ("tfqrl", "tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy")
QAT = {"weight_bits": 4, "activation_bits": 4, "delay": 0.0}
METHODS = (
    TFQRL,
    Contender("qat", "tfqrl", {"compress": ("qat", QAT)}),
    Contender("prune", "tfqrl", {"compress": ("prune", {"prune_begin": 0.0})}),
    Contender("prune-qat", "tfqrl", {"compress": ("prune-qat", {**QAT, "prune_begin": 0.0})}),
    Contender("cluster", "tfqrl", {"compress": ("cluster", {"delay": 0.0})}),
    Contender("svd", "tfqrl", {"compress": ("svd", {"kl_begin": 0.0})}),
    Contender("vnq", "tfqrl", {"compress": ("vnq", {"kl_begin": 0.0})}),
    Contender("qabp", "tfqrl", {"compress": ("qabp", {"kl_begin": 0.0})}),
)
# Of the time of a step in float.
WANTED = 1.6


def main() -> None:
    """Measure what is asked for, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="of 'WORK', what to measure")
    parser.add_argument("--rounds", type=int, default=9, help="blocks of each training")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "commit": provenance.commit(),
        "command": f"python benchmarks/compression_cost.py --rounds {options.rounds}"
        + (f" --only '{options.only}'" if options.only else ""),
        "threads": THREADS,
        "rounds": options.rounds,
        "wanted": WANTED,
        "machine": vars(Conditions.now()),
        "versions": {package: version(package) for package in PACKAGES},
        "rows": [],
    }
    began_s = time.perf_counter()
    for work in WORKS:
        if re.search(options.only, work.name):
            result["rows"] += measure(replace(work, contenders=METHODS, wanted={}), METHODS, options.rounds, None)
    result["minutes"] = round((time.perf_counter() - began_s) / 60, 1)
    cells = [
        [f"{row['work']}: {row['contender']}", spread(row["steps_per_s"], 0), spread(row["tfqrl_ratio"], 2)]
        for row in result["rows"]
    ]
    print(table(("training", "steps/s", "time of a step over that in float"), cells))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
