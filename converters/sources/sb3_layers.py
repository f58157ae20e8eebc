"""The layers of a policy of Stable-Baselines3 with their weights, from PyTorch's layout to Keras'."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converters.sources import ImportPolicyError
from converters.sources.layers import Activation, Layer
from edge.artifact import ActionSpec, FloatArray

# The Nature CNN (Mnih et al. 2015): filters, kernel and stride of its convolutions, which the file does not say.
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


@dataclass(frozen=True)
class Weighted:
    """A layer with its weights, float32 in Keras' layout."""

    layer: Layer
    kernel: FloatArray
    bias: FloatArray


def _take(tensors: dict[str, FloatArray], prefix: str, dimensions: int) -> tuple[FloatArray, FloatArray]:
    kernel, bias = tensors.pop(f"{prefix}weight"), tensors.pop(f"{prefix}bias")
    if kernel.ndim != dimensions or bias.shape != kernel.shape[:1]:
        raise ValueError(f"{prefix}weight has the shape {kernel.shape}")
    return kernel, bias


def convolution(tensors: dict[str, FloatArray], prefix: str, i: int) -> Weighted:
    """The ith convolution of the Nature CNN; its tensors begin with `prefix`.

    Raises:
      KeyError: the tensors are not there.
      ValueError: they have another shape.
    """
    filters, size, stride = NATURE[i]
    kernel, bias = _take(tensors, prefix, 4)
    if (kernel.shape[0], *kernel.shape[2:]) != (filters, size, size):
        raise ValueError(f"{prefix}weight has the shape {kernel.shape}")
    layer = Layer("conv2d", filters, "relu", kernel=(size, size), strides=(stride, stride))
    return Weighted(layer, kernel.transpose(2, 3, 1, 0), bias)


def dense(tensors: dict[str, FloatArray], prefix: str, activation: Activation) -> Weighted:
    """A dense layer; raises what `convolution` does."""
    kernel, bias = _take(tensors, prefix, 2)
    return Weighted(Layer("dense", len(bias), activation), kernel.T, bias)


def hidden(tensors: dict[str, FloatArray], prefix: str, activation: Activation) -> list[Weighted]:
    """The dense layers of a PyTorch Sequential with activations between them; raises what `convolution` does."""
    # The activations between them are counted too.
    found: list[Weighted] = []
    while f"{prefix}{2 * len(found)}.weight" in tensors:
        found.append(dense(tensors, f"{prefix}{2 * len(found)}.", activation))
    return found


def linear(weighted: Weighted, activation: Activation = "linear") -> Weighted:
    """The layer with another activation, none if left out."""
    return replace(weighted, layer=replace(weighted.layer, activation=activation))


def after_convolutions(
    convolutions: list[Weighted], planes: tuple[int, int, int], path: str | Path
) -> tuple[int, int, int]:
    """The (channels, height, width) that convolutions without padding make of frames."""
    channels, height, width = planes
    for weighted in convolutions:
        size, _, inputs, filters = weighted.kernel.shape
        stride = weighted.layer.strides[0]
        if inputs != channels or min(height, width) < size:
            raise ImportPolicyError(f"{path} has a convolution that does not fit {channels}x{height}x{width} values.")
        channels, height, width = filters, (height - size) // stride + 1, (width - size) // stride + 1
    return channels, height, width


def channels_last(weighted: Weighted, planes: tuple[int, int, int], path: str | Path) -> Weighted:
    """A dense layer for what Keras flattens, (height, width, channels), from one for what PyTorch flattens."""
    if len(weighted.kernel) != math.prod(planes):
        raise ImportPolicyError(f"{path} has {len(weighted.kernel)} weights for each of {math.prod(planes)} features.")
    kernel = weighted.kernel.reshape(*planes, -1).transpose(1, 2, 0, 3)
    return replace(weighted, kernel=kernel.reshape(weighted.kernel.shape))


def check_sizes(dense: list[Weighted], inputs: int, action: ActionSpec, path: str | Path) -> None:
    """Refuse dense layers that do not fit each other, the inputs or the action."""
    outputs = action.n if action.n is not None else math.prod(action.shape)
    widths = [inputs, *(len(weighted.bias) for weighted in dense)]
    if [len(weighted.kernel) for weighted in dense] != widths[:-1] or widths[-1] != outputs:
        raise ImportPolicyError(
            f"The layers of {path} do not fit each other: from {inputs} inputs by {[w.kernel.shape for w in dense]} "
            f"to {outputs} outputs."
        )


def squashed(weighted: Weighted, action: ActionSpec, path: str | Path) -> Weighted:
    """The layer with tanh behind it, whose range is that of the bounds."""
    if None in action.low:
        raise ImportPolicyError(f"{path} squashes actions between bounds, and has an action without.")
    return linear(weighted, "tanh")


def scaled(weighted: Weighted, action: ActionSpec) -> Weighted:
    """The layer with outputs in [-1, 1], from one with outputs in the environment's units that are then clipped."""
    _, half_range, middle = action.scaling
    kernel, bias = weighted.kernel / half_range, (weighted.bias - middle) / half_range
    return replace(weighted, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))
