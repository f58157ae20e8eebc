"""Soft actor-critic with a learned temperature (Haarnoja et al. 2018, arXiv 1812.05905), for Box actions.

Read it from the top: configuration, the networks, `_update`, which is one gradient step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from edge.errors import UsageError
from tfqrl.exploration import Explorer, SquashedNormal
from tfqrl.losses import clipped_double_q, soft_policy_loss, soft_value, td_error, temperature_loss
from tfqrl.networks import (
    HostNetwork,
    SquashedGaussian,
    actor,
    critic,
    gaussian_actor,
    q_value,
    regularization,
    update_target,
)
from tfqrl.options import optional
from tfqrl.replay import Transitions
from tfqrl.training.checks import needs_bounded_actions
from tfqrl.training.config import ActorCriticConfig, above, within_unit
from tfqrl.training.optimizers import adam, descend
from tfqrl.training.scan import scan

Array = npt.NDArray[Any]

METRICS = ("critic_loss", "policy_loss", "q", "entropy", "temperature")


@dataclass(frozen=True)
class SACConfig(ActorCriticConfig):
    """Soft actor-critic.

    Attributes:
      policy_learning_rate: step size of Adam for the policy.
      critic_learning_rate: step size of Adam for the critics.
      temperature_learning_rate: step size of Adam for the temperature.
      initial_temperature: weight of the entropy at the beginning.
      target_entropy: what the temperature is steered to, in nats (default: minus the number of actions).
      tau: how far the target critics move to the critics at each update.
    """

    policy_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4
    initial_temperature: float = 1.0
    target_entropy: Annotated[float | None, optional("NATS")] = None
    tau: float = 0.005

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        above(self, 0, "policy_learning_rate", "critic_learning_rate", "temperature_learning_rate")
        above(self, 0, "initial_temperature", "tau")
        within_unit(self, "tau")


class SAC:
    """Networks, optimisers, and the update."""

    network = staticmethod(gaussian_actor)

    @staticmethod
    def check(config: SACConfig, spec: PolicySpec) -> None:
        """Refuse environments that have no actions between bounds, and an entropy that none can have.

        Raises:
          UsageError: the one or the other.
        """
        needs_bounded_actions("sac", config, spec)
        actions = spec.action.shape[0]
        # Of the uniform distribution on [-1, 1]^actions.
        most = actions * np.log(2.0)
        if config.target_entropy is not None and config.target_entropy >= most:
            raise UsageError(
                f"--target-entropy {config.target_entropy:g} is out of reach: {actions} actions between -1 and 1 have "
                f"less than {most:.3g} nats. Leave it out for {-actions}."
            )

    def __init__(self, config: SACConfig, spec: PolicySpec) -> None:
        """Networks for `spec`, initialised from the configuration's seed."""
        self.config = config
        actions = spec.action.shape[0]
        self.policy = self.network(config, spec)
        self.critics = [critic(config, spec, i) for i in range(2)]
        self.targets = [critic(config, spec, i) for i in range(2)]
        self.distribution = SquashedGaussian()
        self.log_temperature = tf.Variable(np.float32(np.log(config.initial_temperature)))
        self.target_entropy = float(-actions if config.target_entropy is None else config.target_entropy)
        self.updates = tf.Variable(0)

        self.critic_variables = [v for critic in self.critics for v in critic.variables]
        self.target_variables = [v for target in self.targets for v in target.variables]
        self.policy_optimizer = adam(config.policy_learning_rate, self.policy.trainable_variables)
        self.critic_optimizer = adam(config.critic_learning_rate, self.critic_variables)
        self.temperature_optimizer = adam(config.temperature_learning_rate, [self.log_temperature])
        self.variables = {
            "policy": self.policy.variables,
            "critics": self.critic_variables,
            "targets": self.target_variables,
            "temperature": [self.log_temperature],
            "policy_optimizer": self.policy_optimizer.variables,
            "critic_optimizer": self.critic_optimizer.variables,
            "temperature_optimizer": self.temperature_optimizer.variables,
            "updates": [self.updates],
        }
        self.acting = HostNetwork(self.policy)

    def explorer(self, steps: int) -> Explorer:
        """What is done in training after so many steps."""
        return SquashedNormal()

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
        # Not the generator that XLA would take by itself, which is slower on a CPU.
        noise = tf.random.stateless_normal((2, *a_tm1.shape), (config.seed, self.updates), alg="philox")
        temperature = tf.exp(self.log_temperature)

        # Critics: eq. 5 and 6, with the smaller of two target critics (section 5).
        a_t, log_prob_t = self.distribution.sample_with_log_prob(self.policy(o_t), noise[0])
        q_t = clipped_double_q(*(q_value(target, o_t, a_t) for target in self.targets))
        v_t = soft_value(q_t, log_prob_t, temperature)
        with tf.GradientTape() as tape:
            q_tm1 = [q_value(critic, o_tm1, a_tm1) for critic in self.critics]
            critic_loss = tf.add_n([0.5 * tf.reduce_mean(td_error(q, r_t, discount_t, v_t) ** 2) for q in q_tm1])
        descend(self.critic_optimizer, tape, critic_loss, self.critic_variables)

        # Policy: eq. 7, by the reparametrisation of eq. 8 and 9.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.policy.trainable_variables)
            action, log_prob = self.distribution.sample_with_log_prob(self.policy(o_tm1, training=True), noise[1])
            q = clipped_double_q(*(q_value(critic, o_tm1, action) for critic in self.critics))
            policy_loss = soft_policy_loss(log_prob, q, temperature)
            objective = policy_loss + regularization(self.policy)
        descend(self.policy_optimizer, tape, objective, self.policy.trainable_variables)

        # Temperature: eq. 18.
        with tf.GradientTape() as tape:
            loss = temperature_loss(self.log_temperature, log_prob, self.target_entropy)
        descend(self.temperature_optimizer, tape, loss, [self.log_temperature])

        update_target(self.target_variables, self.critic_variables, config.tau)
        return critic_loss, policy_loss, tf.reduce_mean(q_tm1[0]), -tf.reduce_mean(log_prob), temperature

    @staticmethod
    def deployed(config: SACConfig, spec: PolicySpec, network: keras.Sequential) -> keras.Sequential:
        """The network that acts without exploring: tanh of the means, which are the first half of the outputs."""
        means = actor(config, spec)
        for variable, trained in zip(means.variables, network.variables):
            variable.assign(trained[tuple(slice(size) for size in variable.shape)])
        return means
