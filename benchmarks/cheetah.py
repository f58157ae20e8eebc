"""A policy of HalfCheetah's size, with random weights: what the edge's benchmarks let act."""

from __future__ import annotations

import numpy as np
import tf_keras as keras

from converters import convert
from converters.conversion import Conversion
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from tfqrl.networks import mlp

OBSERVATION, ACTION = 17, 6
OBSERVATIONS = np.random.default_rng(0).normal(size=(500, OBSERVATION))
SPEC = PolicySpec(
    ObservationSpec((OBSERVATION,), (None,) * OBSERVATION, (None,) * OBSERVATION),
    ActionSpec((ACTION,), (-1.0,) * ACTION, (1.0,) * ACTION),
    None,
    None,
)


def network(hidden: tuple[int, ...]) -> keras.Model:
    """The network with these hidden layers; the same each time."""
    return mlp(OBSERVATION, hidden, ACTION)


def conversion(hidden: tuple[int, ...], recipe: str) -> Conversion:
    """The policy with these hidden layers, converted."""
    return convert(network(hidden), SPEC, recipe, OBSERVATIONS)
