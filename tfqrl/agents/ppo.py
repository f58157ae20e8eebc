"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347), for Box and Discrete actions.

Read it from the top: configuration, the networks, `_update` with its gradient steps.
Details follow "The 37 Implementation Details of PPO" (Huang et al. 2022) with two deviations: the observation
normaliser is fixed during a rollout (see training/on_policy.py); and values and probabilities of a rollout are computed
in one batch when it is complete, since acting needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge.artifact import PolicySpec
from edge.errors import UsageError
from tfqrl.exploration import Explorer
from tfqrl.losses import clipped_surrogate, generalized_advantages
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
from tfqrl.training.config import OnPolicyConfig, above, at_least
from tfqrl.training.on_policy import Rollout
from tfqrl.training.optimizers import adam
from tfqrl.training.scan import compiled, scan

Array = npt.NDArray[Any]

# What a gradient step reports, in this order.
METRICS = ("policy_loss", "value_loss", "entropy", "approximate_kl", "clip_fraction")


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Proximal policy optimisation.

    Attributes:
      epochs: passes over each rollout.
      batch_size: transitions in a gradient step.
      clip_range: epsilon of the clipped surrogate.
    """

    epochs: int = 10
    batch_size: int = 64
    clip_range: float = 0.2

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        at_least(self, 1, "epochs")
        # The advantages of a batch are normalised: of one alone, nothing would be left.
        at_least(self, 2, "batch_size")
        above(self, 0, "clip_range")
        if self.num_envs * self.rollout_steps % self.batch_size:
            raise UsageError(
                f"--batch-size {self.batch_size} must divide the rollout of {self.num_envs} x {self.rollout_steps} "
                f"= {self.num_envs * self.rollout_steps} transitions."
            )


class PPO:
    """Networks, optimiser, and the update, which is one compiled function."""

    check = staticmethod(enough_pixels)
    network = staticmethod(policy_network)
    deployed = staticmethod(as_trained)

    def __init__(self, config: PPOConfig, spec: PolicySpec) -> None:
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
        self.optimizer = adam(config.learning_rate, self.trained, epsilon=1e-5)
        self.variables = {
            "policy": self.policy.variables,
            "value": self.value.variables,
            "distribution": self.distribution.variables,
            "optimizer": self.optimizer.variables,
        }
        self.acting = acting_network(self.policy, spec)
        self._compiled = compiled(self._update, spec)

    def explorer(self, steps: int) -> Explorer:
        """What is done in training after so many steps."""
        return self.distribution.explorer()

    def refresh(self) -> None:
        """Let what acts take over the policy's weights."""
        self.acting.refresh()
        self.distribution.refresh()

    def update(self, rollout: Rollout, learning_rate: float, rng: np.random.Generator) -> dict[str, tf.Tensor]:
        """All gradient steps on one rollout; means of METRICS, and how well the values fit."""
        self.optimizer.learning_rate.assign(learning_rate)
        transitions = rollout.reward.size
        permutations = [rng.permutation(transitions) for _ in range(self.config.epochs)]
        batches = np.concatenate(permutations).reshape(-1, self.config.batch_size).astype(np.int32)
        return self._compiled(
            rollout.observation,
            rollout.action,
            rollout.next_observation,
            rollout.reward,
            rollout.terminated,
            rollout.done,
            batches,
        )

    def _update(
        self,
        observation: tf.Tensor,
        action: tf.Tensor,
        next_observation: tf.Tensor,
        reward: tf.Tensor,
        terminated: tf.Tensor,
        done: tf.Tensor,
        batches: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        config = self.config
        observation, action, next_observation = (
            tf.reshape(x, (-1, *x.shape[2:])) for x in (observation, action, next_observation)
        )
        value = tf.reshape(self.value(as_input(observation)), reward.shape)
        next_value = tf.reshape(self.value(as_input(next_observation)), reward.shape)
        advantage = generalized_advantages(value, reward, next_value, terminated, done, config.gamma, config.gae_lambda)
        value_target = tf.reshape(advantage + value, (-1,))
        advantage = tf.reshape(advantage, (-1,))
        old_log_prob = self.distribution.log_prob(self.policy(as_input(observation)), action)

        def gradient_step(batch: tf.Tensor) -> Sequence[tf.Tensor]:
            rollout = (observation, action, old_log_prob, advantage, value_target)
            return self._gradient_step(*(tf.gather(x, batch) for x in rollout))

        metrics = scan(gradient_step, [batches], METRICS)
        residual = tf.math.reduce_variance(value_target - tf.reshape(value, (-1,)))
        explained = 1.0 - residual / (tf.math.reduce_variance(value_target) + 1e-8)
        return {**metrics, "explained_variance": explained}

    def _gradient_step(
        self,
        observation: tf.Tensor,
        action: tf.Tensor,
        old_log_prob: tf.Tensor,
        advantage: tf.Tensor,
        value_target: tf.Tensor,
    ) -> Sequence[tf.Tensor]:
        config = self.config
        advantage = (advantage - tf.reduce_mean(advantage)) / (tf.math.reduce_std(advantage) + 1e-8)
        with tf.GradientTape() as tape:
            output = self.policy(as_input(observation), training=True)
            log_prob = self.distribution.log_prob(output, action)
            policy_loss = clipped_surrogate(log_prob, old_log_prob, advantage, config.clip_range)
            value_loss = tf.reduce_mean((self.value(as_input(observation))[:, 0] - value_target) ** 2)
            entropy = tf.reduce_mean(self.distribution.entropy(output))
            loss = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
            loss += regularization(self.policy)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trained), config.max_gradient_norm)
        self.optimizer.apply_gradients(zip(gradients, self.trained))
        log_ratio = log_prob - old_log_prob
        # The low-variance estimator of KL(old, new): Schulman 2020, http://joschu.net/blog/kl-approx.html.
        approximate_kl = tf.reduce_mean(tf.exp(log_ratio) - 1.0 - log_ratio)
        clipped = tf.reduce_mean(tf.cast(tf.abs(tf.exp(log_ratio) - 1.0) > config.clip_range, tf.float32))
        return policy_loss, value_loss, entropy, approximate_kl, clipped
