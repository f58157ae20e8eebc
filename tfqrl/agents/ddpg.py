"""Deep deterministic policy gradient (Lillicrap et al. 2015, arXiv 1509.02971), for Box actions.

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
from tfqrl.exploration import AddedNoise, Explorer
from tfqrl.losses import deterministic_policy_gradient, td_error
from tfqrl.networks import HostNetwork, actor, as_trained, critic, q_value, regularization, update_target
from tfqrl.replay import Transitions
from tfqrl.training.checks import needs_bounded_actions
from tfqrl.training.config import ActorCriticConfig, above, at_least, within_unit
from tfqrl.training.optimizers import adam, descend
from tfqrl.training.scan import scan

Array = npt.NDArray[Any]

METRICS = ("critic_loss", "policy_loss", "q")


@dataclass(frozen=True)
class DDPGConfig(ActorCriticConfig):
    """Deep deterministic policy gradient.

    Attributes:
      policy_learning_rate: step size of Adam for the policy.
      critic_learning_rate: step size of Adam for the critic.
      exploration_noise: standard deviation of what is added to actions in training; actions span -1 to 1.
      tau: how far the targets move at each update.
    """

    policy_learning_rate: float = 1e-3
    critic_learning_rate: float = 1e-3
    exploration_noise: float = 0.1
    tau: float = 0.005

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        above(self, 0, "policy_learning_rate", "critic_learning_rate", "tau")
        within_unit(self, "tau")
        at_least(self, 0, "exploration_noise")


class DDPG:
    """Networks, optimisers, and the update."""

    check = functools.partial(needs_bounded_actions, "ddpg")
    network = staticmethod(actor)
    deployed = staticmethod(as_trained)

    def __init__(self, config: DDPGConfig, spec: PolicySpec) -> None:
        """Networks for `spec`, initialised from the configuration's seed."""
        self.config = config
        self.policy, self.target_policy = (self.network(config, spec) for _ in range(2))
        self.critic, self.target_critic = (critic(config, spec) for _ in range(2))
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
        # Uncorrelated noise: the paper's Ornstein-Uhlenbeck process brings nothing (Fujimoto et al. 2018, section 6.1).
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
        # Critic: eq. 5.
        q_t = q_value(self.target_critic, o_t, self.target_policy(o_t))
        with tf.GradientTape() as tape:
            q_tm1 = q_value(self.critic, o_tm1, a_tm1)
            critic_loss = tf.reduce_mean(td_error(q_tm1, r_t, discount_t, q_t) ** 2)
        descend(self.critic_optimizer, tape, critic_loss, self.critic.variables)

        # Policy: eq. 6.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.policy.trainable_variables)
            action = self.policy(o_tm1, training=True)
            policy_loss = deterministic_policy_gradient(q_value(self.critic, o_tm1, action))
            objective = policy_loss + regularization(self.policy)
        descend(self.policy_optimizer, tape, objective, self.policy.trainable_variables)

        update_target(self.target_policy.variables, self.policy.variables, self.config.tau)
        update_target(self.target_critic.variables, self.critic.variables, self.config.tau)
        return critic_loss, policy_loss, tf.reduce_mean(q_tm1)
