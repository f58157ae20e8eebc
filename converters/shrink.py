"""Dead neurons taken out, so that sparsity becomes smaller matrices.

Zeros that are scattered over a kernel are multiplied like any other weight: they bring nothing in time, and in size
only where the file is compressed. A neuron or filter is another matter if all that it reads or all that is read of it
is multiplied by zero. It goes, with its column of one kernel and its row of the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from types import MappingProxyType

import numpy as np
import tf_keras as keras

from converters.weights import Grid, Steps
from edge.artifact import FloatArray

# Each element of what they give depends on the same element of what they read.
ELEMENTWISE = frozenset(
    ("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "softplus", "softsign", "swish", "silu", "mish")
) | {"tanh", "sigmoid", "hard_sigmoid"}


@dataclass(frozen=True)
class Shrunk:
    """What became of one Dense or Conv2D layer.

    Attributes:
      layer: its name, the same before and after.
      kept_inputs: the inputs (channels, for Conv2D) that it still reads, as indices into those before.
      kept_outputs: the neurons or filters that are left, as indices into those before.
      units_before: neurons or filters before.
      units_after: and after.
      weights_before: weights of its kernel before.
      weights_after: and after.
    """

    layer: str
    kept_inputs: tuple[int, ...]
    kept_outputs: tuple[int, ...]
    units_before: int
    units_after: int
    weights_before: int
    weights_after: int


def shrink(
    network: keras.Sequential, outputs: Mapping[str, Sequence[Steps]] = MappingProxyType({}), *, even: bool = False
) -> tuple[keras.Sequential, tuple[Shrunk, ...]]:
    """The same function with fewer neurons, to float rounding.

    A neuron whose incoming weights are all zero is a constant, which is folded into the bias of the next layer. One
    whose outgoing weights are all zero is dropped. What that leaves may be dead in turn, so it is repeated until
    nothing is. Inputs and outputs of the network stay, and each layer keeps at least one neuron. A constant filter
    other than zero stays in front of a convolution that pads: at the border it is not constant.

    Args:
      network: as in `converters.convert`.
      outputs: the grids of what layers give, by layer name, where those were trained: behind the activation and, if
        there are more, behind what follows it.
      even: leave a dead neuron where a layer would otherwise be left with an odd number of them.

    Returns:
      The network, and what became of each Dense and Conv2D layer, in order. The network itself and nothing, if
      nothing is dead or it is not a Sequential. Neurons between which and the next layer something other than Flatten
      and elementwise activations lies stay as they are.
    """
    if not isinstance(network, keras.Sequential):
        return network, ()
    cuts = [_Cut(index, layer) for index, layer in enumerate(network.layers) if _is_plain(layer)]
    while any(
        _cut_between(network, before, after, outputs.get(before.layer.name, ()), even)
        for before, after in pairwise(cuts)
    ):
        pass
    if all(cut.units == cut.layer.kernel.shape[-1] for cut in cuts):
        return network, ()
    return _rebuild(network, cuts), tuple(cut.summary() for cut in cuts)


def cut_grid(grid: Grid, shrunk: Shrunk) -> Grid:
    """What is left of the grid that a layer's kernel was trained on; integers and scales stay the same."""
    integers = grid.integers[..., shrunk.kept_inputs, :][..., shrunk.kept_outputs]
    return Grid(integers, grid.scale[list(shrunk.kept_outputs)] if grid.scale.ndim else grid.scale, grid.bits)


def summary(shrunk: tuple[Shrunk, ...]) -> str:
    """What `shrink` did, as a sentence."""
    layers = ", ".join(f"{s.layer} {s.units_before} -> {s.units_after}" for s in shrunk)
    before, after = sum(s.weights_before for s in shrunk), sum(s.weights_after for s in shrunk)
    return f"Dead neurons were removed, units by layer {layers}: {after} of {before} weights are left."


