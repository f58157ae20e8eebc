"""Layers whose weights are normal: w ~ N(theta, sigma^2), sampled by local reparameterisation.

With `training=True`, what a layer gives before its activation is drawn from the distribution that the weights give it
(Kingma et al. 2015, arXiv 1506.02557): mean x theta, variance x^2 sigma^2, a number of noise for each output and
example. Otherwise it computes with the means. Biases have no noise.

With `neurons`, noise is not that of single weights: what a layer reads is multiplied, value by value, by
z ~ N(1, alpha), a number of noise for each input and example (Louizos et al. 2017, arXiv 1705.08665, with weights that
have no noise of their own). An input that is mostly noise goes with all its weights, and then the neuron that gives it.

The divergence from the prior is not added in a call, and so cannot be counted twice: `network.losses` has it once,
scaled by the layer's `kl_weight`, which the compressor sets.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from tfqrl.compress.bayesian.kl import bounded, log_alpha
from tfqrl.compress.bayesian.noise import noise
from tfqrl.compress.bayesian.probability import distributions, layers, util
from tfqrl.compress.bayesian.variational import Posterior

# Optimisers step by their rate, whatever the gradient's size. log sigma^2 has a way of 10 before it, the means one of
# 0.1, and both the same optimiser: so the variable is log sigma^2 over this.
RATE = 20.0
# Before it begins there is none, beside weights of any size.
NO_NOISE = -30.0
# Of a layer's first noise beside the mean square of its weights: a deviation of 5 %.
FIRST_LOG_ALPHA = -6.0

Layer: TypeAlias = "VariationalDense | VariationalConv2D"


class _Variational:
    """What dense layers and convolutions have in common.

    Attributes:
      posterior: what it was told of its weights.
      protected: whether it is one of those.
      kernel: theta; while a wrapper puts something else in its place, that.
      theta: variable of the kernel's shape.
      scaled_log_variance: variable, log sigma^2 over RATE: of the kernel's shape; with `neurons`, log alpha over RATE,
        of that shape with one output.
      kl_weight: variable, (): by what the divergence is multiplied in `losses`.
      noisy: variable, (): 1 as long as training draws, or 0.
      least_log_variance: variable, (): less noise than this no weight has.
      weighed_at: variable, (): the part of the training at which `kl_weight` was set.
    """

    posterior: Posterior
    theta: tf.Variable
    scaled_log_variance: tf.Variable

    def _create(self) -> None:
        self.protected = self.name in self.posterior.protected
        self.kl_weight = self.add_weight("kl_weight", (), initializer="zeros", trainable=False)
        self.noisy = self.add_weight("noisy", (), initializer="zeros", trainable=False)
        self.least_log_variance = self.add_weight(
            "least_log_variance", (), initializer=keras.initializers.Constant(NO_NOISE), trainable=False
        )
        self.weighed_at = self.add_weight("weighed_at", (), initializer="zeros", trainable=False)
        self._draws = self.add_weight("draws", (), dtype=tf.int32, initializer="zeros", trainable=False)
        self._stream = zlib.crc32(f"{self.name} {self.posterior.seed}".encode())
        if not self.protected:
            self.add_loss(lambda: self.kl_weight * self.posterior.divergence(self))

    @property
    def log_variance(self) -> tf.Tensor:
        """Of the variances sigma^2; with `neurons`, of z."""
        return RATE * self.scaled_log_variance

    def set_log_variance(self, values: npt.ArrayLike) -> None:
        """Go on from these, of the variable's shape."""
        self.scaled_log_variance.assign(np.asarray(values, np.float32) / RATE)

    def begin(self) -> None:
        """Draw from now on, with little noise at first."""
        first = 0.0 if self.posterior.neurons else np.log(np.mean(self.theta.numpy() ** 2) + 1e-12)
        if not self.protected:
            self.set_log_variance(np.full(self.scaled_log_variance.shape, first + FIRST_LOG_ALPHA))
        self.noisy.assign(1.0)

    def log_alpha(self) -> tf.Tensor:
        """The logarithm of noise over signal, sigma^2 / theta^2, as it is drawn: between bounds.

        Of the kernel's shape; with `neurons`, of that with one output.
        """
        if self.posterior.neurons:
            # What is protected has none: its variable stays where it began.
            return bounded(self.log_variance, -8.0, 8.0)
        variance = self.least_log_variance if self.protected else self.log_variance
        return log_alpha(self.theta, bounded(variance, self.least_log_variance, math.inf))

    def unbounded_log_alpha(self) -> npt.NDArray[Any]:
        """Log alpha of each weight without bounds, at which many would be the same; not with `neurons`."""
        variance = np.maximum(self.log_variance.numpy(), self.least_log_variance.numpy())
        return np.asarray(variance - np.log(np.square(self.theta.numpy(), dtype=np.float64) + 1e-30))

    def variance(self) -> tf.Tensor:
        """What is drawn has of each weight, of the kernel's shape."""
        return tf.exp(self.log_alpha()) * self.theta**2

    def sample(self) -> npt.NDArray[Any]:
        """A kernel that is drawn whole, the same until the next call that draws; theta, where there is no noise."""
        rng = np.random.default_rng((self._stream, int(self._draws.numpy())))
        theta, deviation = self.theta.numpy(), np.exp(0.5 * self.log_alpha().numpy())
        factor = 1.0 + float(self.noisy.numpy()) * deviation * rng.standard_normal(deviation.shape)
        return np.asarray(theta * factor, np.float32)

    def _computed(self, inputs: tf.Tensor, training: bool | None, product: Callable[..., tf.Tensor]) -> tf.Tensor:
        """`product` of inputs and kernel, drawn where it is to be."""
        draws = training is True or self.posterior.always
        # When Keras builds a network, batches have no size yet.
        if not draws or inputs.shape[0] is None:
            return product(inputs, self.kernel)
        self._draws.assign_add(1)
        if self.posterior.neurons:
            deviation = tf.squeeze(tf.exp(0.5 * self.log_alpha()), -1)
            # One number for each channel of a frame.
            shape = [size if axis in (0, len(inputs.shape) - 1) else 1 for axis, size in enumerate(inputs.shape)]
            return product(inputs * (1.0 + self.noisy * deviation * self._noise(shape, training)), self.kernel)
        mean, variance = product(inputs, self.kernel), product(inputs**2, self.variance())
        # The root of 0 has no gradient.
        return mean + self.noisy * tf.sqrt(variance + 1e-12) * self._noise(mean.shape, training)

    def _noise(self, shape: Sequence[int], training: bool | None) -> tf.Tensor:
        # A target network counts as its policy does, and what is drawn of the two is to have nothing in common.
        return noise(shape, self._stream if training else self._stream ^ 1, self._draws)


