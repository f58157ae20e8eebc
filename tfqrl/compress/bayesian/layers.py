"""Layers whose weights are normal: w ~ N(theta, sigma^2), sampled by local reparameterisation.

With `training=True`, what a layer gives before its activation is drawn from the distribution that the weights give it
(Kingma et al. 2015, arXiv 1506.02557): mean x theta, variance x^2 sigma^2, a number of noise for each output and
example. Otherwise it computes with the means. Biases have no noise.

The divergence from the prior is not added in a call, and so cannot be counted twice: `network.losses` has it once,
scaled by the layer's `kl_weight`, which the compressor sets.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfqrl.compress.bayesian.kl import log_alpha
from tfqrl.compress.bayesian.noise import noise
from tfqrl.compress.bayesian.probability import distributions, layers, util

# Optimisers step by their rate, whatever the gradient's size. log sigma^2 has a way of 10 before it, the means one of
# 0.1, and both the same optimiser: so the variable is log sigma^2 over this.
RATE = 20.0
# Before it begins there is none, beside weights of any size.
NO_NOISE = -30.0
# Of a layer's first noise beside the mean square of its weights: a deviation of 5 %.
FIRST_LOG_ALPHA = -6.0

Layer: TypeAlias = "VariationalDense | VariationalConv2D"
Divergence = Callable[[Any], tf.Tensor]


class _Variational:
    """What dense layers and convolutions have in common.

    Attributes:
      kernel: theta; while a wrapper puts something else in its place, that.
      theta: variable of the kernel's shape.
      scaled_log_variance: variable of the same shape, log sigma^2 over RATE.
      least_log_alpha: least noise beside a weight's signal, in training.
      kl_weight: variable, (): by what the divergence is multiplied in `losses`.
      noisy: variable, (): 1 as long as training draws, or 0.
      weighed_at: variable, (): the part of the training at which `kl_weight` was set.
    """

    theta: tf.Variable
    scaled_log_variance: tf.Variable

    def _create(self, divergence: Divergence, seed: int, least_log_alpha: float) -> None:
        self.least_log_alpha = least_log_alpha
        self.kl_weight = self.add_weight("kl_weight", (), initializer="zeros", trainable=False)
        self.noisy = self.add_weight("noisy", (), initializer="zeros", trainable=False)
        self.weighed_at = self.add_weight("weighed_at", (), initializer="zeros", trainable=False)
        self._draws = self.add_weight("draws", (), dtype=tf.int32, initializer="zeros", trainable=False)
        self._stream = zlib.crc32(f"{self.name} {seed}".encode())
        self.add_loss(lambda: self.kl_weight * divergence(self))

    @property
    def log_variance(self) -> tf.Tensor:
        """Of the variances sigma^2."""
        return RATE * self.scaled_log_variance

    def set_log_variance(self, values: npt.ArrayLike) -> None:
        """Go on from these, of the kernel's shape."""
        self.scaled_log_variance.assign(np.asarray(values, np.float32) / RATE)

    def begin(self) -> None:
        """Draw from now on, with little noise at first."""
        theta = self.theta.numpy()
        self.set_log_variance(np.full(theta.shape, np.log(np.mean(theta**2) + 1e-12) + FIRST_LOG_ALPHA))
        self.noisy.assign(1.0)

    def log_alpha(self) -> tf.Tensor:
        """The logarithm of noise over signal, sigma^2 / theta^2, as it is drawn: between bounds."""
        return log_alpha(self.theta, self.log_variance, low=self.least_log_alpha)

    def variance(self) -> tf.Tensor:
        """What is drawn has of each weight, of the kernel's shape."""
        return tf.exp(self.log_alpha()) * self.theta**2

    def _drawn(self, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        self._draws.assign_add(1)
        # The root of 0 has no gradient.
        return mean + self.noisy * tf.sqrt(variance + 1e-12) * noise(mean.shape, self._stream, self._draws)


class VariationalDense(layers.DenseLocalReparameterization, _Variational):
    """TFP's dense layer with local reparameterisation; see the module on what is different."""

    deployed_as = keras.layers.Dense

    def __init__(
        self, units: int, divergence: Divergence, seed: int = 0, least_log_alpha: float = -8.0, **options: Any
    ) -> None:
        """A layer of `units` outputs, whose posterior diverges by `divergence(layer)`, (), from its prior."""
        normal = layers.default_mean_field_normal_fn
        super().__init__(units, kernel_posterior_fn=_posterior, kernel_prior_fn=None,
                         bias_posterior_fn=normal(is_singular=True, loc_initializer="zeros"),
                         bias_posterior_tensor_fn=lambda posterior: self.bias, **options)  # fmt: skip
        self._makings = divergence, seed, least_log_alpha

    @classmethod
    def standing_for(cls, options: dict[str, Any], *makings: Any) -> VariationalDense:
        """One like Keras' layer with these options, whose weights are still to come."""
        return cls(options["units"], *makings, activation=options["activation"], name=options["name"])

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the variables."""
        super().build(input_shape)
        # Read by TFP's `call`, which would draw from it if there were a divergence of a sample.
        self.kernel_posterior_tensor = None
        self.theta = self.kernel = self.kernel_posterior.distribution.loc
        self.bias = self.bias_posterior.distribution.loc
        self.scaled_log_variance = self.kernel_posterior.distribution.scale.pretransformed_input
        self._create(*self._makings)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(batch, inputs) -> (batch, units)."""
        self._samples = training is True
        return super().call(inputs)

    def _apply_variational_kernel(self, inputs: tf.Tensor) -> tf.Tensor:
        mean = tf.matmul(inputs, self.kernel)
        return self._drawn(mean, tf.matmul(inputs**2, self.variance())) if self._samples else mean

    def add_variable(self, *words: Any, **options: Any) -> tf.Variable:
        """What TFP's layers call by the name that Keras gave up."""
        return self.add_weight(*words, **options)

    def get_config(self) -> dict[str, Any]:
        """That of the layer which is deployed."""
        return {"name": self.name, "units": self.units, "activation": keras.activations.serialize(self.activation)}


class VariationalConv2D(keras.layers.Conv2D, _Variational):
    """A convolution with local reparameterisation, which TFP does not have."""

    deployed_as = keras.layers.Conv2D

    def __init__(
        self,
        filters: int,
        kernel_size: tuple[int, int],
        divergence: Divergence,
        seed: int = 0,
        least_log_alpha: float = -8.0,
        **options: Any,
    ) -> None:
        """A layer as Keras' own, whose posterior diverges by `divergence(layer)`, (), from its prior."""
        super().__init__(filters, kernel_size, **options)
        self._makings = divergence, seed, least_log_alpha

    @classmethod
    def standing_for(cls, options: dict[str, Any], *makings: Any) -> VariationalConv2D:
        """One like Keras' layer with these options, whose weights are still to come."""
        size = options["filters"], options["kernel_size"]
        return cls(*size, *makings, **{k: v for k, v in options.items() if k not in ("filters", "kernel_size")})

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the variables."""
        super().build(input_shape)
        self.theta = self.kernel
        start = keras.initializers.Constant(NO_NOISE / RATE)
        self.scaled_log_variance = self.add_weight("kernel_scaled_log_variance", self.kernel.shape, initializer=start)
        self._create(*self._makings)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(batch, height, width, channels) -> (batch, *, *, filters)."""
        result = self.convolution_op(inputs, self.kernel)
        if training is True:
            result = self._drawn(result, self.convolution_op(inputs**2, self.variance()))
        return self.activation(tf.nn.bias_add(result, self.bias))


def _posterior(
    dtype: tf.DType, shape: list[int], name: str, trainable: bool, add_variable: Callable[..., tf.Variable]
) -> distributions.Distribution:
    """Independent normals, as `kernel_posterior_fn` of TFP's layers."""
    create = {"shape": shape, "dtype": dtype, "trainable": trainable}
    theta = add_variable(name=f"{name}_theta", initializer="glorot_uniform", **create)
    start = keras.initializers.Constant(NO_NOISE / RATE)
    scaled = add_variable(name=f"{name}_scaled_log_variance", initializer=start, **create)
    sigma = util.DeferredTensor(scaled, lambda x: tf.exp(np.float32(0.5 * RATE) * x))
    return distributions.Independent(distributions.Normal(theta, sigma), reinterpreted_batch_ndims=2)
