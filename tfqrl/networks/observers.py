"""Networks from observations of either kind, vectors or frames."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from tfqrl.networks.cnn import nature_cnn
from tfqrl.networks.mlp import mlp
from tfqrl.training.config import TrainingConfig


def _observer(
    config: TrainingConfig,
    spec: PolicySpec,
    outputs: int,
    *,
    output_gain: float,
    dueling: bool = False,
    seed: int,
    name: str,
) -> keras.Sequential:
    """A perceptron of the configured widths for vectors, the Nature CNN for frames; (batch, ...) -> (batch, outputs).

    Weights are orthogonal, as `mlp` and `nature_cnn` say. What goes in is what `as_input` makes of observations.

    Raises:
      UsageError: the frames are too small.
    """
    if spec.observation.frames:
        return nature_cnn(
            spec.observation.shape,
            outputs,
            output_gain=output_gain,
            dueling=dueling,
            precision=config.precision,
            seed=seed,
            name=name,
        )
    return mlp(
        spec.observation.shape[0],
        config.hidden,
        outputs,
        activation=config.activation,
        output_gain=output_gain,
        dueling=dueling,
        precision=config.precision,
        seed=seed,
        name=name,
    )


def policy_network(config: TrainingConfig, spec: PolicySpec) -> keras.Sequential:
    """From normalised observations to mean actions or logits, nearly the same for all observations at first."""
    outputs = spec.action.n if spec.action.n is not None else spec.action.shape[0]
    network = _observer(config, spec, outputs, output_gain=0.01, seed=config.seed, name="policy")
    if config.compress is None:
        return network
    return config.compress.wrap(network, "choices" if spec.action.discrete else "clipped", config.seed)


def q_network(config: TrainingConfig, spec: PolicySpec, *, dueling: bool) -> keras.Sequential:
    """From normalised observations to the value of each choice: (batch, ...) -> (batch, choices)."""
    network = _observer(config, spec, spec.action.n, output_gain=1.0, dueling=dueling, seed=config.seed, name="policy")
    return network if config.compress is None else config.compress.wrap(network, "choices", config.seed)


def value_network(config: TrainingConfig, spec: PolicySpec) -> keras.Sequential:
    """From normalised observations to the value of the state: (batch, ...) -> (batch, 1)."""
    return _observer(config, spec, 1, output_gain=1.0, seed=config.seed + 1000, name="value")


def as_input(observation: tf.Tensor) -> tf.Tensor:
    """Normalised vectors as they are; bytes of frames divided by 255, as in the deployed graph."""
    if observation.dtype != tf.uint8:
        return observation
    return tf.cast(observation, tf.float32) * np.float32(1 / 255)


def as_trained(config: TrainingConfig, spec: PolicySpec, network: keras.Sequential) -> keras.Sequential:
    """The network itself: what most algorithms deploy."""
    return network
