"""What noise for local reparameterisation costs: tfqrl's hash beside XLA's generators and a matrix product, in one run.

    python benchmarks/bayesian_noise.py --json results/bayesian_noise.json

Each makes, 32 times in one compiled call, what a hidden layer of 256 units needs for a batch of 256, and they take
turns. The product is that of the layer: 256 x 256 by 256 x 256.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import provenance
import tensorflow as tf

from edge.conditions import Conditions
from edge.report import table
from tfqrl.compress.bayesian.noise import noise

SHAPE, CALLS = (256, 256), 32
PACKAGES = ("tfqrl", "tensorflow", "numpy")


def contenders() -> dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """By name, what makes a (256, 256) from the number of the call and the last one made."""
    weights = tf.Variable(tf.random.normal(SHAPE) / 16)

    def normal(alg: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        return lambda i, x: tf.random.stateless_normal(SHAPE, (1, i), alg=alg)

    return {
        "tfqrl's hash": lambda i, x: noise(SHAPE, 1, i),
        "stateless_normal, Philox": normal("philox"),
        "stateless_normal, ThreeFry": normal("threefry"),
        "matrix product": lambda i, x: x @ weights,
    }


def compiled(make: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Callable[[], Any]:
    """CALLS of it in one call, none of which can be left out."""

    @tf.function(jit_compile=True)
    def run() -> tf.Tensor:
        start = (tf.constant(0), tf.ones(SHAPE))
        return tf.while_loop(lambda i, x: i < CALLS, lambda i, x: (i + 1, 0.5 * x + make(i, x)), start)[1]

    return lambda: run().numpy()


def main() -> None:
    """Measure, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=51, help="calls of each, in turns")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    conditions = vars(Conditions.now())
    runs = {name: compiled(make) for name, make in contenders().items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(-2, options.rounds):
        for name, run in runs.items():
            began_s = time.perf_counter()
            run()
            if i >= 0:
                times[name].append((time.perf_counter() - began_s) / CALLS * 1e6)
    rows = [(name, *(float(np.percentile(each, at)) for at in (50, 25, 75))) for name, each in times.items()]
    print(table(("us", "median", "quartiles"), [(name, f"{m:.0f}", f"{a:.0f} .. {b:.0f}") for name, m, a, b in rows]))
    if options.json:
        result = {
            "command": f"python benchmarks/bayesian_noise.py --rounds {options.rounds}",
            "commit": provenance.commit(),
            "conditions": conditions,
            "versions": {package: version(package) for package in PACKAGES},
            "us": {name: {"median": m, "quartiles": [a, b]} for name, m, a, b in rows},
        }
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