class VariationalDense(layers.DenseLocalReparameterization, _Variational):
    """TFP's dense layer with local reparameterisation; see the module on what is different.

    Its `kernel_posterior` holds the variables; what is drawn has the bounds of `variance` besides.
    """

    deployed_as = keras.layers.Dense

    def __init__(self, units: int, posterior: Posterior, **options: Any) -> None:
        """A layer of `units` outputs."""
        normal = layers.default_mean_field_normal_fn
        learnt = options.get("name") not in posterior.protected
        weights = functools.partial(_posterior, neurons=posterior.neurons, noise_is_learnt=learnt)
        super().__init__(units, kernel_posterior_fn=weights, kernel_prior_fn=None,
                         bias_posterior_fn=normal(is_singular=True, loc_initializer="zeros"),
                         bias_posterior_tensor_fn=lambda posterior: self.bias, **options)  # fmt: skip
        self.posterior = posterior

    @classmethod
    def standing_for(cls, options: dict[str, Any], posterior: Posterior) -> VariationalDense:
        """One like Keras' layer with these options, whose weights are still to come."""
        return cls(options["units"], posterior, activation=options["activation"], name=options["name"])

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the variables."""
        super().build(input_shape)
        # Read by TFP's `call`, which would draw from it if there were a divergence of a sample.
        self.kernel_posterior_tensor = None
        self.theta = self.kernel = self.kernel_posterior.distribution.loc
        self.bias = self.bias_posterior.distribution.loc
        self.scaled_log_variance = self.kernel_posterior.distribution.scale.pretransformed_input
        self._create()

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(batch, inputs) -> (batch, units)."""
        self._training = training
        return super().call(inputs)

    def _apply_variational_kernel(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._computed(inputs, self._training, tf.matmul)

    def add_variable(self, *words: Any, **options: Any) -> tf.Variable:
        """What TFP's layers call by the name that Keras gave up."""
        return self.add_weight(*words, **options)

    def get_config(self) -> dict[str, Any]:
        """That of the layer which is deployed."""
        return {"name": self.name, "units": self.units, "activation": keras.activations.serialize(self.activation)}


class VariationalConv2D(keras.layers.Conv2D, _Variational):
    """A convolution with local reparameterisation, which TFP does not have."""

    deployed_as = keras.layers.Conv2D

    def __init__(self, filters: int, kernel_size: tuple[int, int], posterior: Posterior, **options: Any) -> None:
        """A layer as Keras' own."""
        super().__init__(filters, kernel_size, **options)
        self.posterior = posterior

    @classmethod
    def standing_for(cls, options: dict[str, Any], posterior: Posterior) -> VariationalConv2D:
        """One like Keras' layer with these options, whose weights are still to come."""
        size = options["filters"], options["kernel_size"]
        return cls(*size, posterior, **{k: v for k, v in options.items() if k not in ("filters", "kernel_size")})

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the variables."""
        super().build(input_shape)
        self.theta = self.kernel
        start = keras.initializers.Constant(NO_NOISE / RATE)
        shape = (1, 1, self.kernel.shape[2], 1) if self.posterior.neurons else self.kernel.shape
        self.scaled_log_variance = self.add_weight(
            "kernel_scaled_log_variance", shape, initializer=start, trainable=self.name not in self.posterior.protected
        )
        self._create()

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """(batch, height, width, channels) -> (batch, *, *, filters)."""
        result = self._computed(inputs, training, self.convolution_op)
        return self.activation(tf.nn.bias_add(result, self.bias))


def _posterior(
    dtype: tf.DType,
    shape: list[int],
    name: str,
    _: bool,
    add_variable: Callable[..., tf.Variable],
    *,
    neurons: bool,
    noise_is_learnt: bool,
) -> distributions.Distribution:
    """Independent normals, as `kernel_posterior_fn` of TFP's layers; with `neurons`, the noise is that of an input."""
    theta = add_variable(f"{name}_theta", shape, dtype, initializer="glorot_uniform")
    scaled = add_variable(
        f"{name}_scaled_log_variance",
        [shape[0], 1] if neurons else shape,
        initializer=keras.initializers.Constant(NO_NOISE / RATE),
        trainable=noise_is_learnt,
    )

    def deviation(x: tf.Tensor) -> tf.Tensor:
        return tf.exp(np.float32(0.5 * RATE) * x) * (tf.abs(theta) if neurons else 1.0)

    sigma = util.DeferredTensor(scaled, deviation, shape=tf.TensorShape(shape))
    return distributions.Independent(distributions.Normal(theta, sigma), reinterpreted_batch_ndims=2)
