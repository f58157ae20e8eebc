"""Variational network quantisation (Achterhold et al., ICLR 2018): three values a layer, of which one is 0.

The prior has a spike at each value of the codebook, which draws weights to it; what is left of them on the way is noise
that they can do with. The codebook -a, 0, a of a layer is learnt by a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras
import tyro

from converters.emulation import Output, Widths, calibrate
from converters.quantizers import Quantizer, Switch, is_on_grid
from tfqrl.compress.bayesian.kl import PRUNED, REFERENCE, bounded, codebook_kl
from tfqrl.compress.bayesian.variational import (
    OfPosterior,
    Posterior,
    Variational,
    settle,
    variational,
    variational_layers,
)
from tfqrl.compress.bits import check_bits

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer

Array = npt.NDArray[Any]

# The paper's codebook learns a hundredth as fast as weights, begins at REFERENCE, and stays above a quarter of that.
CODEBOOK_RATE = 0.01
LEAST = 0.05 / REFERENCE
# Of its first value, in the weights' root mean square: nearly all weights are within it.
FIRST_VALUE = 2.0
# Weights beyond a value are within its spike's reach up to so many deviations: log alpha is 3 there.
FUNNEL = 0.223
# Of variances, where the codebook is at REFERENCE.
LOG_VARIANCES = (-10.0, 1.0)


@dataclass(frozen=True)
class VNQ(Variational):
    """Variational network quantisation.

    Attributes:
      activation_bits: of what hidden layers give, 2 to 8.
      observation_bits: of what the policy reads, 2 to 8.
      output_bits: of continuous actions, 2 to 8.
    """

    method: tyro.conf.Suppress[Literal["vnq"]] = "vnq"
    activation_bits: int = 8
    observation_bits: int = 8
    output_bits: int = 8

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        check_bits(self, "activation_bits", "observation_bits", "output_bits")

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        posterior = Posterior(_divergence, seed, always=self.draw_targets, acts=self.draw_acting)
        widths = Widths(2, self.activation_bits, self.observation_bits, self.output_bits)
        return variational(network, widths, output, posterior, Codebook)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        if is_on_grid(network):
            return
        if progress < 1:
            if self.weigh(network, progress, transitions):
                for layer in variational_layers(network):
                    layer.codebook.hold(self.ramp(progress))
        else:
            # The paper's way: nothing is trained once it is on its values.
            settle(network)
            calibrate(network, observation)

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """See `Compressor.complete`."""
        return is_on_grid(network)

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """Those of all of them, and whether weights are on their values yet, 0 or 1."""
        return super().metrics(network) | {"on_grid": float(is_on_grid(network))}


def _divergence(layer: Layer) -> tf.Tensor:
    return layer.codebook.divergence()


class Codebook(OfPosterior, Quantizer):
    """The values -a, 0 and a of one layer's weights: the nearest, or 0 for what is mostly noise.

    Until it is on, the means are deployed: weights that are half way to the values would lose return if rounded.
    """

    def __init__(self, switch: Switch, layer: Layer) -> None:
        super().__init__(switch, -1, 1)
        self._layer = layer
        layer.codebook = self

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Create the logarithm of a, over CODEBOOK_RATE, the least that it may be, and the largest weight at first."""
        super().build(tensor_shape, name, layer)
        self._scaled = layer.add_weight(f"{name}_scaled_log_value", (), initializer="zeros", trainable=True)
        self._least = layer.add_weight(f"{name}_least_log_value", (), initializer="zeros", trainable=False)
        self._first_largest = layer.add_weight(f"{name}_first_largest", (), initializer="zeros", trainable=False)
        return {"scaled_log_value": self._scaled}

    def scale(self) -> tf.Tensor:
        """The value a, ()."""
        return tf.exp(bounded(CODEBOOK_RATE * self._scaled, self._least, math.inf))

    def divergence(self) -> tf.Tensor:
        """Of the layer's weights from the prior, ()."""
        return tf.reduce_sum(codebook_kl(self._layer.theta, self._layer.log_variance, self.scale()))

    def hold(self, part: float = 1.0) -> None:
        """Keep means and variances where the divergence is known; the first time, let the codebook fit the weights.

        Args:
          part: of the warm-up, 0..1. Means come within their bounds in its course: at once, all beyond would be lost.
        """
        theta, log_variance = self._layer.theta.numpy(), self._layer.log_variance.numpy()
        if self._least.numpy() == 0.0:
            log_value = math.log(FIRST_VALUE * float(np.sqrt(np.mean(theta**2))) + 1e-6)
            self._scaled.assign(log_value / CODEBOOK_RATE)
            self._least.assign(log_value + math.log(LEAST))
            self._first_largest.assign(np.abs(theta).max())
        furthest = float(self.scale()) + FUNNEL * np.exp(0.5 * log_variance)
        furthest = np.maximum(furthest, (1.0 - part) * float(self._first_largest))
        self._layer.theta.assign(np.clip(theta, -furthest, furthest))
        shift = 2.0 * math.log(float(self.scale()) / REFERENCE)
        self._layer.set_log_variance(np.clip(log_variance, LOG_VARIANCES[0] + shift, LOG_VARIANCES[1] + shift))

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """What is computed with in place of the kernel."""
        scale = self.scale()
        steps = tf.clip_by_value(tf.round(inputs / scale), -1.0, 1.0)
        left = tf.cast(self._layer.log_alpha() < PRUNED, tf.float32)
        return self.switch.select(steps * left * scale, inputs)

    def integers(self, values: Array) -> npt.NDArray[np.int8]:
        """What the kernel becomes, in steps of a."""
        steps = np.clip(np.rint(values / float(self.scale())), -1, 1)
        return np.where(self._layer.log_alpha().numpy() < PRUNED, steps, 0).astype(np.int8)

    def bits(self) -> npt.NDArray[np.int8]:
        """Two of each weight that is not 0 or will not be; 32 until it is on."""
        width = 2 if self.switch.variable.numpy() > 0 else 32
        return (width * np.abs(self.integers(self._layer.theta.numpy()))).astype(np.int8)
