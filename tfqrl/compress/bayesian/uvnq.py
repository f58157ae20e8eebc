"""The uniform grid of a layer whose weights' noise is known: how many bits of each are not lost in it.

After UVNQ (Gil et al. 2022, "Quantization-Aware Pruning Criterion for Industrial Applications"), derived here anew
because the paper's formulas are not public; docs/algorithms/qabp.md says where it is different and why. Rounding to
steps is an error of variance step^2 / 12. A number with a sign and i - 1 binary digits is in error by some
T / 4^i of its square, T = 3 / 4 (by 4 / 3 where its digits are 100..., by 1 / 3 where they are 111...). So a weight
whose noise beside its signal is alpha loses nothing in i bits, where

    T / 4^i < alpha <= T / 4^(i - 1),

and needs none at all where alpha > T. The digits that go are the last ones: all weights of a layer lie on one grid of
N bits, and those with fewer on its even steps, or on every fourth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.quantizers import Learned, Switch, on_grid
from converters.weights import best_scale
from tfqrl.compress.bayesian.variational import OfPosterior

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer

Array = npt.NDArray[Any]

# The ratio of noise to signal, alpha, above which a weight needs no bits.
T = 0.75
# Of what the grid loses, which noise begins with in a warm-up.
LEAST_PART = 0.01


def bits_of(log_alpha: Array, max_bits: int) -> npt.NDArray[np.int8]:
    """The bits that weights need, 0 to `max_bits`: none where alpha >= T, and i where T / 4^i <= alpha < T / 4^(i - 1).

    Args:
      log_alpha: of weights, any shape.
      max_bits: what weights with less noise get, too.
    """
    needed = np.ceil((math.log(T) - log_alpha) / math.log(4.0))
    # A training that has diverged is ended by its session, with a sentence.
    return np.nan_to_num(np.clip(needed, 0, max_bits), nan=max_bits).astype(np.int8)


def integers_of(theta: Array, scale: float, bits: npt.NDArray[np.int8], max_bits: int) -> npt.NDArray[np.int8]:
    """What weights of so many bits become, in steps of `scale`: a sign and the first bits - 1 of their digits.

    Args:
      theta: weights, any shape.
      scale: of a step.
      bits: of each. One bit is taken for two.
      max_bits: of the grid, which goes to 2^(max_bits - 1) - 1 steps either way.
    """
    return np.asarray(_steps(np.asarray(theta / np.float32(scale), np.float32), bits, max_bits, np)).astype(np.int8)


def _steps(size: Any, bits: Any, max_bits: int, library: Any) -> Any:
    """`size`, in steps, rounded; `library` is numpy or what TensorFlow has of it."""
    magnitude, high = abs(size), 2.0 ** (max_bits - 1) - 1.0
    # Digits in front of the point, by comparisons: two logarithms need not agree at powers of two.
    digits = sum(library.where(magnitude >= 2.0**power, 1.0, 0.0) for power in range(max_bits - 1))
    coarse = 2.0 ** library.maximum(digits - library.maximum(1.0 * bits - 1.0, 1.0), 0.0)
    last = library.floor(high / coarse) * coarse
    rounded = library.minimum(library.round(magnitude / coarse) * coarse, last)
    return library.where(bits > 0, library.sign(size) * rounded, 0.0)


class Uniform(OfPosterior, Learned):
    """The uniform grid of one layer, on which each weight has the bits that its noise leaves it.

    As long as it is off, bits follow the noise, and the step follows the weights when `follow` is called. From `fit`
    on, the bits stay; weights and step are learnt.
    """

    def __init__(self, switch: Switch, layer: Layer, max_bits: int, sharing: Sequence[Uniform] | None = None) -> None:
        """The grid of `layer`; `sharing`: those of all layers, in order, if one step is that of all."""
        high = 2 ** (max_bits - 1) - 1
        super().__init__(switch, -high, high)
        self._layer, self._max_bits = layer, max_bits
        self._sharing: Sequence[Uniform] = [self] if sharing is None else sharing
        # Which weights are left, where that is not for T to say.
        self.left: npt.NDArray[np.bool_] | None = None
        layer.grid = self

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Create what is learnt, and the bits of each weight once they stay."""
        if self._sharing[0] is self:
            made = super().build(tensor_shape, name, layer)
        else:
            self.log_scale, self.gradient_scale = self._sharing[0].log_scale, self._sharing[0].gradient_scale
            made = {}
        self._bits = layer.add_weight(f"{name}_bits", tensor_shape, initializer="zeros", trainable=False)
        return made

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """What is computed with in place of the kernel: see `integers_of`."""
        bits = tf.convert_to_tensor(self._bits)

        def rounded(size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return _steps(size, bits, self._max_bits, tf), (bits > 0.0) & (tf.abs(size) <= float(self.high))

        return on_grid(inputs, self.scale(), self.switch, rounded, self.gradient_scale)

    def follow(self, part: float = 1.0) -> None:
        """Let the step be that which loses least of the weights that are left, and training draw what it loses.

        Args:
          part: of that variance which is drawn, 0..1.
        """
        left = np.concatenate([grid._layer.theta.numpy()[grid.bits() > 0] for grid in self._sharing])
        if left.any():  # where nothing is left, any step will do
            self.set_scale(best_scale(left[:, None], self.low, self.high, per_channel=False))
        variance = self.scale() ** 2 / 12.0
        self._layer.least_log_variance.assign(tf.math.log(max(part, LEAST_PART) * variance))

    def fit(self, rows: Array) -> None:
        """Let each weight keep the bits that it needs now."""
        bits = self.bits()
        self.follow()
        self._bits.assign(bits)

    def bits(self) -> npt.NDArray[np.int8]:
        """Of each weight, 0 to `max_bits`."""
        if self.switch.variable.numpy() > 0:
            return self._bits.numpy().astype(np.int8)
        if self._layer.protected:
            return np.full(self._layer.theta.shape, self._max_bits, np.int8)
        log_alpha = self._layer.log_alpha().numpy()
        bits = bits_of(log_alpha, self._max_bits)
        # A sign without a digit is not to be had.
        bits = np.where(bits > 0 if self.left is None else self.left, np.maximum(bits, 2), 0).astype(np.int8)
        if self._layer.posterior.neurons:
            # Noise that weights of all sizes share says of none how many of its digits are lost.
            bits = np.where(bits > 0, self._max_bits, 0).astype(np.int8)
        return np.broadcast_to(bits, self._layer.theta.shape)

    def integers(self, values: Array) -> npt.NDArray[np.int8]:
        """What the kernel becomes, in steps."""
        return integers_of(values, float(self.scale().numpy()), self.bits(), self._max_bits)

    def deployed(self, values: Array) -> Array:
        """The kernel on the grid, once training draws; it is not deployed on one before."""
        if not self._layer.noisy.numpy():
            return values
        return self.scale().numpy() * self.integers(values).astype(np.float32)
