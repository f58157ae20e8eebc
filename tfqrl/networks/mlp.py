"""Multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tf_keras as keras


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: str = "tanh",
    output_gain: float = 1.0,
    seed: int = 0,
    name: str = "mlp",
) -> keras.Model:
    """A perceptron with a linear output, (batch, inputs) -> (batch, outputs).

    Weights are orthogonal with gain sqrt(2), the output's with `output_gain` (a small one makes the first policy
    nearly the same in all states: Engstrom et al. 2020, arXiv 2005.12729). `seed` fixes them.
    """
    layers: list[keras.layers.Layer] = [keras.Input((inputs,))]
    for i, units in enumerate(hidden):
        initializer = keras.initializers.Orthogonal(math.sqrt(2), seed=seed + i)
        layers.append(keras.layers.Dense(units, activation, kernel_initializer=initializer, name=f"hidden_{i}"))
    initializer = keras.initializers.Orthogonal(output_gain, seed=seed + len(hidden))
    layers.append(keras.layers.Dense(outputs, kernel_initializer=initializer, name="output"))
    return keras.Sequential(layers, name=name)
