"""What networks with wrappers, on grids or pruned, compute, and copies of Keras' own layers that compute it too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.dueling import DuelingOutput, advantage_kernel, q_bias, q_kernel
from converters.quantise import Trained
from converters.quantizers import config_of, is_on_grid, trained_names
from converters.weights import Grid, Steps

Array = npt.NDArray[Any]


def own_variables(layers: Iterable[keras.layers.Layer]) -> list[tf.Variable]:
    """What is trained of layers, in their order, with wrappers or without: kernels and biases, or dueling streams."""
    return [variable for layer in layers for variable in _own(layer)]


def set_own_weights(network: keras.Sequential, other: keras.Sequential) -> None:
    """Give the layers of a network the kernels and biases that those of another compute with.

    Raises:
      ValueError: they are not of the same shapes.
    """
    values = [
        array for item in computed(other) for array in (item.streams or (item.kernel, item.bias)) if array is not None
    ]
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
      streams: of a dueling layer, the kernel and bias that its own are made of, on their grids if there are any.
    """

    layer: keras.layers.Layer
    kernel: Array | None
    bias: Array | None
    grid: Grid | None = None
    steps: Steps | None = None
    streams: tuple[Array, Array] | None = None


def computed(network: keras.Sequential, *, in_training: bool = False) -> list[Computed]:
    """What each layer computes, of networks with wrappers and without.

    Args:
      network: any.
      in_training: as long as it is not on its grids, what it computes without them, and not what would be deployed;
        on its grids, actions beyond their bounds, which are clipped once deployed.
    """
    on = is_on_grid(network)
    return [_computed(layer, on, in_training) for layer in network.layers]


def plain(network: keras.Sequential) -> keras.Sequential:
    """A copy of Keras' own layers in float32, with the kernels and biases that the layers compute with."""
    layers: list[keras.layers.Layer] = [keras.Input(network.input_shape[1:])]
    weights: list[Array] = []
    for item in computed(network):
        if item.kernel is None and getattr(item.layer, "activation", None) is keras.activations.linear:
            continue  # it is there for its grid alone
        kind = getattr(item.layer, "deployed_as", type(item.layer))
        config = {**item.layer.get_config(), "dtype": "float32"}
        config.pop("batch_input_shape", None)
        layers.append(kind.from_config(config))
        weights += [array for array in (item.kernel, item.bias) if array is not None]
    copy = keras.Sequential(layers, name=network.name)
    copy.set_weights(weights)
    return copy


def deployable(network: keras.Sequential) -> keras.Sequential:
    """What is deployed now of a network, dueling, compressed or neither: of Keras' own layers, in float32.

    One that computes on grids is given back as it is: the converter takes the grids from it.
    """
    wrapped = any(isinstance(layer, (keras.layers.Wrapper, DuelingOutput)) for layer in network.layers)
    return plain(network) if wrapped and not is_on_grid(network) else network


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


def _own(layer: keras.layers.Layer) -> tuple[tf.Variable | tf.Tensor, ...]:
    """Kernel and bias, or those of dueling streams; () for a layer without."""
    config = config_of(layer)
    if config is not None:
        return config.variables
    kernel = None
    while isinstance(layer, keras.layers.Wrapper):
        # Of clusters: the layer itself has a tensor there that is made of it.
        kernel = getattr(layer, "original_clusterable_weights", {}).get("kernel", kernel)
        layer = layer.layer
    own = tuple(getattr(layer, name) for name in trained_names(layer)) if layer.weights else ()
    return own if kernel is None else (kernel, layer.bias)


def _computed(layer: keras.layers.Layer, on: bool, in_training: bool) -> Computed:
    kernel, bias = ([_value(variable) for variable in _own(layer)] + [None, None])[:2]
    config = config_of(layer)
    while isinstance(layer, keras.layers.Wrapper):
        # TF-MOT masks the variable at the next call, and not at once.
        for _, mask, _ in getattr(layer, "pruning_vars", ()):
            kernel = kernel * _value(mask)
        if (centroids := getattr(layer, "centroids", None)) is not None:
            kernel = nearest(kernel, _value(centroids))
        layer = layer.layer
    dueling = isinstance(layer, DuelingOutput)
    if config is None or not on:
        if config is not None and config.kernel is not None:
            kernel = config.kernel.acting(kernel) if in_training else config.kernel.deployed(kernel)
        if dueling:
            return Computed(layer, q_kernel(kernel).numpy(), q_bias(bias).numpy(), streams=(kernel, bias))
        return Computed(layer, kernel, bias)
    steps = None if config.output is None else config.output.steps()
    if steps is not None and in_training and not config.output.clips:
        steps = dataclasses.replace(steps, low=-(2**30), high=2**30)
    if kernel is None:
        return Computed(layer, None, None, steps=steps)
    assert config.kernel is not None
    assert config.bias is not None
    scale, high = config.kernel.scale().numpy(), config.kernel.high
    integers = config.kernel.integers(kernel)
    bias_scale = config.bias.scale().numpy()
    bias = np.rint(bias / bias_scale) * bias_scale
    streams = None
    if dueling:
        streams = np.asarray(integers * scale, np.float32), bias
        # Q is on no grid, because it has a mean in it; the advantages choose the same.
        integers, bias, scale = advantage_kernel(integers), bias[1:], scale[1:] if scale.shape else scale
    grid = Grid(integers, scale, next(bits for bits in (2, 4, 8) if high < 2 ** (bits - 1)))
    return Computed(layer, grid.weights, bias, grid, steps, streams)


def nearest(values: Array, centroids: Array) -> Array:
    """For each of the values the nearest of the centroids, (clusters,)."""
    ordered = np.sort(centroids)
    return ordered[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, values)]


def _value(variable: tf.Variable | tf.Tensor) -> Array:
    """What it holds, in a fifth of the time that `get_weights` takes: short rollouts read it often."""
    if isinstance(variable, tf.Variable):
        return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=tf.float32).numpy()
    return variable.numpy()
