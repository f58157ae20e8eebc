"""What a template saves: new weights written into a flatbuffer, beside the converter; and what acting through it costs.

    python benchmarks/template.py --json results/template.json

For policies of HalfCheetah's size. `convert` is all that makes a flatbuffer of a network; `write` is
`converters.template.Template.write` of other weights and another normaliser; `reload` is its `policy()`, which copies
the bytes and builds the interpreter. They take turns, block by block.

Then a batch of normalised observations is acted on: by `tfqrl.networks.HostNetwork`, which is what training does, and
by an interpreter for the flatbuffer of a template, resized to the batch.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cheetah
import numpy as np
import provenance

from converters import RECIPES
from converters.export import DeployedPolicy
from converters.quantise import quantise
from converters.template import Template
from converters.tflite import to_float32
from edge.artifact import Normalizer
from edge.conditions import Conditions
from edge.interpreter import build, tensor_memory
from edge.report import table
from tfqrl.networks import HostNetwork, mlp

SIZES = ((64, 64), (256, 256), (512, 512, 512))
KINDS = ("float32", "float16", "dynamic-int8")
BATCHES = (1, 16)
BLOCKS = 30
NORMALIZER = Normalizer((0.5,) * cheetah.OBSERVATION, (2.0,) * cheetah.OBSERVATION, 10.0)
SPEC = dataclasses.replace(cheetah.SPEC, normalizer=NORMALIZER)
CALLS = {"convert": 1, "write": 20, "reload": 10}
ACTING_BLOCKS, ACTING_CALLS = 200, 50


def writing(hidden: tuple[int, ...], kind: str) -> dict[str, Any]:
    """The row of one network and recipe."""
    rng = np.random.default_rng(0)
    network = mlp(cheetah.OBSERVATION, hidden, cheetah.ACTION)
    template = Template(network, SPEC, kind)
    sets = []
    for _ in range(4):
        weights = [rng.standard_normal(values.shape, np.float32) for values in network.get_weights()]
        mean, std = rng.normal(size=cheetah.OBSERVATION), rng.uniform(0.5, 2.0, cheetah.OBSERVATION)
        sets.append((weights, dataclasses.replace(NORMALIZER, mean=tuple(mean.tolist()), std=tuple(std.tolist()))))
    turn = 0

    def write() -> None:
        nonlocal turn
        turn += 1
        template.write(*sets[turn % len(sets)])

    def convert() -> bytes:
        weights, normalizer = sets[turn % len(sets)]
        network.set_weights(weights)
        flatbuffer = to_float32(DeployedPolicy(network, dataclasses.replace(SPEC, normalizer=normalizer)))
        return flatbuffer if kind == "float32" else quantise(flatbuffer, RECIPES[kind], {}, {})[0]

    write()
    assert convert() == template.flatbuffer
    calls: dict[str, Callable[[], object]] = {"convert": convert, "write": write, "reload": template.policy}
    return {
        "network": "-".join(map(str, (cheetah.OBSERVATION, *hidden, cheetah.ACTION))),
        "recipe": kind,
        "bytes": len(template.flatbuffer),
        "us": in_turns(calls, CALLS, BLOCKS),
    }


def acting(hidden: tuple[int, ...], batch: int) -> dict[str, Any]:
    """The row of one network and batch."""
    rng = np.random.default_rng(0)
    network = mlp(cheetah.OBSERVATION, hidden, cheetah.ACTION)
    unbounded = (None,) * cheetah.ACTION
    spec = dataclasses.replace(
        cheetah.SPEC, action=dataclasses.replace(cheetah.SPEC.action, low=unbounded, high=unbounded)
    )
    observations = rng.standard_normal((batch, cheetah.OBSERVATION), np.float32)
    host = HostNetwork(network)
    calls: dict[str, Callable[[], Any]] = {"numpy": lambda: host(observations)}
    for kind in ("float32", "dynamic-int8"):
        calls[kind] = interpreted(bytes(Template(network, spec, kind).flatbuffer), observations)
        np.testing.assert_allclose(calls[kind](), host(observations), atol=1e-5 if kind == "float32" else 0.1)
    return {
        "network": "-".join(map(str, (cheetah.OBSERVATION, *hidden, cheetah.ACTION))),
        "batch": batch,
        "us": in_turns(calls, dict.fromkeys(calls, ACTING_CALLS), ACTING_BLOCKS),
    }


def interpreted(flatbuffer: bytes, observations: Any) -> Callable[[], Any]:
    """Actions of an interpreter for the batch."""
    interpreter, _ = build(flatbuffer, threads=1)
    reads, gives = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(reads, observations.shape)
    interpreter.allocate_tensors()
    taken, given, invoke = tensor_memory(interpreter, reads), tensor_memory(interpreter, gives), interpreter.invoke

    def call() -> Any:
        taken[...] = observations
        invoke()
        return given.copy()

    return call


def in_turns(
    calls: dict[str, Callable[[], object]], repeats: dict[str, int], blocks: int
) -> dict[str, dict[str, float]]:
    """Microseconds per call: the median over blocks that take turns, and the 5th and 95th percentile."""
    times_us = {name: np.zeros(blocks) for name in calls}
    for block in (0, *range(blocks)):  # the first is measured again, warm
        for name, call in calls.items():
            began_ns = time.perf_counter_ns()
            for _ in range(repeats[name]):
                call()
            times_us[name][block] = (time.perf_counter_ns() - began_ns) / repeats[name] / 1e3
    return {
        name: dict(zip(("median", "p5", "p95"), (float(value) for value in np.percentile(times, [50, 5, 95]))))
        for name, times in times_us.items()
    }


def main() -> None:
    """Measure every row, print the tables, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    conditions = Conditions.now()
    written = [writing(hidden, kind) for hidden in SIZES for kind in KINDS]
    acted = [acting(hidden, batch) for hidden in SIZES for batch in BATCHES]
    for rows, head in ((written, ("network", "recipe", "bytes")), (acted, ("network", "batch"))):
        cells = [[*(str(row[name]) for name in head), *(spread(times) for times in row["us"].values())] for row in rows]
        print(table((*head, *(f"{name}, us" for name in rows[0]["us"])), cells), end="\n\n")
    if options.json:
        result = {
            "commit": provenance.commit(),
            "command": "python benchmarks/template.py",
            "blocks": BLOCKS,
            "rows": written,
            "acting": acted,
            "conditions": vars(conditions),
        }
        options.json.write_text(json.dumps(result, indent=1))


def spread(times: dict[str, float]) -> str:
    """For people."""
    return f"{times['median']:.3g} ({times['p5']:.3g} .. {times['p95']:.3g})"


if __name__ == "__main__":
    main()
