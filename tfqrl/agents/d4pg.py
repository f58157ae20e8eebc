"""Distributed distributional deterministic policy gradient (Barth-Maron et al. 2018, arXiv 1804.08617).

For Box actions; here with one actor: many actors are the business of ActorQ.

Read it from the top: configuration, the networks, `_update`, which is one gradient step (algorithm 1 of the paper).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from edge.artifact import PolicySpec
from edge.errors import UsageError
from tfqrl.exploration import AddedNoise, Explorer
from tfqrl.losses import (
    categorical_cross_entropy,
    categorical_mean,
    categorical_support,
    categorical_td_target,
    deterministic_policy_gradient,
)
from tfqrl.networks import HostNetwork, actor, as_trained, critic, regularization, update_target
from tfqrl.replay import Transitions
from tfqrl.training.checks import needs_bounded_actions
from tfqrl.training.config import ActorCriticConfig, above, at_least, within_unit
from tfqrl.training.optimizers import adam, descend
from tfqrl.training.scan import scan

Array = npt.NDArray[Any]

METRICS = ("critic_loss", "policy_loss", "q")


@dataclass(frozen=True)
class D4PGConfig(ActorCriticConfig):
    """Distributed distributional deterministic policy gradient.

    Attributes:
      policy_learning_rate: step size of Adam for the policy.
      critic_learning_rate: step size of Adam for the critic.
      exploration_noise: standard deviation of what is added to actions in training; actions span -1 to 1.
      tau: how far the targets move at each update.
      atoms: returns that the critic gives a probability each.
      v_min: the lowest of them.
      v_max: the highest.
    """

    policy_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    exploration_noise: float = 0.1
    tau: float = 0.005
    n_step: int = 5
    atoms: int = 51
    v_min: float = -150.0
    v_max: float = 150.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        above(self, 0, "policy_learning_rate", "critic_learning_rate", "tau")
        within_unit(self, "tau")
        at_least(self, 0, "exploration_noise")
        at_least(self, 2, "atoms")
        if not self.v_min < self.v_max:
            raise UsageError(f"--v-min must be below --v-max; they were given {self.v_min} and {self.v_max}.")


class D4PG:
    """Networks, optimisers, and the update."""

    check = functools.partial(needs_bounded_actions, "d4pg")
    network = staticmethod(actor)
    deployed = staticmethod(as_trained)

    def __init__(self, config: D4PGConfig, spec: PolicySpec) -> None:
        """Networks for `spec`, initialised from the configuration's seed."""
        self.config = config
        self.policy, self.target_policy = (self.network(config, spec) for _ in range(2))
        self.critic, self.target_critic = (critic(config, spec, outputs=config.atoms) for _ in range(2))
        self.support = categorical_support(config.v_min, config.v_max, config.atoms)
        self.policy_optimizer = adam(config.policy_learning_rate, self.policy.trainable_variables)
        self.critic_optimizer = adam(config.critic_learning_rate, self.critic.variables)
        self.variables = {
            "policy": self.policy.variables,
            "target_policy": self.target_policy.variables,
            "critic": self.critic.variables,
            "target_critic": self.target_critic.variables,
            "policy_optimizer": self.policy_optimizer.variables,
            "critic_optimizer": self.critic_optimizer.variables,
        }
        self.acting = HostNetwork(self.policy)

    def explorer(self, steps: int) -> Explorer:
        """What is done in training after so many steps."""
        # Uncorrelated noise, as the actors of algorithm 1 have it.
        return AddedNoise(self.config.exploration_noise)

    def refresh(self) -> None:
        """Let what acts take over the policy's weights."""
        self.acting.refresh()

    def update(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """One gradient step on each of the batches, (updates, batch, ...); means of METRICS."""
        return self._updates(batch.observation, batch.action, batch.reward, batch.discount, batch.next_observation)

    @tf.function(jit_compile=True)
    def _updates(self, *batches: tf.Tensor) -> dict[str, tf.Tensor]:
        return scan(self._update, batches, METRICS)

    def _update(
        self, o_tm1: tf.Tensor, a_tm1: tf.Tensor, r_t: tf.Tensor, discount_t: tf.Tensor, o_t: tf.Tensor
    ) -> Sequence[tf.Tensor]:
        # Critic: the distributional Bellman operator (eq. 4), projected, as the target of a cross-entropy (section 3).
        logits_t = self.target_critic(tf.concat([o_t, self.target_policy(o_t)], axis=-1))
        target = categorical_td_target(r_t, discount_t, logits_t, self.support)
        with tf.GradientTape() as tape:
            logits_tm1 = self.critic(tf.concat([o_tm1, a_tm1], axis=-1))
            critic_loss = tf.reduce_mean(categorical_cross_entropy(logits_tm1, target))
        descend(self.critic_optimizer, tape, critic_loss, self.critic.variables)

        # Policy: eq. 5, the gradient of the expected return.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.policy.trainable_variables)
            logits = self.critic(tf.concat([o_tm1, self.policy(o_tm1, training=True)], axis=-1))
            q = categorical_mean(logits, self.support)
            policy_loss = deterministic_policy_gradient(q)
            objective = policy_loss + regularization(self.policy)
        descend(self.policy_optimizer, tape, objective, self.policy.trainable_variables)

        update_target(self.target_policy.variables, self.policy.variables, self.config.tau)
        update_target(self.target_critic.variables, self.critic.variables, self.config.tau)
        return critic_loss, policy_loss, tf.reduce_mean(categorical_mean(logits_tm1, self.support))
