"""What stands for kernels, biases and outputs in networks that compute on grids while they are trained.

A value r becomes scale * clip(round(r / scale), low, high). Rounding has the gradient 1 (Bengio et al. 2013, arXiv
1308.3432), and the scale is learnt with the weights (LSQ: Esser et al. 2020, arXiv 1902.08153, eq. 1 to 3), by its
logarithm, so that a step of the optimiser is relative. All of it is off, and the network computes in float, until its
switch is on.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from converters.dueling import DuelingOutput
from converters.weights import Steps, best_scale

Array = npt.NDArray[Any]


class Switch:
    """Whether a network computes on its grids; a variable of the network, made with its first quantiser.

    Attributes:
      variable: 1 or 0; None before.
    """

    variable: tf.Variable | None = None

    def build(self, layer: keras.layers.Layer) -> None:
        """Create the variable, as one of this layer, if there is none yet."""
        if self.variable is None:
            self.variable = layer.add_weight("on_grid", (), initializer="zeros", trainable=False)

    def select(self, on: tf.Tensor, off: tf.Tensor) -> tf.Tensor:
        """One of the two."""
        return tf.where(self.variable > 0, on, off)


class Quantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Values rounded to low..high times a scale.

    Attributes:
      switch: of its network.
      low, high: bounds, in steps.
      clips: whether values beyond the bounds are cut off already in training, and not only once deployed.
      gradient_scale: what the gradient by the scale is multiplied by.
    """

    gradient_scale = 1.0

    def __init__(self, switch: Switch, low: int, high: int, *, clips: bool = True) -> None:
        self.switch, self.low, self.high, self.clips = switch, low, high, clips
        self._passes = False

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Create what is learnt: nothing but the switch."""
        self.switch.build(layer)
        return {}

    def scale(self) -> tf.Tensor:
        """The size of a step, () or (outputs,)."""
        raise NotImplementedError

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """What is computed with in place of `inputs`; the same in training as otherwise."""
        if self._passes:
            return inputs
        return on_grid(inputs, self.scale(), self.switch, self._rounded, self.gradient_scale)

    def _rounded(self, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | bool]:
        steps = tf.round(size)
        if not self.clips:
            return steps, True
        clipped = tf.clip_by_value(steps, float(self.low), float(self.high))
        return clipped, steps == clipped

    def get_config(self) -> dict[str, Any]:
        """Refuse: a quantiser belongs to its network."""
        raise NotImplementedError("These networks are rebuilt by `emulated`, not from Keras' configurations.")

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Let values through as they are, to be fitted to."""
        self._passes = True
        try:
            yield
        finally:
            self._passes = False

    def steps(self) -> Steps:
        """The grid, for one scale."""
        return Steps(float(self.scale().numpy()), self.low, self.high)

    def fit(self, rows: Array) -> None:
        """Get ready to be switched on, for values such as these, (n, values): nothing to do where a scale is given."""

    def integers(self, values: Array) -> npt.NDArray[np.int8]:
        """What values of 2 to 8 bits become, in steps; the same as when it is called."""
        return np.clip(np.rint(values / self.scale().numpy()), self.low, self.high).astype(np.int8)

    def acting(self, values: Array) -> Array:
        """What acts in training in place of values, as long as it is off."""
        return values

    def deployed(self, values: Array) -> Array:
        """What is deployed of values as long as it is off."""
        return values


class Fixed(Quantizer):
    """With a scale that is given."""

    def __init__(self, switch: Switch, scale: float, low: int, high: int, *, clips: bool = True) -> None:
        super().__init__(switch, low, high, clips=clips)
        self._scale = np.float32(scale)

    def scale(self) -> tf.Tensor:
        """That scale."""
        return tf.constant(self._scale)


