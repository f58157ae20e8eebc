"""The uniform grid of a layer whose weights' noise is known: how many bits of each are not lost in it.

After UVNQ (Gil et al. 2022, "Quantization-Aware Pruning Criterion for Industrial Applications"), derived here anew
because the paper's formulas are not public. A grid of N bits over beta standard deviations each way has steps of
2 beta std / 2^N, and so an error of variance (2 beta std)^2 / 12 / 4^N. Beside a signal of std^2 that is a ratio of

    alpha_N = T / 4^N,   T = 4 beta^2 / 12.

All weights of a layer are on that one grid. A weight that can do with more noise than alpha_N is a small one, for the
same step is a larger part of it: with alpha up to T / 4^(i - 1) it is within the 2^i smallest values of the grid, and
has i bits. Above T it is less than half a step, and has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.quantizers import Learned, Switch

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer

Array = npt.NDArray[Any]


def threshold(beta: float) -> float:
    """T: the ratio of noise to signal, alpha, above which a weight needs no bits."""
    return 4.0 * beta**2 / 12.0


def bits_of(log_alpha: Array, max_bits: int, beta: float) -> npt.NDArray[np.int8]:
    """The bits that weights need, 0 to `max_bits`: none where alpha >= T, and i where T / 4^i <= alpha < T / 4^(i - 1).

    Args:
      log_alpha: of weights, any shape.
      max_bits: what weights with less noise get, too.
      beta: standard deviations that the grid covers, each way.
    """
    needed = np.ceil((math.log(threshold(beta)) - log_alpha) / math.log(4.0))
    # A training that has diverged is ended by its session, with a sentence.
    return np.nan_to_num(np.clip(needed, 0, max_bits), nan=max_bits).astype(np.int8)


def integers_of(theta: Array, scale: float, bits: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The nearest that weights of so many bits can be, in steps of `scale`: as far as 2^(bits - 1) - 1 either way.

    One bit is a sign: of one step, and never 0.
    """
    furthest = np.maximum(2.0 ** (bits - 1.0) - 1.0, 1.0)
    steps = np.clip(np.rint(theta / scale), -furthest, furthest)
    steps = np.where(bits == 1, np.where(theta < 0, -1.0, 1.0), steps)
    return np.where(bits > 0, steps, 0.0).astype(np.int8)


class Uniform(Learned):
    """The uniform grid of one layer, on which each weight has the bits that its noise leaves it.

    As long as it is off, bits and step follow the noise, and what is deployed is what they come to. From `fit` on, the
    bits stay; weights and step are learnt.
    """

    def __init__(
        self, switch: Switch, layer: Layer, max_bits: int, beta: float, sharing: Sequence[Uniform] | None = None
    ) -> None:
        """The grid of `layer`; `sharing`: those of all layers, in order, if one step is that of all."""
        high = 2 ** (max_bits - 1) - 1
        super().__init__(switch, -high, high)
        self._layer, self._max_bits, self._beta = layer, max_bits, beta
        self._sharing: Sequence[Uniform] = [self] if sharing is None else sharing

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Create what is learnt, and the bits of each weight once they stay."""
        if self._sharing[0] is self:
            made = super().build(tensor_shape, name, layer)
        else:
            self.log_scale, self._gradient_scale = self._sharing[0].log_scale, self._sharing[0]._gradient_scale
            made = {}
        self._bits = layer.add_weight(f"{name}_bits", tensor_shape, initializer="zeros", trainable=False)
        return made

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """What is computed with in place of the kernel: see `integers_of`."""
        scale, bits = self.scale(), self._bits
        furthest = tf.maximum(2.0 ** (bits - 1.0) - 1.0, 1.0)
        # Rounding has the gradient 1, also that to a sign; what is beyond the last step has none.
        inside = tf.clip_by_value(inputs / scale, -furthest, furthest)
        steps = tf.where(bits == 1.0, tf.where(inputs < 0.0, -1.0, 1.0), tf.round(inside))
        steps = inside + tf.stop_gradient(steps - inside)
        return self.switch.select(tf.where(bits > 0.0, steps * scale, 0.0), inputs)

    def fit(self, rows: Array) -> None:
        """Let each weight keep the bits that it needs now."""
        self.set_scale(self._step())
        self._bits.assign(self.bits())

    def bits(self) -> npt.NDArray[np.int8]:
        """Of each weight, 0 to `max_bits`."""
        if self.switch.variable.numpy() > 0:
            return self._bits.numpy().astype(np.int8)
        if self._layer.protected:
            return np.full(self._layer.theta.shape, self._max_bits, np.int8)
        bits = bits_of(self._layer.log_alpha().numpy(), self._max_bits, self._beta)
        return np.broadcast_to(bits, self._layer.theta.shape)

    def integers(self, values: Array) -> npt.NDArray[np.int8]:
        """What the kernel becomes, in steps."""
        return integers_of(values, float(self.scale().numpy()), self.bits())

    def acting(self, values: Array) -> Array:
        """See `Posterior.acts`."""
        return self._layer.sample() if self._layer.posterior.acts else values

    def deployed(self, values: Array) -> Array:
        """The kernel on the grid that it would have now."""
        step = self._step()
        return np.float32(step) * integers_of(values, step, self.bits()).astype(np.float32)

    def _step(self) -> float:
        left = np.concatenate([grid._layer.theta.numpy()[grid.bits() > 0] for grid in self._sharing])
        # A layer of which nothing is left has any step.
        return float(2.0 * self._beta * np.sqrt(np.mean(left**2)) / 2**self._max_bits) if left.any() else 1.0
