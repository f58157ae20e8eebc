"""What compression has left of a policy's weights, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters.quantizers import Learned, config_of
from converters.shrink import shrink
from converters.stripping import computed, deployable, plain

Array = npt.NDArray[Any]

FLOAT_BITS = 32
# More different values than this are coded as they are.
MOST_SYMBOLS = 256
LOG_ALPHA_BINS = tuple(float(edge) for edge in range(-8, 9))


@dataclass(frozen=True)
class LayerReport:
    """What is left of a layer's kernel; its biases are counted by themselves.

    Attributes:
      layer: its name.
      shape: of the kernel.
      left: weights that are not gone: those that a mask or their noise has left, if there is such; those other than 0.
      biases: of neurons that are left, of 32 bits each.
      total_bits: of all weights: 32 of a float, the width of its grid of a weight on one, none of what is gone.
      max_bits: of a weight.
      entropy_bits: what an ideal coder would make of the kernel, that knows how often each value is in it.
      macs: multiplications of an action, once dead neurons are removed.
      log_alpha: of a Bayesian policy: how many weights have a log alpha, noise over signal, between LOG_ALPHA_BINS.
    """

    layer: str
    shape: tuple[int, ...]
    left: int
    biases: int
    total_bits: int
    max_bits: int
    entropy_bits: float
    macs: int
    log_alpha: tuple[int, ...] | None = None

    @property
    def weights(self) -> int:
        """Of the kernel."""
        return math.prod(self.shape)

    @property
    def mean_bits(self) -> float:
        """Of a weight that is left."""
        return self.total_bits / self.left if self.left else 0.0


def report(network: keras.Sequential) -> tuple[LayerReport, ...]:
    """Of each layer with a kernel.

    Args:
      network: as `agents.load_trained` gives it, with the wrappers of a compressor or without.
    """
    costs = _costs(plain(deployable(network)))
    return tuple(
        _layer(layer, item.layer, item.kernel, *costs[item.layer.name])
        for layer, item in zip(network.layers, computed(network))
        if item.kernel is not None
    )


def total(layers: Sequence[LayerReport]) -> LayerReport:
    """The sum of layers, as if they were one of so many weights."""
    alphas = [layer.log_alpha for layer in layers if layer.log_alpha is not None]
    return LayerReport(
        layer="all",
        shape=(sum(layer.weights for layer in layers),),
        left=sum(layer.left for layer in layers),
        biases=sum(layer.biases for layer in layers),
        total_bits=sum(layer.total_bits for layer in layers),
        max_bits=max(layer.max_bits for layer in layers),
        entropy_bits=sum(layer.entropy_bits for layer in layers),
        macs=sum(layer.macs for layer in layers),
        log_alpha=tuple(int(count) for count in np.sum(alphas, axis=0)) if alphas else None,
    )


def _layer(layer: keras.layers.Layer, own: keras.layers.Layer, kernel: Array, biases: int, macs: int) -> LayerReport:
    """Of a layer, which is `own` in its wrappers."""
    bits = _bits(layer, kernel)
    log_alpha = None
    if hasattr(own, "log_alpha"):
        values = np.broadcast_to(own.log_alpha().numpy(), kernel.shape)
        log_alpha = tuple(int(count) for count in np.histogram(values, LOG_ALPHA_BINS)[0])
    return LayerReport(
        layer=own.name,
        shape=tuple(kernel.shape),
        left=int((bits > 0).sum()),
        biases=biases,
        total_bits=int(bits.sum(dtype=np.int64)),
        max_bits=int(bits.max()),
        entropy_bits=_entropy(kernel),
        macs=macs,
        log_alpha=log_alpha,
    )


def _bits(layer: keras.layers.Layer, kernel: Array) -> Array:
    """Of each weight of a kernel as it is deployed."""
    config = config_of(layer)
    quantizer = None if config is None else config.kernel
    if hasattr(quantizer, "bits"):
        return np.asarray(quantizer.bits())
    width = FLOAT_BITS
    if isinstance(quantizer, Learned) and quantizer.switch.variable.numpy() > 0:
        width = int(quantizer.high).bit_length() + 1
    left = kernel != 0
    if width < FLOAT_BITS:
        # A weight that a grid rounds to 0 has its bits all the same; one that a mask took has none.
        left = np.ones(kernel.shape, bool)
        while isinstance(layer, keras.layers.Wrapper):
            for _, mask, _ in getattr(layer, "pruning_vars", ()):
                left = mask.numpy() != 0
            layer = layer.layer
    elif _is_few(symbols := np.unique(kernel[left]), left):
        # The same values over and over: an index into them does.
        width = max(1, math.ceil(math.log2(max(1, len(symbols)))))
    return np.where(left, width, 0)


def _entropy(kernel: Array) -> float:
    """Of the kernel's values; where those are floats of all kinds, of which are zero, and 32 bits for each other."""
    values, counts = np.unique(kernel, return_counts=True)
    left = kernel != 0
    if _is_few(values[values != 0], left):
        return _bits_of(counts)
    others = int(left.sum())
    return _bits_of(np.array([kernel.size - others, others])) + FLOAT_BITS * others


def _is_few(symbols: Array, left: Array) -> bool:
    """Whether the weights that are left have so few values that each is there again and again."""
    return len(symbols) <= min(MOST_SYMBOLS, int(left.sum()) // 2)


def _bits_of(counts: Array) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(counts[counts > 0] * np.log2(share)).sum())


def _costs(network: keras.Sequential) -> dict[str, tuple[int, int]]:
    """By layer, its biases and the multiplications of an action, once dead neurons are removed."""
    smaller, _ = shrink(network)
    return {
        layer.name: (layer.kernel.shape[-1], math.prod(layer.output_shape[1:-1]) * math.prod(layer.kernel.shape))
        for layer in smaller.layers
        if layer.weights
    }
