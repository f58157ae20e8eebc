"""Integer grids for weights whose noise is known: what is deployed of them, and what is trained at the end.

The uniform grid is that of UVNQ (Gil et al. 2022, "Quantization-Aware Pruning Criterion for Industrial Applications"),
derived here anew because the paper's formulas are not public. A weight whose noise is as large as a quantiser's error
can as well be quantised. A grid of N bits over beta standard deviations each way has steps of 2 beta std / 2^N and so
an error of variance (2 beta std)^2 / 12 / 4^N; beside a signal of std^2, that is a ratio of

    alpha_N = T / 4^N,   T = 4 beta^2 / 12.

So a weight needs the fewest bits N whose alpha_N is at most its own alpha, and none where alpha is above T.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.quantizers import Fixed, Learned, Switch
from tfqrl.compress.bayesian.kl import PRUNED

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer

Array = npt.NDArray[Any]


def threshold(beta: float) -> float:
    """T: the ratio of noise to signal, alpha, above which a weight needs no bits."""
    return 4.0 * beta**2 / 12.0


def bits_of(log_alpha: Array, max_bits: int, beta: float) -> npt.NDArray[np.int8]:
    """The bits that weights need, 0 to `max_bits`: 0 where alpha > T, and N where T / 4^N < alpha <= T / 4^(N - 1).

    Args:
      log_alpha: of weights, any shape.
      max_bits: what weights with less noise get, too.
      beta: standard deviations that the grid covers, each way.
    """
    needed = np.ceil((math.log(threshold(beta)) - log_alpha) / math.log(4.0))
    return np.clip(needed, 0, max_bits).astype(np.int8)


def multiples_of(bits: npt.NDArray[np.int8], max_bits: int) -> npt.NDArray[np.float32]:
    """The step of weights of so many bits, in steps of `max_bits`; 0 where there are none.

    Two bits have the values -1, 0 and 1 times theirs. One has a sign alone: with the step of two bits, and no zero.
    """
    return np.where(bits > 0, 2.0 ** (max_bits - np.maximum(bits, 2)), 0.0).astype(np.float32)


def integers_of(theta: Array, scale: float, bits: npt.NDArray[np.int8], max_bits: int) -> npt.NDArray[np.int8]:
    """The nearest that weights of so many bits can be, in steps of `scale`."""
    multiple = multiples_of(bits, max_bits)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(theta / (scale * multiple))
    high = np.floor((2 ** (max_bits - 1) - 1) / np.maximum(multiple, 1.0))
    steps = np.where(bits == 1, np.where(theta < 0, -1.0, 1.0), np.clip(steps, -high, high))
    return np.where(bits > 0, steps * multiple, 0.0).astype(np.int8)


class Uniform(Learned):
    """The uniform grid of one layer, on which each weight has the bits that its noise leaves it.

    As long as it is off, bits and step follow the noise, and it is what they come to that is deployed. From `fit` on,
    the bits stay; weights and step are learnt.
    """

    def __init__(self, switch: Switch, layer: Layer, max_bits: int, beta: float) -> None:
        high = 2 ** (max_bits - 1) - 1
        super().__init__(switch, -high, high)
        self._layer, self.max_bits, self.beta = layer, max_bits, beta

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Create what is learnt, and the bits of each weight once they stay."""
        made = super().build(tensor_shape, name, layer)
        self._bits = layer.add_weight(f"{name}_bits", tensor_shape, initializer="zeros", trainable=False)
        return made

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """What is computed with in place of the kernel."""
        multiple = tf.where(self._bits > 0.0, 2.0 ** (self.max_bits - tf.maximum(self._bits, 2.0)), 0.0)
        step = self.scale() * multiple
        safe = tf.where(multiple > 0.0, step, 1.0)
        high = tf.floor(self.high / tf.maximum(multiple, 1.0))
        ratio = inputs / safe
        signs = tf.where(inputs < 0.0, -1.0, 1.0)
        rounded = tf.where(self._bits == 1.0, signs, tf.clip_by_value(tf.round(ratio), -high, high))
        # Rounding has the gradient 1, also that of a sign; beyond the last step it has none.
        inside = tf.where(self._bits == 1.0, tf.clip_by_value(ratio, -1.0, 1.0), tf.clip_by_value(ratio, -high, high))
        steps = inside + tf.stop_gradient(rounded - inside)
        return self.switch.select(tf.where(multiple > 0.0, steps * step, 0.0), inputs)

    def fit(self, rows: Array) -> None:
        """Let each weight keep the bits that it needs now."""
        bits = self.bits()
        scale = self._scale_now(bits)
        self._bits.assign(bits)
        self.set_scale(scale)

    def bits(self) -> npt.NDArray[np.int8]:
        """Of each weight, 0 to `max_bits`."""
        if self.switch.variable.numpy() > 0:
            return self._bits.numpy().astype(np.int8)
        return bits_of(self._layer.log_alpha().numpy(), self.max_bits, self.beta)

    def integers(self, values: Array) -> npt.NDArray[np.int8]:
        """What the kernel becomes, in steps."""
        return integers_of(values, float(self.scale().numpy()), self.bits(), self.max_bits)

    def deployed(self, values: Array) -> Array:
        """The kernel on the grid that it would have now."""
        bits = self.bits()
        scale = self._scale_now(bits)
        return np.float32(scale) * integers_of(values, scale, bits, self.max_bits).astype(np.float32)

    def _scale_now(self, bits: npt.NDArray[np.int8]) -> float:
        left = self._layer.theta.numpy()[bits > 0]
        # A layer of which nothing is left has any step.
        return max(float(2.0 * self.beta * left.std() / 2**self.max_bits), 1e-6) if left.size else 1.0


class Sparse(Fixed):
    """No grid: weights that are mostly noise are deployed as zeros (Molchanov et al. 2017, section 4.4)."""

    def __init__(self, switch: Switch, layer: Layer) -> None:
        super().__init__(switch, 1.0, -127, 127)
        self._layer = layer

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """The kernel itself."""
        return tf.identity(inputs)

    def bits(self) -> npt.NDArray[np.int8]:
        """32 of each weight that is left."""
        return np.where(self._layer.log_alpha().numpy() < PRUNED, 32, 0).astype(np.int8)

    def deployed(self, values: Array) -> Array:
        """The kernel without the weights that are noise."""
        return np.where(self.bits() > 0, values, 0.0).astype(np.float32)
