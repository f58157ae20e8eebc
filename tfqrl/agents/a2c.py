"""Advantage actor-critic (Mnih et al. 2016, arXiv 1602.01783), for Box and Discrete actions.

Read it from the top: configuration, the networks, `_update`, which is one gradient step.
All copies of the environment are stepped together and learnt from together, where the paper has threads that learn
each for itself; nothing else is left of its asynchrony (A2C, as in OpenAI's baselines).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge.artifact import PolicySpec
from tfqrl.exploration import Explorer
from tfqrl.losses import generalized_advantages, policy_gradient
from tfqrl.networks import (
    acting_network,
    as_input,
    as_trained,
    distribution_of,
    policy_network,
    regularization,
    value_network,
)
from tfqrl.training.checks import enough_pixels
from tfqrl.training.config import OnPolicyConfig
from tfqrl.training.on_policy import Rollout
from tfqrl.training.optimizers import rmsprop
from tfqrl.training.scan import compiled

Array = npt.NDArray[Any]

# What an update reports.
METRICS = ("policy_loss", "value_loss", "entropy", "gradient_norm", "explained_variance")


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Advantage actor-critic."""

    rollout_steps: int = 5
    learning_rate: float = 7e-4
    gae_lambda: float = 1.0


class A2C:
    """Networks, optimiser, and the update, which is one compiled function."""

    check = staticmethod(enough_pixels)
    network = staticmethod(policy_network)
    deployed = staticmethod(as_trained)

    def __init__(self, config: A2CConfig, spec: PolicySpec) -> None:
        """Networks for `spec`, initialised from the configuration's seed."""
        self.config = config
        self.distribution = distribution_of(spec, config.initial_log_std)
        self.policy = self.network(config, spec)
        self.value = value_network(config, spec)
        self.trained = [
            *self.policy.trainable_variables,
            *self.value.trainable_variables,
            *self.distribution.variables,
        ]
        self.optimizer = rmsprop(config.learning_rate, self.trained)
        self.variables = {
            "policy": self.policy.variables,
            "value": self.value.variables,
            "distribution": self.distribution.variables,
            "optimizer": self.optimizer.variables,
        }
        self.acting = acting_network(self.policy, spec)
        self._update = compiled(self._gradient_step, spec)
        self._graph: Any = None

    def explorer(self, steps: int) -> Explorer:
        """What is done in training after so many steps."""
        return self.distribution.explorer()

    def refresh(self) -> None:
        """Let what acts take over the policy's weights."""
        self.acting.refresh()
        self.distribution.refresh()

    def update(self, rollout: Rollout, learning_rate: float, rng: np.random.Generator) -> dict[str, tf.Tensor]:
        """One gradient step on a rollout; METRICS."""
        arrays = (
            rollout.observation,
            rollout.action,
            rollout.next_observation,
            rollout.reward,
            rollout.terminated,
            rollout.done,
            np.float32(learning_rate),
        )
        tensors = [tf.convert_to_tensor(array) for array in arrays]
        if self._graph is None:
            # Looking up which of its graphs fits the arguments takes tf.function as long as a gradient step.
            self._graph = self._update.get_concrete_function(*tensors)
        return self._graph(*tensors)

    def _gradient_step(
        self,
        observation: tf.Tensor,
        action: tf.Tensor,
        next_observation: tf.Tensor,
        reward: tf.Tensor,
        terminated: tf.Tensor,
        done: tf.Tensor,
        learning_rate: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        config = self.config
        observation, action, next_observation = (
            tf.reshape(x, (-1, *x.shape[2:])) for x in (observation, action, next_observation)
        )
        next_value = tf.reshape(self.value(as_input(next_observation)), reward.shape)
        with tf.GradientTape() as tape:
            value = self.value(as_input(observation))[:, 0]
            # With lambda 1 that of algorithm S3: rewards to the rollout's end, and the value of what follows, less the
            # value.
            old_value = tf.reshape(tf.stop_gradient(value), reward.shape)
            advantage = generalized_advantages(
                old_value, reward, next_value, terminated, done, config.gamma, config.gae_lambda
            )
            value_target = tf.reshape(advantage + old_value, (-1,))
            output = self.policy(as_input(observation), training=True)
            policy_loss = policy_gradient(self.distribution.log_prob(output, action), tf.reshape(advantage, (-1,)))
            value_loss = tf.reduce_mean((value - value_target) ** 2)
            entropy = tf.reduce_mean(self.distribution.entropy(output))
            loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
            loss += regularization(self.policy)
        gradients, norm = tf.clip_by_global_norm(tape.gradient(loss, self.trained), config.max_gradient_norm)
        self.optimizer.learning_rate.assign(learning_rate)
        self.optimizer.apply_gradients(zip(gradients, self.trained))
        residual = tf.math.reduce_variance(value_target - value)
        explained = 1.0 - residual / (tf.math.reduce_variance(value_target) + 1e-8)
        return dict(zip(METRICS, (policy_loss, value_loss, entropy, norm, explained)))
