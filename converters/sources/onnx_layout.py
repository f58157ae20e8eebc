"""Where ONNX and Keras lay out images differently: what a graph's input is, and what padding is called."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from converters.sources import ImportPolicyError
from converters.sources.onnx_file import FLOATS, Graph, Step
from edge.artifact import PolicySpec


def observation_position(graph: Graph, spec: PolicySpec) -> npt.NDArray[np.int64]:
    """The position of the input: a batch of one, unless the graph has no batch axis."""
    frames = spec.observation.dtype == "uint8"
    allowed = (np.uint8, *FLOATS) if frames else FLOATS
    if graph.input_dtype not in allowed:
        raise ImportPolicyError(
            f"The graph's input {graph.input_name!r} is {graph.input_dtype}, the observation {spec.observation.dtype}."
        )
    shape = spec.observation.shape
    in_order = np.arange(math.prod(shape)).reshape(shape)
    positions = [in_order] if len(shape) != 3 else [in_order, in_order.transpose(2, 0, 1)]
    if graph.input_shape is None:
        return in_order[np.newaxis]
    for position in [*(position[np.newaxis] for position in positions), *positions]:
        if len(graph.input_shape) == position.ndim and all(
            size in (None, expected) for size, expected in zip(graph.input_shape, position.shape)
        ):
            return position
    shown = ", ".join("?" if size is None else str(size) for size in graph.input_shape)
    raise ImportPolicyError(
        f"The graph's input {graph.input_name!r} is ({shown}); the observation is {shape}, to be given one at a time "
        "or with an open batch axis."
    )


def padding_of(
    step: Step, sizes: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, ...]
) -> tuple[str, tuple[int, int]]:
    """Keras' name of a convolution's padding, and the height and width of what comes out."""
    same = [math.ceil(size / stride) for size, stride in zip(sizes, strides)]
    valid = [(size - taps) // stride + 1 for size, taps, stride in zip(sizes, kernel, strides)]
    totals = [max((n - 1) * stride + taps - size, 0) for n, size, taps, stride in zip(same, sizes, kernel, strides)]
    ahead = [total // 2 for total in totals]
    behind = [total - first for total, first in zip(totals, ahead)]
    auto = step.attributes.get("auto_pad", b"NOTSET")
    pads = list(step.attributes.get("pads", (0, 0, 0, 0)))
    if auto == b"VALID" or (auto == b"NOTSET" and not any(pads)):
        if min(valid) < 1:
            raise ImportPolicyError(f"{step.place} has a kernel of {kernel} for an image of {sizes}.")
        return "valid", (valid[0], valid[1])
    if auto == b"SAME_UPPER" or (pads == [*ahead, *behind] and auto == b"NOTSET"):
        return "same", (same[0], same[1])
    if auto == b"SAME_LOWER" and ahead == behind:
        return "same", (same[0], same[1])
    raise ImportPolicyError(
        f"{step.place} pads by {pads[:8]}; only none and what Keras calls 'same', here "
        f"{[*ahead, *behind]}, can be represented."
    )
