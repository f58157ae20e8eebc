"""Networks from observations of either kind, vectors or frames."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from tfqrl.networks.cnn import nature_cnn
from tfqrl.networks.mlp import mlp
from tfqrl.training.config import TrainingConfig


def observer(
    config: TrainingConfig, spec: PolicySpec, outputs: int, *, output_gain: float, seed: int, name: str
) -> keras.Sequential:
    """A perceptron of the configured widths for vectors, the Nature CNN for frames; (batch, ...) -> (batch, outputs).

    Weights are orthogonal, as `mlp` and `nature_cnn` say. What goes in is what `as_input` makes of observations.

    Raises:
      UsageError: the frames are too small.
    """
    if spec.observation.frames:
        shape = spec.observation.shape
        return nature_cnn(shape, outputs, output_gain=output_gain, precision=config.precision, seed=seed, name=name)
    return mlp(
        spec.observation.shape[0],
        config.hidden,
        outputs,
        activation=config.activation,
        output_gain=output_gain,
        precision=config.precision,
        seed=seed,
        name=name,
    )


def as_input(observation: tf.Tensor) -> tf.Tensor:
    """Normalised vectors as they are; bytes of frames divided by 255, as in the deployed graph."""
    if observation.dtype != tf.uint8:
        return observation
    return tf.cast(observation, tf.float32) * np.float32(1 / 255)