class _Cut:
    """A layer with what is left of it; biases in float64, so that folding many constants rounds once."""

    def __init__(self, index: int, layer: keras.layers.Layer) -> None:
        self.index, self.layer = index, layer
        self.kernel: FloatArray = layer.kernel.numpy()
        self.bias = layer.bias.numpy().astype(np.float64) if layer.use_bias else np.zeros(self.kernel.shape[-1])
        self.inputs, self.outputs = (np.arange(size) for size in self.kernel.shape[-2:])

    @property
    def units(self) -> int:
        return self.kernel.shape[-1]

    def keep_outputs(self, kept: np.ndarray) -> None:
        self.kernel, self.bias, self.outputs = self.kernel[..., kept], self.bias[kept], self.outputs[kept]

    def keep_inputs(self, kept: np.ndarray) -> None:
        self.kernel, self.inputs = self.kernel[..., kept, :], self.inputs[kept]

    def summary(self) -> Shrunk:
        before = self.layer.kernel.shape
        return Shrunk(
            self.layer.name,
            tuple(map(int, self.inputs)),
            tuple(map(int, self.outputs)),
            before[-1],
            self.units,
            math.prod(before),
            self.kernel.size,
        )


def _is_plain(layer: keras.layers.Layer) -> bool:
    if type(layer) is keras.layers.Conv2D:
        return layer.groups == 1 and layer.data_format == "channels_last"
    return type(layer) is keras.layers.Dense


def _cut_between(network: keras.Sequential, before: _Cut, after: _Cut, grids: Sequence[Steps], even: bool) -> bool:
    """Take out what is dead between two layers; returns whether anything was."""
    between = network.layers[before.index + 1 : after.index]
    activations = [layer.activation for layer in (before.layer, *between) if hasattr(layer, "activation")]
    if not all(type(layer) in (keras.layers.Flatten, keras.layers.Activation) for layer in between) or not all(
        getattr(activation, "__name__", "") in ELEMENTWISE for activation in activations
    ):
        return False
    # Flatten lays channel by channel, pixel after pixel: input i of a Dense layer behind it is of filter i % units.
    read = after.kernel.reshape(-1, before.units, after.units)
    unread = ~read.any(axis=(0, 2))
    constant = ~before.kernel.reshape(-1, before.units).any(axis=0)
    value = before.bias.astype(np.float32)
    for activation, grid in zip_longest(activations, grids):
        if activation is not None:
            value = np.asarray(activation(keras.backend.constant(value)))
        if grid is not None:
            value = grid(value)
    pads = after.kernel.ndim == 4 and after.layer.padding != "valid"
    dead = unread | (constant & np.isfinite(value) & ((value == 0) | (not pads)))
    if dead.all():
        dead[0] = False
    if even and (~dead).sum() % 2 and dead.any():
        dead[dead.argmax()] = False
    if not dead.any():
        return False
    after.bias = after.bias + np.where(dead & ~unread, value, 0.0) @ read.sum(axis=0, dtype=np.float64)
    before.keep_outputs(np.flatnonzero(~dead))
    after.keep_inputs(np.flatnonzero(np.tile(~dead, after.kernel.shape[-2] // dead.size)))
    return True


def _rebuild(network: keras.Sequential, cuts: list[_Cut]) -> keras.Sequential:
    smaller = {cut.index: cut for cut in cuts}
    layers = [keras.Input(network.input_shape[1:])]
    for index, layer in enumerate(network.layers):
        config = layer.get_config()
        if index in smaller:
            cut = smaller[index]
            config["units" if "units" in config else "filters"] = cut.units
            config["use_bias"] = layer.use_bias or bool(cut.bias.any())
        # The shape that it was built for is no longer that of what it reads.
        config.pop("batch_input_shape", None)
        layers.append(type(layer).from_config(config))
    result = keras.Sequential(layers, name=network.name)
    for index, (layer, original) in enumerate(zip(result.layers, network.layers)):
        if index in smaller:
            cut = smaller[index]
            bias = [cut.bias.astype(np.float32)] if layer.use_bias else []
            layer.set_weights([cut.kernel, *bias])
        else:
            layer.set_weights(original.get_weights())
    return result
