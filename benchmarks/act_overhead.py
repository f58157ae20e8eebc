"""What `edge.Policy.act` costs beside the interpreter's own set_tensor + invoke + get_tensor.

    python benchmarks/act_overhead.py --json results/act_overhead.json

`act` checks the observation's shape, converts it to float32, and refuses NaN and infinity; the bare calls do none of
it. Both run interleaved, in blocks of 200 calls, on networks of the sizes that are used for control, with a float64
observation (what simulators and drivers give; the bare calls are given it as float32 already, which favours them).
The figure is the ratio of medians over blocks.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import provenance

from converters import convert
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.conditions import Conditions
from edge.interpreter import build
from edge.report import table
from tfqrl.networks import mlp

OBSERVATION, ACTION = 17, 6
SIZES = ((64, 64), (256, 256))
RECIPES = ("float32", "int8")
BLOCKS, CALLS = 400, 200


def block_us(call: Callable[[], object]) -> float:
    """Microseconds per call over a block of calls."""
    began_ns = time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    return (time.perf_counter_ns() - began_ns) / CALLS / 1e3


def measure(hidden: tuple[int, ...], recipe: str) -> dict[str, object]:
    """The row of one network and recipe."""
    spec = PolicySpec(
        ObservationSpec((OBSERVATION,), (None,) * OBSERVATION, (None,) * OBSERVATION),
        ActionSpec((ACTION,), (-1.0,) * ACTION, (1.0,) * ACTION),
        None,
        None,
    )
    observations = np.random.default_rng(0).normal(size=(500, OBSERVATION))
    conversion = convert(mlp(OBSERVATION, hidden, ACTION), spec, recipe, observations)
    policy = conversion.policy()
    bare, runtime = build(conversion.artifact.flatbuffer, threads=1)
    set_tensor, invoke, get_tensor = bare.set_tensor, bare.invoke, bare.get_tensor
    i, o = bare.get_input_details()[0]["index"], bare.get_output_details()[0]["index"]
    given = observations[0]
    given_float32 = given[np.newaxis].astype(np.float32)

    def bare_calls() -> object:
        set_tensor(i, given_float32)
        invoke()
        return get_tensor(o)

    def act() -> object:
        return policy.act(given)

    np.testing.assert_array_equal(bare_calls()[0], act())  # type: ignore[index]
    block_us(bare_calls), block_us(act)
    pairs = np.array([(block_us(bare_calls), block_us(act)) for _ in range(BLOCKS)])
    ratios = pairs[:, 1] / pairs[:, 0]
    low, high = np.percentile(ratios, [5, 95])
    return {
        "network": f"{OBSERVATION}-" + "-".join(map(str, hidden)) + f"-{ACTION}",
        "recipe": recipe,
        "bare_us": float(np.median(pairs[:, 0])),
        "act_us": float(np.median(pairs[:, 1])),
        "ratio": float(np.median(pairs[:, 1]) / np.median(pairs[:, 0])),
        "ratio_p5_p95": [float(low), float(high)],
        "conditions": asdict(Conditions.now(runtime)),
    }


def main() -> None:
    """Measure every row, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    rows = [measure(hidden, recipe) for hidden in SIZES for recipe in RECIPES]
    cells = [
        [str(r["network"]), str(r["recipe"]), f"{r['bare_us']:.2f}", f"{r['act_us']:.2f}", f"{r['ratio']:.2f}"]
        for r in rows
    ]
    print(table(("network", "recipe", "bare us", "act us", "ratio"), cells))
    if options.json:
        result = {
            "commit": provenance.commit(),
            "command": "python benchmarks/act_overhead.py",
            "blocks": BLOCKS,
            "calls": CALLS,
            "rows": rows,
        }
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
