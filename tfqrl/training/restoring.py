"""From checkpoints to variables and policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from tfqrl.envs import spec_of
from tfqrl.normalization import RunningMoments
from tfqrl.runs import State, nested
from tfqrl.training.config import TrainingConfig

Array = npt.NDArray[Any]


def assign_variables(variables: Mapping[str, Sequence[tf.Variable]], state: State) -> None:
    """Give an algorithm's variables the values that a checkpoint has of them.

    Raises:
      KeyError, ValueError: it has none for one, or of another shape.
    """
    for name, group in variables.items():
        for i, variable in enumerate(group):
            variable.assign(state[f"{name}/{i}"])


def restore_policy(agent_type: Any, config: Any, state: State) -> tuple[keras.Sequential, PolicySpec]:
    """What acts without exploring, of a checkpoint, and its spec with the normaliser that it was trained with.

    It has the wrappers of a compressor; what is deployed of it, `converters.stripping.deployable` makes.
    """
    spec = spec_of(config.env, config.env_module)
    weights = nested(state, "policy")
    # What is deployed is not trained further: it computes in float32.
    config = replace(config, precision="float32")
    network = policy_network(agent_type, config, spec, [weights[str(i)] for i in range(len(weights))])
    if not normalizes(config, spec):
        return network, spec
    moments = RunningMoments(spec.observation.shape)
    moments.restore(nested(state, "moments"))
    return network, replace(spec, normalizer=moments.normalizer(config.observation_clip))


def policy_network(agent_type: Any, config: Any, spec: PolicySpec, weights: Sequence[Array]) -> keras.Sequential:
    """The network that acts without exploring, of an agent whose network has these weights.

    Raises:
      ValueError: it has others.
    """
    network = agent_type.network(config, spec)
    network.set_weights(weights)
    return agent_type.deployed(config, spec, network)


def normalizes(config: TrainingConfig, spec: PolicySpec) -> bool:
    """Whether observations are normalised: frames never are, the networks see them divided by 255."""
    return config.normalize_observation and not spec.observation.frames
