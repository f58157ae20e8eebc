"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv 1802.09477), for Box actions.

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
from tfqrl.losses import clipped_double_q, deterministic_policy_gradient, td_error
from tfqrl.networks import HostNetwork, actor, as_trained, critic, q_value, regularization, update_target
from tfqrl.replay import Transitions
from tfqrl.training.checks import needs_bounded_actions
from tfqrl.training.config import ActorCriticConfig, above, at_least, within_unit
from tfqrl.training.optimizers import adam, descend
from tfqrl.training.scan import scan

Array = npt.NDArray[Any]

METRICS = ("critic_loss", "policy_loss", "q")


@dataclass(frozen=True)
class TD3Config(ActorCriticConfig):
    """Twin delayed deep deterministic policy gradient.

    Attributes:
      policy_learning_rate: step size of Adam for the policy.
      critic_learning_rate: step size of Adam for the critics.
      exploration_noise: standard deviation of what is added to actions in training; actions span -1 to 1.
      target_noise: standard deviation of what is added to the target policy's actions.
      target_noise_clip: bound of that.
      policy_delay: critic updates for each update of the policy and of the targets.
      tau: how far the targets move at each of their updates.
    """

    policy_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    exploration_noise: float = 0.1
    target_noise: float = 0.2
    target_noise_clip: float = 0.5
    policy_delay: int = 2
    tau: float = 0.005

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        above(self, 0, "policy_learning_rate", "critic_learning_rate", "tau")
        within_unit(self, "tau")
        at_least(self, 0, "exploration_noise", "target_noise", "target_noise_clip")
        at_least(self, 1, "policy_delay")


class TD3:
    """Networks, optimisers, and the update."""

    check = functools.partial(needs_bounded_actions, "td3")
    network = staticmethod(actor)
    deployed = staticmethod(as_trained)

    def __init__(self, config: TD3Config, spec: PolicySpec) -> None:
        """Networks for `spec`, initialised from the configuration's seed."""
        self.config = config
        self.policy, self.target_policy = (self.network(config, spec) for _ in range(2))
        self.critics, self.target_critics = ([critic(config, spec, i) for i in range(2)] for _ in range(2))
        self.updates = tf.Variable(0)

        self.critic_variables = [v for critic in self.critics for v in critic.variables]
        self.target_critic_variables = [v for critic in self.target_critics for v in critic.variables]
        self.policy_optimizer = adam(config.policy_learning_rate, self.policy.trainable_variables)
        self.critic_optimizer = adam(config.critic_learning_rate, self.critic_variables)
        self.variables = {
            "policy": self.policy.variables,
            "target_policy": self.target_policy.variables,
            "critics": self.critic_variables,
            "target_critics": self.target_critic_variables,
            "policy_optimizer": self.policy_optimizer.variables,
            "critic_optimizer": self.critic_optimizer.variables,
            "updates": [self.updates],
        }
        self.acting = HostNetwork(self.policy)

    def explorer(self, steps: int) -> Explorer:
        """What is done in training after so many steps."""
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
        config = self.config
        self.updates.assign_add(1)

        # Critics, towards the smaller of two targets (eq. 10) at a smoothed action (eq. 14).
        # Not the generator that XLA would take by itself, which is slower on a CPU.
        noise = tf.random.stateless_normal(a_tm1.shape, (config.seed, self.updates), alg="philox")
        noise = tf.clip_by_value(config.target_noise * noise, -config.target_noise_clip, config.target_noise_clip)
        a_t = tf.clip_by_value(self.target_policy(o_t) + noise, -1.0, 1.0)
        q_t = clipped_double_q(*(q_value(critic, o_t, a_t) for critic in self.target_critics))
        with tf.GradientTape() as tape:
            q_tm1 = [q_value(critic, o_tm1, a_tm1) for critic in self.critics]
            critic_loss = tf.add_n([tf.reduce_mean(td_error(q, r_t, discount_t, q_t) ** 2) for q in q_tm1])
        descend(self.critic_optimizer, tape, critic_loss, self.critic_variables)

        # Policy and targets, now and then.
        def delayed() -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self.policy.trainable_variables)
                action = self.policy(o_tm1, training=True)
                loss = deterministic_policy_gradient(q_value(self.critics[0], o_tm1, action))
                objective = loss + regularization(self.policy)
            descend(self.policy_optimizer, tape, objective, self.policy.trainable_variables)
            update_target(self.target_policy.variables, self.policy.variables, config.tau)
            update_target(self.target_critic_variables, self.critic_variables, config.tau)
            # The mean over all updates is reported.
            return loss * config.policy_delay

        policy_loss = tf.cond(self.updates % config.policy_delay == 0, delayed, lambda: 0.0)
        return critic_loss, policy_loss, tf.reduce_mean(q_tm1[0])
