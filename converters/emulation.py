"""Networks that compute in training what integer kernels will compute.

Each layer stands in a wrapper of TensorFlow Model Optimization (tfmot.quantization.keras), which puts what quantisers
make of kernel, bias and output in their place. The quantisers are ours, because they have to do what
`converters.quantise` will write, step for step: weights of 2 to 8 bits, symmetric about zero; biases at the product of
the scales of input and kernel; activations of 2 to 8 bits, inside the 8 that kernels have.

A value r becomes scale * clip(round(r / scale), low, high). Rounding has the gradient 1 (Bengio et al. 2013, arXiv
1308.3432), and the scale is learnt with the weights (LSQ: Esser et al. 2020, arXiv 1902.08153, eq. 1 to 3), by its
logarithm, so that a step of the optimiser is relative. All of it is off, and the network computes in float, until
`calibrate` sets the scales and switches it on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from converters.layers import TANH_INPUT_LIMIT
from converters.quantise import Trained
from converters.weights import Grid, Steps, best_scale
from edge.errors import UsageError

Array = npt.NDArray[Any]

# What a network's last layer gives: actions, within -1 and 1 by its tanh; what a tanh is to follow, once deployed;
# actions that are clipped there, once deployed; or values of choices, which the conversion quantises.
Output = Literal["tanh", "before tanh", "clipped", "choices"]

BITS = range(2, 9)


@dataclass(frozen=True)
class Widths:
    """Bits of a network's parts, 2 to 8 each.

    Attributes:
      weights: of kernels.
      activations: of what hidden layers give.
      observation: of what the first layer reads.
      output: of actions.
      per_channel: whether each output of a layer has a weight scale of its own.
    """

    weights: int = 8
    activations: int = 8
    observation: int = 8
    output: int = 8
    per_channel: bool = False


class Switch:
    """Whether a network computes on its grids; a variable of the network, made by its first quantiser.

    Attributes:
      variable: 1 or 0.
    """

    variable: tf.Variable

    def select(self, on: tf.Tensor, off: tf.Tensor) -> tf.Tensor:
        """One of the two."""
        return tf.where(self.variable > 0, on, off)


class Quantizer(tfmot.quantization.keras.quantizers.Quantizer):
    """Values rounded to low..high times a scale.

    Attributes:
      switch: of its network.
      low, high: bounds, in steps.
      clips: whether values beyond the bounds are cut off already in training, and not only once deployed.
    """

    def __init__(self, switch: Switch, low: int, high: int, *, clips: bool = True) -> None:
        self.switch, self.low, self.high, self.clips = switch, low, high, clips

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Create what is learnt: nothing."""
        return {}

    def scale(self) -> tf.Tensor:
        """The size of a step, () or (outputs,)."""
        raise NotImplementedError

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """What is computed with in place of `inputs`; the same in training as otherwise."""
        scale = self.scale()
        steps = _round(inputs / scale)
        if self.clips:
            steps = tf.clip_by_value(steps, float(self.low), float(self.high))
        return self.switch.select(steps * scale, inputs)

    def get_config(self) -> dict[str, Any]:
        """Refuse: a quantiser belongs to its network."""
        raise NotImplementedError("These networks are rebuilt by `emulated`, not from Keras' configurations.")

    def steps(self) -> Steps:
        """The grid, for one scale."""
        return Steps(float(self.scale().numpy()), self.low, self.high)


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
        shape = (tensor_shape[-1],) if self.per_channel else ()
        self.log_scale = layer.add_weight(f"{name}_log_scale", shape, initializer="zeros", trainable=True)
        # LSQ, section 2.2: so that scales do not learn faster than weights do. Axes of unknown size are the batch's.
        shared = math.prod(size for size in tensor_shape if size is not None) / math.prod(shape)
        self._gradient_scale = 1.0 / math.sqrt(shared * self.high)
        return {"log_scale": self.log_scale}

    def scale(self) -> tf.Tensor:
        """Exp of what is learnt."""
        return tf.exp(_with_gradient_scaled(self.log_scale, self._gradient_scale))

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


