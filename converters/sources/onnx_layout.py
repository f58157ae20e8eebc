"""Where ONNX and Keras differ on images: their order, and what convolutions are told."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from converters.sources import ImportPolicyError
from converters.sources.chain import Linear, Vector
from converters.sources.onnx_file import FLOATS, Graph, Step
from edge.artifact import PolicySpec

# No layer of a policy gives more.
MAX_VALUES = 4_000_000


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
    positions = [in_order] if len(shape) != 3 else [in_order, channels_first(shape)]
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


def channels_first(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Where in a Keras tensor of (height, width, channels) each element of ONNX's (channels, height, width) lies."""
    return np.arange(math.prod(shape)).reshape(shape).transpose(2, 0, 1)


def convolution(
    step: Step, kernel: Vector, position: npt.NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[Linear, tuple[int, int, int]]:
    """A Conv as a layer of Keras', without its bias, and the shape of what it gives.

    Args:
      step: the Conv.
      kernel: as ONNX has it, (filters, channels, height, width).
      position: of what it is fed.
      shape: of what it is fed, as Keras has it.
    """
    if kernel.ndim != 4 or len(shape) != 3 or position.ndim != 4:
        raise ImportPolicyError(f"{step.place} is not a convolution of one image in two dimensions.")
    if not np.array_equal(position[0], channels_first(shape)):
        raise ImportPolicyError(f"{step.place} is fed by another order than (channels, height, width).")
    if step.attributes.get("group", 1) != 1 or set(step.attributes.get("dilations", [1])) != {1}:
        raise ImportPolicyError(f"{step.place} has groups or dilations, which are not supported.")
    height, width, channels = shape
    filters, *size = kernel.shape[:1] + kernel.shape[2:]
    if kernel.shape[1] != channels or list(step.attributes.get("kernel_shape", size)) != size:
        raise ImportPolicyError(f"{step.place} has a kernel of {kernel.shape} on {channels} channels.")
    strides = tuple(step.attributes.get("strides", (1, 1)))
    if len(strides) != 2 or min(strides) < 1 or max(strides) > max(height, width):
        raise ImportPolicyError(f"{step.place} has strides of {strides[:4]}.")
    padding, (rows, columns) = _padding(step, (height, width), (size[0], size[1]), strides)
    if rows * columns * filters > MAX_VALUES:
        raise ImportPolicyError(f"{step.place} gives {rows * columns * filters} values: refused.")
    return Linear(kernel.transpose(2, 3, 1, 0), np.zeros(filters), strides, padding), (rows, columns, filters)


def _padding(
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
        f"{[*ahead, *behind]}, can be represented. Export it without padding, or with an explicit size "
        "that these pads fit."
    )