class Learned(Quantizer):
    """With a scale that is learnt."""

    def __init__(self, switch: Switch, low: int, high: int, *, per_channel: bool = False) -> None:
        super().__init__(switch, low, high)
        self.per_channel = per_channel

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Create the logarithm of the scale, for tensors of this shape."""
        super().build(tensor_shape, name, layer)
        shape = (tensor_shape[-1],) if self.per_channel else ()
        self.log_scale = layer.add_weight(f"{name}_log_scale", shape, initializer="zeros", trainable=True)
        # LSQ, section 2.2: so that scales do not learn faster than weights do. Axes of unknown size are the batch's.
        shared = math.prod(size for size in tensor_shape if size is not None) / math.prod(shape)
        self.gradient_scale = 1.0 / math.sqrt(shared * self.high)
        return {"log_scale": self.log_scale}

    def scale(self) -> tf.Tensor:
        """Exp of what is learnt."""
        return tf.exp(self.log_scale)

    def fit(self, rows: Array) -> None:
        """Begin to learn from the scale that is closest to these values, (n, values)."""
        self.set_scale(best_scale(rows, self.low, self.high, per_channel=self.per_channel))

    def set_scale(self, scale: npt.ArrayLike) -> None:
        """Begin to learn from here."""
        self.log_scale.assign(np.log(np.asarray(scale, np.float32)))


class Bias(Quantizer):
    """At the product of the scales of what its layer reads and of the kernel, as kernels add it."""

    def __init__(self, switch: Switch, reads: Quantizer, kernel: Quantizer) -> None:
        super().__init__(switch, -(2**30), 2**30, clips=False)
        self._reads, self._kernel = reads, kernel

    def scale(self) -> tf.Tensor:
        """The product, of the grid that kernels read from; a bias does not teach the scales."""
        refinement = Steps(1.0, self._reads.low, self._reads.high).refinement
        return tf.stop_gradient(self._reads.scale() * (1.0 / refinement) * self._kernel.scale())


def on_grid(
    x: tf.Tensor,
    scale: tf.Tensor,
    switch: Switch,
    rounded: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor | bool]],
    gradient_scale: float = 1.0,
) -> tf.Tensor:
    """`x` on its grid, where `switch` is on.

    The gradients are those of LSQ, eq. 2 and 3. They are written out because differentiation makes many operations of
    them, each over all values (benchmarks/compression_cost.py).

    Args:
      x: (..., outputs) float32.
      scale: the size of a step, () or (outputs,).
      switch: as long as it is off, `x` is given back.
      rounded: from `x` in steps to whole steps, and where these follow `x`: not beyond the last one. May read tensors,
        but no variables.
      gradient_scale: of the gradient by `scale`.
    """

    def forward(x: tf.Tensor, scale: tf.Tensor, on: tf.Tensor) -> tf.Tensor:
        steps, _ = rounded(x / scale)
        return tf.where(on, steps * scale, x)

    def backward(upstream: tf.Tensor, x: tf.Tensor, scale: tf.Tensor, on: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = x / scale
        steps, follows = rounded(size)
        by_x = tf.where(tf.logical_or(follows, tf.logical_not(on)), upstream, 0.0)
        by_scale = tf.where(on, gradient_scale * upstream * tf.where(follows, steps - size, steps), 0.0)
        # Sums of columns first: XLA adds up columns side by side, but a whole tensor one value after the other.
        columns = tf.reduce_sum(tf.reshape(by_scale, (-1, x.shape[-1])), axis=0)
        return by_x, columns if scale.shape.rank else tf.tensordot(columns, tf.ones_like(columns), 1)

    @tf.custom_gradient
    def differentiable(x: tf.Tensor, scale: tf.Tensor, on: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        return fused(forward)(x, scale, on), lambda upstream: (*fused(backward)(upstream, x, scale, on), None)

    return differentiable(x, scale, switch.variable > 0)


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, in one pass over its tensors where TensorFlow would run one operation after the other.

    That is what it does in the functions that convolve (`tfqrl.training.scan`).
    """
    return function if tf.executing_eagerly() else tf.function(function, jit_compile=True)


class LayerConfig(tfmot.quantization.keras.QuantizeConfig):
    """What becomes of one layer's kernel, bias and output.

    Attributes:
      kernel, bias: their quantisers; None for a layer without.
      output: that of what it gives; None where that stays as it is.
      variables: the layer's own kernel and bias, or those of dueling streams.
    """

    def __init__(self, kernel: Quantizer | None, bias: Quantizer | None, output: Quantizer | None) -> None:
        self.kernel, self.bias, self.output = kernel, bias, output
        self.variables: tuple[tf.Variable, ...] = ()

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[tf.Variable, Quantizer]]:
        """Kernel and bias, or those of dueling streams."""
        if self.kernel is None:
            return []
        self.variables = tuple(getattr(layer, name) for name in trained_names(layer))
        return list(zip(self.variables, (self.kernel, self.bias)))

    def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: list[tf.Tensor]) -> None:
        """Let the layer compute with these."""
        if quantize_weights:
            for name, values in zip(trained_names(layer), quantize_weights):
                setattr(layer, name, values)

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """None: activations that integers need a grid before are layers of their own."""
        return []

    def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: list[Any]) -> None:
        """Nothing to set."""
        return  # AutoGraph cannot read a body that is a docstring alone

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[Quantizer]:
        """The one, or none."""
        return [] if self.output is None else [self.output]

    def get_config(self) -> dict[str, Any]:
        """Refuse, as the quantisers do."""
        raise NotImplementedError("These networks are rebuilt by `emulated`, not from Keras' configurations.")


def trained_names(layer: keras.layers.Layer) -> tuple[str, str]:
    """The attributes in which a layer has what is trained of it, a kernel and a bias."""
    return ("streams_kernel", "streams_bias") if isinstance(layer, DuelingOutput) else ("kernel", "bias")


def config_of(layer: keras.layers.Layer) -> LayerConfig | None:
    """What becomes of a layer that `emulated` wrapped, inside other wrappers too; None for another one."""
    while isinstance(layer, keras.layers.Wrapper):
        if isinstance(getattr(layer, "quantize_config", None), LayerConfig):
            return layer.quantize_config
        layer = layer.layer
    return None


def switch_of(network: keras.Sequential) -> Switch:
    """That of a network that `emulated` made."""
    return next(config.output.switch for layer in network.layers if (config := config_of(layer)) and config.output)


def is_emulated(network: keras.Sequential) -> bool:
    """Whether `emulated` made it."""
    return any(config_of(layer) is not None for layer in network.layers)


def is_on_grid(network: keras.Sequential) -> bool:
    """Whether it is one of those, and switched on."""
    return is_emulated(network) and bool(switch_of(network).variable.numpy() > 0)
