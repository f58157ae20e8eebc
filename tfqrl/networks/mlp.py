"""Multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tf_keras as keras

from converters.dueling import DuelingOutput
from edge.errors import UsageError


def mlp(
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    activation: str = "tanh",
    output_activation: str = "linear",
    output_gain: float | None = 1.0,
    dueling: bool = False,
    precision: str = "float32",
    seed: int = 0,
    name: str = "mlp",
) -> keras.Model:
    """A perceptron, (batch, inputs) -> (batch, outputs) float32.

    Weights are orthogonal with gain sqrt(2), the output's with `output_gain` (a small one makes the first policy
    nearly the same in all states: Engstrom et al. 2020, arXiv 2005.12729). With `output_gain` None, weights are uniform
    within +-1 / sqrt(inputs of the layer), which off-policy algorithms were tuned with (Lillicrap et al. 2015, arXiv
    1509.02971, section 7; PyTorch, which draws biases from there, too). Biases are 0. `seed` fixes them. `precision` is
    that of the hidden layers' arithmetic.

    With `dueling`, the last hidden layer is there twice, side by side, for value and advantage (`DuelingOutput`).

    Raises:
      UsageError: dueling without a hidden layer.
    """
    if dueling:
        if not hidden:
            raise UsageError("A dueling network has two streams from its last hidden layer on: give it at least one.")
        hidden = (*hidden[:-1], 2 * hidden[-1])

    def initializer(layer: int, gain: float) -> keras.initializers.Initializer:
        if output_gain is None:
            return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=seed + layer)
        return keras.initializers.Orthogonal(gain, seed=seed + layer)

    dtype = "float32" if precision == "float32" else keras.mixed_precision.Policy(f"mixed_{precision}")
    layers: list[keras.layers.Layer] = [keras.Input((inputs,))]
    for i, units in enumerate(hidden):
        layers.append(
            keras.layers.Dense(
                units, activation, kernel_initializer=initializer(i, math.sqrt(2)), dtype=dtype, name=f"hidden_{i}"
            )
        )
    # Values and actions keep float32's digits: the output layer's arithmetic is a small part of the whole.
    output = DuelingOutput if dueling else keras.layers.Dense
    layers.append(
        output(
            outputs, output_activation, kernel_initializer=initializer(len(hidden), output_gain or 1.0), name="output"
        )
    )
    return keras.Sequential(layers, name=name)
