"""The layers of which a policy from elsewhere may consist, as plain records: to a network and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tf_keras as keras

from converters.sources import ImportPolicyError

Activation = Literal["linear", "relu", "tanh", "sigmoid"]


@dataclass(frozen=True)
class Layer:
    """One layer, without its weights.

    Attributes:
      kind: what it is.
      units: outputs of a dense layer, filters of a convolution; None for the others.
      activation: what is applied to its outputs.
      bias: whether a dense layer or convolution adds one.
      kernel: height and width of a convolution's kernel.
      strides: of a convolution, down and across.
      padding: "valid": none; "same": zeros, so that only the strides make the output smaller.
    """

    kind: Literal["dense", "conv2d", "flatten", "activation"]
    units: int | None = None
    activation: Activation = "linear"
    bias: bool = True
    kernel: tuple[int, int] | None = None
    strides: tuple[int, int] = (1, 1)
    padding: Literal["valid", "same"] = "valid"


def build(shape: tuple[int, ...], layers: Sequence[Layer]) -> keras.Sequential:
    """The network of these layers for observations of `shape`; its weights are to be set."""
    network = keras.Sequential([keras.Input(shape)], name="policy")
    for i, layer in enumerate(layers):
        name = f"{layer.kind}_{i}"
        if layer.kind == "dense":
            network.add(keras.layers.Dense(layer.units, layer.activation, use_bias=layer.bias, name=name))
        elif layer.kind == "conv2d":
            network.add(
                keras.layers.Conv2D(
                    layer.units,
                    layer.kernel,
                    layer.strides,
                    layer.padding,
                    activation=layer.activation,
                    use_bias=layer.bias,
                    name=name,
                )
            )
        elif layer.kind == "flatten":
            network.add(keras.layers.Flatten(name=name))
        else:
            network.add(keras.layers.Activation(layer.activation, name=name))
    return network


def describe(network: keras.Sequential) -> tuple[Layer, ...]:
    """The inverse of `build`.

    Raises:
      ImportPolicyError: the network has a layer of another kind.
    """
    return tuple(map(_describe, network.layers))


def _describe(layer: keras.layers.Layer) -> Layer:
    if isinstance(layer, keras.layers.Flatten):
        return Layer("flatten")
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    if activation in ("linear", "relu", "tanh", "sigmoid"):
        if isinstance(layer, keras.layers.Activation):
            return Layer("activation", activation=activation)
        if type(layer) is keras.layers.Dense:
            return Layer("dense", layer.units, activation, layer.use_bias)
        if type(layer) is keras.layers.Conv2D and layer.groups == 1 and layer.dilation_rate == (1, 1):
            return Layer(
                "conv2d", layer.filters, activation, layer.use_bias, layer.kernel_size, layer.strides, layer.padding
            )
    raise ImportPolicyError(
        f"The layer {layer.name} ({type(layer).__name__}, activation {activation}) cannot be part of an imported run: "
        "dense, convolution, flatten, and linear, relu, tanh and sigmoid can."
    )
