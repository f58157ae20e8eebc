"""Values of choices without what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters.weights import Grid
from edge.artifact import FloatArray

Array = npt.NDArray[Any]


def centred(
    network: keras.Model, grids: Mapping[str, Grid], observations: FloatArray
) -> tuple[keras.Model, Mapping[str, Grid], tuple[str, ...]]:
    """A network with the same largest output, whose outputs have a smaller range, where that can be had.

    Values of actions, such as a Q-network's, are large in common and differ by little; in integers, of which there are
    few for their whole range, they would be equal. What is taken away is the mean of the weights that each input of the
    last layer has, and of the biases. On a grid it is the nearest whole number of steps, so that what is left lies on
    the same grid, with as many bits.

    Args:
      network: gives one value for each choice. It is not changed.
      grids: the kernels of layers that were trained on a grid, by layer name.
      observations: (n, *inputs) float32, as the network reads them, on which the range is looked at.

    Returns:
      The network, the grids, and notes for the manifest. All as they were if the range would not become less than half
      of what it is, or if the last layer is not dense, has an activation, or has a grid with one scale an output.
    """
    last = network.layers[-1]
    if not isinstance(network, keras.Sequential) or type(last) is not keras.layers.Dense:
        return network, grids, ()
    kernel, *biases = last.get_weights()
    grid = grids.get(last.name)
    # A grid that is not the kernel's is refused elsewhere.
    if last.activation is not keras.activations.linear or (grid is not None and not _is_one_scale_of(grid, kernel)):
        return network, grids, ()
    if grid is None:
        kernel = kernel - kernel.mean(axis=1, keepdims=True)
        biases = [bias - bias.mean() for bias in biases]
    else:
        grid = _centred_grid(grid)
        kernel = grid.weights
        # One of them, because they lie on a grid too.
        biases = [bias - bias[np.argmin(np.abs(bias - bias.mean()))] for bias in biases]
    copy = keras.models.clone_model(network)
    copy.set_weights([*network.get_weights()[: -1 - len(biases)], kernel, *biases])
    before, after = (_range(np.asarray(each(observations))) for each in (network, copy))
    if not 0 < after < before / 2:
        return network, grids, ()
    note = f"The values of choices (layer {last.name}) were converted without what they have in common."
    return copy, grids if grid is None else {**grids, last.name: grid}, (note,)


def _is_one_scale_of(grid: Grid, kernel: Array) -> bool:
    return not grid.scale.shape and grid.integers.shape == kernel.shape and bool((grid.weights == kernel).all())


def _centred_grid(grid: Grid) -> Grid:
    steps = grid.integers.astype(np.int32)
    high = 2 ** (grid.bits - 1) - 1
    low = -high if steps.min() >= -high else -high - 1
    common = np.rint(steps.mean(axis=1, keepdims=True))
    # Never so much that what is left does not fit.
    common = np.clip(common, steps.max(axis=1, keepdims=True) - high, steps.min(axis=1, keepdims=True) - low)
    return Grid((steps - common).astype(np.int8), grid.scale, grid.bits)


def _range(values: Array) -> float:
    """What integers have to span: zero is always among it."""
    return max(float(values.max()), 0.0) - min(float(values.min()), 0.0)
