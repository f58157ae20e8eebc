"""Values of choices without what they have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters.weights import Grid


def centred(network: keras.Model, grids: Mapping[str, Grid]) -> tuple[keras.Model, Mapping[str, Grid], tuple[str, ...]]:
    """A network with the same largest output, whose outputs lie about zero.

    Values of actions, such as a Q-network's, are large in common and differ by little. In integers, of which there are
    few for their whole range, they would be the same. What is taken away is the middle between the largest and the
    smallest weight that each input of the last layer has, and one of the biases. On a grid that is a whole number of
    steps, so that what is left lies on the same grid, with as many bits.

    Args:
      network: gives one value for each choice. It is not changed.
      grids: the kernels of layers that were trained on a grid, by layer name.

    Returns:
      The network, the grids, and notes for the manifest. The same network where its last layer is none of plain sums.
    """
    last = network.layers[-1]
    grid = grids.get(last.name)
    sums = isinstance(network, keras.Sequential) and isinstance(last, keras.layers.Dense) and last.use_bias
    if not sums or last.activation is not keras.activations.linear or (grid is not None and grid.scale.shape):
        return network, grids, ()
    kernel, bias = last.get_weights()
    if grid is None:
        kernel = kernel - _middle(kernel)
    else:
        steps = grid.integers.astype(np.int32)
        # Rounded up, because the integers of a grid may begin one step further below zero than they end above it.
        grid = Grid((steps - np.ceil(_middle(steps))).astype(np.int8), grid.scale, grid.bits)
        kernel, grids = grid.weights, {**grids, last.name: grid}
    # A bias rather than the middle of them: on its grid, that is a whole number of steps too.
    bias = bias - bias[np.argmin(np.abs(bias - _middle(bias)))]
    copy = keras.models.clone_model(network)
    copy.set_weights([*network.get_weights()[:-2], kernel, bias])
    return copy, grids, (f"What the outputs of {last.name} have in common was taken away: the choice is the same.",)


def _middle(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (weights.max(axis=-1, keepdims=True) + weights.min(axis=-1, keepdims=True)) / 2
