"""The networks of actor-critic algorithms that learn from vectors off policy."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from tfqrl.networks.mlp import mlp
from tfqrl.training.config import ActorCriticConfig


def actor(config: ActorCriticConfig, spec: PolicySpec) -> keras.Sequential:
    """From normalised observations to actions in [-1, 1]: (batch, inputs) -> (batch, actions)."""
    network = _mlp(config, config.hidden, spec.observation.shape[0], spec.action.shape[0], 0, "policy", "tanh")
    return network if config.compress is None else config.compress.wrap(network, "tanh", config.seed)


def gaussian_actor(config: ActorCriticConfig, spec: PolicySpec) -> keras.Sequential:
    """From normalised observations to means and log-deviations of what a tanh makes actions: (batch, 2 * actions)."""
    network = _mlp(config, config.hidden, spec.observation.shape[0], 2 * spec.action.shape[0], 0, "policy", "linear")
    return network if config.compress is None else config.compress.wrap(network, "before tanh", config.seed)


def critic(config: ActorCriticConfig, spec: PolicySpec, number: int = 0, outputs: int = 1) -> keras.Sequential:
    """From observation and action, side by side, to values; critics of another `number` begin with other weights."""
    inputs = spec.observation.shape[0] + spec.action.shape[0]
    hidden = config.critic_hidden or config.hidden
    return _mlp(config, hidden, inputs, outputs, 1000 * (number + 1), f"critic_{number}", "linear")


def q_value(critic: keras.Sequential, observation: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """A critic's value of (batch, inputs) observations and (batch, actions) actions: (batch,)."""
    return critic(tf.concat([observation, action], axis=-1))[:, 0]


def _mlp(
    config: ActorCriticConfig,
    hidden: Sequence[int],
    inputs: int,
    outputs: int,
    seed: int,
    name: str,
    output_activation: str,
) -> keras.Sequential:
    return mlp(
        inputs,
        hidden,
        outputs,
        activation=config.activation,
        output_activation=output_activation,
        output_gain=None,
        precision=config.precision,
        seed=config.seed + seed,
        name=name,
    )
