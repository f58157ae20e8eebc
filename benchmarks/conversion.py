"""How long a conversion takes, beyond imports: a policy of HalfCheetah's size with two hidden layers of 256.

    python benchmarks/conversion.py --json results/conversion.json

`convert` is all of `converters.convert`: the float32 flatbuffer, calibration on 10,000 observations, the comparison of
actions on 5,000 with two sets of kernels, golden pairs. `flatbuffer` is the first of these alone, TensorFlow's
converter. Episodes, which `tfqrl convert` plays besides, take what the environment takes. Recipes take turns.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cheetah
import numpy as np
import provenance

from converters import RECIPES, convert
from converters.export import DeployedPolicy
from converters.tflite import to_float32
from edge.conditions import Conditions
from edge.report import table

HIDDEN = (256, 256)
OBSERVATIONS = np.random.default_rng(0).normal(size=(20_000, cheetah.OBSERVATION))
ROUNDS = 7


def main() -> None:
    """Measure, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    conditions = Conditions.now()
    network = cheetah.network(HIDDEN)

    def converted(name: str) -> bytes:
        return convert(network, cheetah.SPEC, name, OBSERVATIONS).artifact.flatbuffer

    calls = {"flatbuffer": lambda: to_float32(DeployedPolicy(network, cheetah.SPEC))}
    calls |= {name: functools.partial(converted, name) for name in RECIPES}
    model_bytes = {name: len(call()) for name, call in calls.items()}
    times_s: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began_s = time.perf_counter()
            call()
            times_s[name].append(time.perf_counter() - began_s)
    names = ("median", "min", "max")
    rows = [
        {"what": name, "bytes": model_bytes[name], "seconds": dict(zip(names, (np.median(t), min(t), max(t))))}
        for name, t in times_s.items()
    ]
    cells = [[row["what"], str(row["bytes"]), *(f"{row['seconds'][key]:.2f}" for key in names)] for row in rows]
    print(table(("", "bytes", "median s", "min", "max"), cells))
    if options.json:
        result = {
            "commit": provenance.commit(),
            "command": "python benchmarks/conversion.py",
            "rounds": ROUNDS,
            "rows": rows,
            "conditions": vars(conditions),
        }
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
