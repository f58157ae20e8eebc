"""Networks that compute in training what integer kernels will compute.

Each layer stands in a wrapper of TensorFlow Model Optimization (tfmot.quantization.keras), which puts what quantisers
make of kernel, bias and output in their place. The quantisers are ours (`converters.quantizers`), because they have to
do what `converters.quantise` will write, step for step: weights of 2 to 8 bits, symmetric about zero; biases at the
product of the scales of input and kernel; activations of 2 to 8 bits, inside the 8 that kernels have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from converters.dueling import DuelingOutput
from converters.layers import TANH_INPUT_LIMIT
from converters.quantizers import (
    Bias,
    Fixed,
    LayerConfig,
    Learned,
    Quantizer,
    Switch,
    config_of,
    switch_of,
)
from converters.stripping import set_own_weights
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


def learned_grid(
    kind: type[keras.layers.Layer], options: dict[str, Any], switch: Switch, widths: Widths
) -> tuple[keras.layers.Layer, Quantizer]:
    """A layer of Keras' own, and a grid for its kernel whose scale is learnt: see `emulated`."""
    return kind.from_config(options), Learned(switch, *_signed(widths.weights), per_channel=widths.per_channel)


def emulated(
    network: keras.Sequential,
    widths: Widths,
    output: Output,
    weighted: Callable[..., tuple[keras.layers.Layer, Quantizer]] = learned_grid,
) -> keras.Sequential:
    """A network that computes what `network` does, until it is switched on.

    Args:
      network: Dense, Conv2D and Flatten layers in a row, with ReLU or tanh, whose frames, if it reads frames, were
        divided by 255. Its weights are copied.
      widths: bits of its parts.
      output: what its last layer gives.
      weighted: makes each layer with weights, and the quantiser of its kernel, from (kind of layer, its options, the
        network's switch, widths).

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
        reads: Quantizer = Fixed(switch, 1.0 / levels, 0, levels)
    else:
        reads = Learned(switch, *_signed(widths.observation))
    layers: list[keras.layers.Layer] = [keras.Input(shape)]

    def add(layer: keras.layers.Layer, config: LayerConfig) -> None:
        layers.append(tfmot.quantization.keras.QuantizeWrapperV2(layer, config, name_prefix=""))

    add(keras.layers.Activation("linear", name="observation"), LayerConfig(None, None, reads))
    *_, last = network.layers
    for layer in network.layers:
        if type(layer) is keras.layers.Flatten:
            layers.append(keras.layers.Flatten(name=layer.name))
            continue
        if type(layer) not in (keras.layers.Dense, keras.layers.Conv2D, DuelingOutput) or not layer.use_bias:
            raise UsageError(
                f"The layer {layer.name} ({type(layer).__name__}) cannot be trained on a grid: Dense and Conv2D layers "
                "with biases can."
            )
        activation = layer.activation.__name__
        if activation not in ("linear", "relu", "tanh"):
            raise UsageError(f"The layer {layer.name} has the activation {activation}; relu and tanh can be integers.")
        bits = widths.output if layer is last else widths.activations
        written = _written(switch, activation, bits, output if layer is last else None)
        options = {**layer.get_config(), "activation": "linear" if activation == "tanh" else activation}
        options.pop("batch_input_shape", None)
        made, kernel = weighted(type(layer), options, switch, widths)
        add(made, LayerConfig(kernel, Bias(switch, reads, kernel), written))
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


def calibrate(network: keras.Sequential, observations: npt.ArrayLike) -> None:
    """Begin to compute on grids: those closest to the weights, and to what layers give for these observations.

    Args:
      network: what `emulated` made.
      observations: (n, ...) float32, as the network reads them.
    """
    x = tf.convert_to_tensor(observations)
    configs = [config_of(layer) for layer in network.layers]
    for config in configs:
        if config is not None and config.kernel is not None:
            kernel = config.variables[0].numpy()
            config.kernel.fit(kernel.reshape(-1, kernel.shape[-1]))
    switch_of(network).variable.assign(1.0)
    # Each layer reads what the one before will give it.
    for layer, config in zip(network.layers, configs):
        if config is not None and config.output is not None:
            with config.output.passing():
                config.output.fit(layer(x).numpy().reshape(len(x), -1))
        x = layer(x)
