"""What one action costs: `edge.Policy.act` beside the interpreter's bare calls, onnxruntime and stable-baselines3.

    python benchmarks/edge_latency.py --json results/edge_latency.json

One network for all: 17 observations, two hidden layers, 6 actions, as for HalfCheetah. `act` is given a float64
observation (what simulators and drivers give), checks its shape and that it is finite, and gives an action in the
plant's units. The others get what suits them best: the bare calls and onnxruntime a float32 array that is ready,
onnxruntime one thread and its own int8 quantisation; stable-baselines3 the observation as its environment gives it. All
take turns, in blocks of calls, and the figures are ratios of medians over blocks, with the 5th and 95th percentile of
the blocks' own ratios.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cheetah
import numpy as np
import onnxruntime
import provenance
import stable_baselines3
import torch
from onnx_export import to_int8, to_onnx

from edge.artifact import Normalizer
from edge.conditions import Conditions
from edge.interpreter import build
from edge.quantise import Quantiser
from edge.report import table

SIZES = ((64, 64), (256, 256))
BLOCKS = 300
# Blocks of about the same length for calls of a microsecond and of a fifth of a millisecond.
CALLS = {"act": 200, "bare": 200, "act float32": 200, "bare float32": 200, "onnxruntime": 100, "stable-baselines3": 10}
PACKAGES = ("onnxruntime", "stable-baselines3", "torch")


def measure(hidden: tuple[int, ...]) -> dict[str, Any]:
    """The row of one network."""
    given = cheetah.OBSERVATIONS[0]
    calls: dict[str, Callable[[], object]] = {}
    for recipe, suffix in (("int8", ""), ("float32", " float32")):
        conversion = cheetah.conversion(hidden, recipe)
        policy = conversion.policy()
        calls[f"act{suffix}"] = lambda act=policy.act: act(given)  # type: ignore[misc]
        calls[f"bare{suffix}"] = bare_calls(conversion.artifact.flatbuffer, given)
        np.testing.assert_array_equal(calls[f"bare{suffix}"]()[0], policy.act(given))  # type: ignore[index]
    calls["onnxruntime"] = onnx_call(cheetah.network(hidden), cheetah.OBSERVATIONS.astype(np.float32))
    calls["stable-baselines3"] = sb3_call(hidden, given)
    for name, call in calls.items():
        block_us(call, CALLS[name])
    times_us = {name: np.zeros(BLOCKS) for name in calls}
    for block in range(BLOCKS):
        for name, call in calls.items():
            times_us[name][block] = block_us(call, CALLS[name])
    return {
        "network": "-".join(map(str, (cheetah.OBSERVATION, *hidden, cheetah.ACTION))),
        "median_us": {name: float(np.median(times)) for name, times in times_us.items()},
        "ratios": {
            f"{above} / {below}": ratio(times_us[above], times_us[below])
            for above, below in (
                ("act", "bare"),
                ("act float32", "bare float32"),
                ("onnxruntime", "act"),
                ("stable-baselines3", "act"),
            )
        },
    }


def ratio(above: Any, below: Any) -> dict[str, float]:
    """A ratio of medians, with the spread of the blocks' ratios."""
    low, high = np.percentile(above / below, [5, 95])
    return {"ratio": float(np.median(above) / np.median(below)), "p5": float(low), "p95": float(high)}


def block_us(call: Callable[[], object], n: int) -> float:
    """Microseconds per call over a block of calls."""
    began_ns = time.perf_counter_ns()
    for _ in range(n):
        call()
    return (time.perf_counter_ns() - began_ns) / n / 1e3


def bare_calls(flatbuffer: bytes, observation: Any) -> Callable[[], object]:
    """set_tensor, invoke and get_tensor."""
    interpreter, _ = build(flatbuffer, threads=1)
    set_tensor, invoke, get_tensor = interpreter.set_tensor, interpreter.invoke, interpreter.get_tensor
    i, o = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    ready = observation[np.newaxis].astype(np.float32)

    def call() -> object:
        set_tensor(i, ready)
        invoke()
        return get_tensor(o)

    return call


def onnx_call(network: Any, observations: Any) -> Callable[[], object]:
    """Onnxruntime's int8 session, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        float_file, int8_file = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        float_file.write_bytes(to_onnx(network))
        to_int8(float_file, int8_file, observations)
        session = onnxruntime.InferenceSession(int8_file.read_bytes(), options, providers=["CPUExecutionProvider"])
    feed = {"observation": observations[:1]}
    return lambda: session.run(None, feed)


def sb3_call(hidden: tuple[int, ...], observation: Any) -> Callable[[], object]:
    """stable-baselines3's `predict`, on one thread."""
    torch.set_num_threads(1)
    agent = stable_baselines3.PPO("MlpPolicy", "HalfCheetah-v5", policy_kwargs={"net_arch": list(hidden)}, device="cpu")
    return lambda: agent.predict(observation, deterministic=True)


def host_quantisation() -> dict[str, float]:
    """Microseconds for normalising and quantising 17 observations: ours, and as one would write it in numpy."""
    rng = np.random.default_rng(0)
    observation, tensor = rng.normal(size=cheetah.OBSERVATION), np.zeros(cheetah.OBSERVATION, np.int8)
    mean, std, scale, zero_point = rng.normal(size=cheetah.OBSERVATION), np.full(cheetah.OBSERVATION, 2.0), 0.05, 3
    quantiser = Quantiser(tensor, scale, zero_point, Normalizer(tuple(mean), tuple(std), 10.0))
    values, store = quantiser.values, quantiser.store

    def ours() -> None:
        values[...] = observation
        store()

    def plain() -> Any:
        normalised = np.clip((observation - mean) / std, -10, 10)
        return np.clip(np.round(normalised / scale + zero_point), -128, 127).astype(np.int8)

    ours()
    np.testing.assert_array_equal(tensor, plain())
    times = np.array([(block_us(ours, 200), block_us(plain, 200)) for _ in range(BLOCKS)])
    return {"ours_us": float(np.median(times[:, 0])), "plain_numpy_us": float(np.median(times[:, 1]))}


def main() -> None:
    """Measure every row, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    rows = [measure(hidden) for hidden in SIZES]
    quantisation = host_quantisation()
    names = list(rows[0]["median_us"])
    cells = [[row["network"], *(f"{row['median_us'][name]:.2f}" for name in names)] for row in rows]
    print(table(("microseconds", *names), cells), end="\n\n")
    ratios = list(rows[0]["ratios"])
    cells = [
        [name, *(f"{r['ratio']:.2f} [{r['p5']:.2f}, {r['p95']:.2f}]" for r in (row["ratios"][name] for row in rows))]
        for name in ratios
    ]
    print(table(("ratio", *(row["network"] for row in rows)), cells), end="\n\n")
    print(
        f"normalising and quantising {cheetah.OBSERVATION} observations on the host: {quantisation['ours_us']:.2f} us "
        f"(plain numpy: {quantisation['plain_numpy_us']:.2f} us)"
    )
    if options.json:
        result = {
            "commit": provenance.commit(),
            "command": "python benchmarks/edge_latency.py",
            "blocks": BLOCKS,
            "calls": CALLS,
            "rows": rows,
            "host_quantisation": quantisation,
            "conditions": asdict(Conditions.now()),
            "versions": {name: importlib.metadata.version(name) for name in ("ai-edge-litert", *PACKAGES)},
        }
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