@tf.custom_gradient
def _round(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.round(x), lambda upstream: upstream


def _with_gradient_scaled(x: tf.Tensor, factor: float) -> tf.Tensor:
    @tf.custom_gradient
    def identity(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.identity(x), lambda upstream: upstream * factor

    return identity(x)


class LayerConfig(tfmot.quantization.keras.QuantizeConfig):
    """What becomes of one layer's kernel, bias and output.

    Attributes:
      kernel, bias: their quantisers; None for a layer without.
      output: that of what it gives; None where that stays as it is.
      variables: the layer's own kernel and bias.
    """

    def __init__(self, kernel: Quantizer | None, bias: Quantizer | None, output: Quantizer | None) -> None:
        self.kernel, self.bias, self.output = kernel, bias, output
        self.variables: tuple[tf.Variable, ...] = ()

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[tf.Variable, Quantizer]]:
        """Kernel and bias."""
        if self.kernel is None:
            return []
        self.variables = (layer.kernel, layer.bias)
        return list(zip(self.variables, (self.kernel, self.bias)))

    def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: list[tf.Tensor]) -> None:
        """Let the layer compute with these."""
        if quantize_weights:
            layer.kernel, layer.bias = quantize_weights

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """None: activations that integers need a grid before are layers of their own."""
        return []

    def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: list[Any]) -> None:
        """Nothing to set."""

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[Quantizer]:
        """The one, or none."""
        return [] if self.output is None else [self.output]

    def get_config(self) -> dict[str, Any]:
        """Refuse, as the quantisers do."""
        raise NotImplementedError("These networks are rebuilt by `emulated`, not from Keras' configurations.")


class _FirstLearned(Learned):
    """The network's first quantiser, which makes the switch."""

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        self.switch.variable = _switch_variable(layer)
        return super().build(tensor_shape, name, layer)


class _FirstFixed(Fixed):
    """The same for frames, whose range is known."""

    def build(self, tensor_shape: Any, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        self.switch.variable = _switch_variable(layer)
        return super().build(tensor_shape, name, layer)


def _switch_variable(layer: keras.layers.Layer) -> tf.Variable:
    return layer.add_weight("on_grid", (), initializer="zeros", trainable=False)


def emulated(network: keras.Sequential, widths: Widths, output: Output) -> keras.Sequential:
    """A network that computes what `network` does, until it is switched on.

    Args:
      network: Dense, Conv2D and Flatten layers in a row, with ReLU or tanh, whose frames, if it reads frames, were
        divided by 255. Its weights are copied.
      widths: bits of its parts.
      output: what its last layer gives.

    Raises:
      UsageError: a width out of range, or a layer of another kind.
    """
    for part in ("weights", "activations", "observation", "output"):
        if getattr(widths, part) not in BITS:
            raise UsageError(f"Bits of {part} must lie in 2..8; given were {getattr(widths, part)}.")
    switch = Switch()
    shape = network.input_shape[1:]
    if len(shape) == 3:
        levels = 2**widths.observation - 1
        reads: Quantizer = _FirstFixed(switch, 1.0 / levels, 0, levels)
    else:
        reads = _FirstLearned(switch, *_signed(widths.observation))
    layers: list[keras.layers.Layer] = [keras.Input(shape)]

    def add(layer: keras.layers.Layer, config: LayerConfig) -> None:
        layers.append(tfmot.quantization.keras.QuantizeWrapperV2(layer, config, name_prefix=""))

    add(keras.layers.Activation("linear", name="observation"), LayerConfig(None, None, reads))
    *_, last = network.layers
    for layer in network.layers:
        if type(layer) is keras.layers.Flatten:
            layers.append(keras.layers.Flatten(name=layer.name))
            continue
        if type(layer) not in (keras.layers.Dense, keras.layers.Conv2D) or not layer.use_bias:
            raise UsageError(
                f"The layer {layer.name} ({type(layer).__name__}) cannot be trained on a grid: Dense and Conv2D layers "
                "with biases can, so train without --dueling."
            )
        activation = layer.activation.__name__
        if activation not in ("linear", "relu", "tanh"):
            raise UsageError(f"The layer {layer.name} has the activation {activation}; relu and tanh can be integers.")
        kernel = Learned(switch, *_signed(widths.weights), per_channel=widths.per_channel)
        bits = widths.output if layer is last else widths.activations
        written = _written(switch, activation, bits, output if layer is last else None)
        config = LayerConfig(kernel, Bias(switch, reads, kernel), written)
        plain = {**layer.get_config(), "activation": "linear" if activation == "tanh" else activation}
        plain.pop("batch_input_shape", None)
        add(type(layer).from_config(plain), config)
        if activation == "tanh":
            written = Fixed(switch, 1 / 128, -128, 127)
            add(keras.layers.Activation("tanh", name=f"{layer.name}_tanh"), LayerConfig(None, None, written))
            if bits < 8:
                # Kernels go from the steps of the one grid to those of the other by a ratio in 256ths. With an odd one
                # no step is half way between two; actions, though, have to reach -1 and 1.
                high = _signed(bits)[1]
                written = Fixed(switch, 1 / high if layer is last else 2 / (2 * high + 1), -high, high)
                add(keras.layers.Activation("linear", name=f"{layer.name}_steps"), LayerConfig(None, None, written))
        if written is not None:
            reads = written
    result = keras.Sequential(layers, name=network.name)
    set_own_weights(result, network)
    return result


def _written(switch: Switch, activation: str, bits: int, output: Output | None) -> Quantizer | None:
    """What a layer's output is quantised by."""
    if activation == "relu":
        return Learned(switch, 0, 2**bits - 1)
    if activation == "tanh":
        return Fixed(switch, TANH_INPUT_LIMIT / 127, -127, 127)
    # In training what lies beyond the bounds must still feel the gradient.
    if output == "before tanh":
        return Fixed(switch, TANH_INPUT_LIMIT / 127, -127, 127, clips=False)
    if output == "clipped":
        return Fixed(switch, 1.0 / _signed(bits)[1], *_signed(bits), clips=False)
    return None


def _signed(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1


def is_emulated(network: keras.Sequential) -> bool:
    """Whether `emulated` made it."""
    return any(_config(layer) is not None for layer in network.layers)


def is_on_grid(network: keras.Sequential) -> bool:
    """Whether it is one of those, and switched on."""
    return is_emulated(network) and bool(_switch(network).variable.numpy() > 0)


def calibrate(network: keras.Sequential, observations: npt.ArrayLike) -> None:
    """Begin to compute on grids: those closest to the weights, and to what layers give for these observations.

    Args:
      network: what `emulated` made.
      observations: (n, ...) float32, as the network reads them.
    """
    x = tf.convert_to_tensor(observations)
    for layer in network.layers:
        config = _config(layer)
        if config is not None and isinstance(config.kernel, Learned):
            kernel = config.variables[0].numpy()
            _fit(config.kernel, kernel.reshape(-1, kernel.shape[-1]))
        x = layer(x)
        if config is not None and isinstance(config.output, Learned):
            _fit(config.output, x.numpy().reshape(len(x), -1))
    _switch(network).variable.assign(1.0)


def own_variables(layers: Iterable[keras.layers.Layer]) -> list[tf.Variable]:
    """Kernels and biases of layers in their order, with wrappers or without."""
    return [variable for layer in layers for variable in _own(layer)]


def set_own_weights(network: keras.Sequential, other: keras.Sequential) -> None:
    """Give the layers of a network the kernels and biases that those of another compute with.

    Raises:
      ValueError: they are not of the same shapes.
    """
    values = [array for item in computed(other) for array in (item.kernel, item.bias) if array is not None]
    for variable, array in zip(own_variables(network.layers), values, strict=True):
        variable.assign(array)


@dataclass(frozen=True)
class Computed:
    """What a layer computes, once deployed.

    Attributes:
      layer: the Keras layer, without wrappers.
      kernel, bias: float32, on their grids if there are any; None for a layer without.
      grid: the kernel's.
      steps: the output's.
    """

    layer: keras.layers.Layer
    kernel: Array | None
    bias: Array | None
    grid: Grid | None = None
    steps: Steps | None = None


def computed(network: keras.Sequential) -> list[Computed]:
    """What each layer computes, of networks with wrappers and without."""
    on = is_on_grid(network)
    return [_computed(layer, on) for layer in network.layers]


def plain(network: keras.Sequential) -> keras.Sequential:
    """A copy of Keras' own layers in float32, with the kernels and biases that the layers compute with."""
    layers: list[keras.layers.Layer] = [keras.Input(network.input_shape[1:])]
    weights: list[Array] = []
    for item in computed(network):
        if item.kernel is None and getattr(item.layer, "activation", None) is keras.activations.linear:
            continue  # it is there for its grid alone
        kind = keras.layers.Dense if isinstance(item.layer, keras.layers.Dense) else type(item.layer)
        config = {**item.layer.get_config(), "dtype": "float32"}
        config.pop("batch_input_shape", None)
        layers.append(kind.from_config(config))
        weights += [array for array in (item.kernel, item.bias) if array is not None]
    copy = keras.Sequential(layers, name=network.name)
    copy.set_weights(weights)
    return copy


def strip(network: keras.Sequential) -> tuple[keras.Sequential, Trained | None]:
    """The network that is deployed, of Keras' own layers alone, and the grids that it was trained on, if it was.

    Returns:
      The network itself, and None, if it has no wrappers.
    """
    if not any(isinstance(layer, keras.layers.Wrapper) for layer in network.layers):
        return network, None
    if not is_on_grid(network):
        return plain(network), None
    first, *others = computed(network)
    kernels: dict[str, Grid] = {}
    outputs: dict[str, tuple[Steps, ...]] = {}
    for item in others:
        if item.grid is not None:
            name = item.layer.name
            kernels[name], outputs[name] = item.grid, ()
        if item.steps is not None:
            outputs[name] += (item.steps,)
    assert first.steps is not None
    return plain(network), Trained(first.steps, kernels, outputs)


def _config(layer: keras.layers.Layer) -> LayerConfig | None:
    while isinstance(layer, keras.layers.Wrapper):
        if isinstance(getattr(layer, "quantize_config", None), LayerConfig):
            return layer.quantize_config
        layer = layer.layer
    return None


def _switch(network: keras.Sequential) -> Switch:
    return next(config.output.switch for layer in network.layers if (config := _config(layer)) and config.output)


def _own(layer: keras.layers.Layer) -> tuple[tf.Variable | tf.Tensor, ...]:
    """Kernel and bias; () for a layer without. Some layers compute theirs."""
    config = _config(layer)
    if config is not None:
        return config.variables
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    return (layer.kernel, layer.bias) if layer.weights else ()


def _computed(layer: keras.layers.Layer, on: bool) -> Computed:
    kernel, bias = ([_value(variable) for variable in _own(layer)] + [None, None])[:2]
    config = _config(layer)
    while isinstance(layer, keras.layers.Wrapper):
        # TF-MOT masks the variable at the next call, and not at once.
        for _, mask, _ in getattr(layer, "pruning_vars", ()):
            kernel = kernel * _value(mask)
        layer = layer.layer
    if config is None or not on:
        return Computed(layer, kernel, bias)
    steps = None if config.output is None else config.output.steps()
    if kernel is None:
        return Computed(layer, None, None, steps=steps)
    assert config.kernel is not None
    assert config.bias is not None
    scale, high = config.kernel.scale().numpy(), config.kernel.high
    integers = np.clip(np.rint(kernel / scale), -high, high).astype(np.int8)
    grid = Grid(integers, scale, next(bits for bits in (2, 4, 8) if high < 2 ** (bits - 1)))
    bias_scale = config.bias.scale().numpy()
    return Computed(layer, grid.weights, np.rint(bias / bias_scale) * bias_scale, grid, steps)


def _value(variable: tf.Variable | tf.Tensor) -> Array:
    """What it holds, in a fifth of the time that `get_weights` takes: short rollouts read it often."""
    if isinstance(variable, tf.Variable):
        return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=tf.float32).numpy()
    return variable.numpy()


def _fit(quantizer: Learned, rows: Array) -> None:
    quantizer.set_scale(best_scale(rows, quantizer.low, quantizer.high, per_channel=quantizer.per_channel))
