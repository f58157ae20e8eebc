"""Deep Q-learning (Mnih et al. 2015, Nature 518), for Discrete actions, from vectors or frames.

Options: double Q-learning (van Hasselt et al. 2015, arXiv 1509.06461), dueling networks (Wang et al. 2015, arXiv
1511.06581), returns of n steps (Sutton & Barto 2018, section 7.1), prioritised replay (Schaul et al. 2015, arXiv
1511.05952). Read it from the top: configuration, the networks, `_update`, which is one gradient step.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from tfqrl.exploration import EpsilonGreedy, Explorer
from tfqrl.losses import double_q_learning, huber, q_learning
from tfqrl.networks import acting_network, as_input, as_trained, q_network, regularization, update_target
from tfqrl.replay import PrioritizedReplay, Transitions, UniformReplay
from tfqrl.training.checks import needs_choices
from tfqrl.training.config import OffPolicyConfig, above, at_least, within_unit
from tfqrl.training.optimizers import adam
from tfqrl.training.scan import compiled, scan

Array = npt.NDArray[Any]

METRICS = ("loss", "q", "mean_error")


@dataclass(frozen=True)
class DQNConfig(OffPolicyConfig):
    """Deep Q-learning.

    Attributes:
      learning_rate: step size of Adam.
      max_gradient_norm: gradients are scaled down to this norm.
      target_update_every: gradient updates between two copies of the network to the target.
      epsilon_first: probability of a random action at the beginning.
      epsilon_last: probability of a random action at the end.
      epsilon_fraction: part of `steps` over which it falls from the one to the other.
      double: let the network that is trained choose the action whose value the target network gives.
      dueling: value the state and each action's advantage in two streams.
      prioritized: draw transitions by how far off their values were.
      priority_alpha: how much that matters; 0 is not at all.
      priority_beta: how far weights make up for it; 1 is wholly.
    """

    learning_rate: float = 1e-4
    max_gradient_norm: float = 10.0
    target_update_every: int = 1000
    epsilon_first: float = 1.0
    epsilon_last: float = 0.05
    epsilon_fraction: float = 0.1
    double: bool = True
    dueling: bool = False
    prioritized: bool = False
    priority_alpha: float = 0.6
    priority_beta: float = 0.4
    update_every: int = 4
    updates_per_call: int = 8
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        above(self, 0, "learning_rate", "max_gradient_norm", "epsilon_fraction")
        at_least(self, 1, "target_update_every")
        within_unit(self, "epsilon_first", "epsilon_last", "epsilon_fraction", "priority_alpha", "priority_beta")

    def make_replay(self, spec: PolicySpec) -> UniformReplay:
        """What remembers transitions."""
        if self.prioritized:
            return PrioritizedReplay(self.replay_size, spec, self.priority_alpha, self.priority_beta)
        return super().make_replay(spec)


class DQN:
    """Networks, optimiser, and the update."""

    check = functools.partial(needs_choices, "dqn")
    deployed = staticmethod(as_trained)

    def __init__(self, config: DQNConfig, spec: PolicySpec) -> None:
        """Networks for `spec`, initialised from the configuration's seed."""
        self.config = config
        self.choices = spec.action.n
        # Called the policy because it is what acts: the choice with the largest value.
        self.policy, self.target = (self.network(config, spec) for _ in range(2))
        self.optimizer = adam(config.learning_rate, self.policy.trainable_variables)
        self.updates = tf.Variable(0)
        self.variables = {
            "policy": self.policy.variables,
            "target": self.target.variables,
            "optimizer": self.optimizer.variables,
            "updates": [self.updates],
        }
        self.acting = acting_network(self.policy, spec)
        self._updates = compiled(self._scan, spec)

    def explorer(self, steps: int) -> Explorer:
        """What is done in training after so many steps."""
        config = self.config
        passed = min(1.0, steps / (config.epsilon_fraction * config.steps))
        epsilon = config.epsilon_first + passed * (config.epsilon_last - config.epsilon_first)
        return EpsilonGreedy(epsilon, self.choices)

    def refresh(self) -> None:
        """Let what acts take over the network's weights."""
        self.acting.refresh()

    def update(self, batch: Transitions) -> dict[str, tf.Tensor]:
        """One gradient step on each of the batches, (updates, batch, ...).

        Returns:
          Means of METRICS, and "td_error", the temporal-difference error of each transition, (updates, batch).
        """
        weight = np.ones_like(batch.reward) if batch.weight is None else batch.weight
        return self._updates(
            batch.observation, batch.action, batch.reward, batch.discount, batch.next_observation, weight
        )

    def _scan(self, *batches: tf.Tensor) -> dict[str, tf.Tensor]:
        return scan(self._update, batches, (*METRICS, "td_error"))

    def _update(
        self,
        o_tm1: tf.Tensor,
        a_tm1: tf.Tensor,
        r_t: tf.Tensor,
        discount_t: tf.Tensor,
        o_t: tf.Tensor,
        weight: tf.Tensor,
    ) -> Sequence[tf.Tensor]:
        config = self.config
        self.updates.assign_add(1)
        o_tm1, o_t = as_input(o_tm1), as_input(o_t)

        q_t = self.target(o_t)
        with tf.GradientTape() as tape:
            q_tm1 = self.policy(o_tm1, training=True)
            if config.double:
                error = double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, self.policy(o_t))
            else:
                error = q_learning(q_tm1, a_tm1, r_t, discount_t, q_t)
            loss = tf.reduce_mean(weight * huber(error))
            objective = loss + regularization(self.policy)
        gradients = tape.gradient(objective, self.policy.trainable_variables)
        gradients, _ = tf.clip_by_global_norm(gradients, config.max_gradient_norm)
        self.optimizer.apply_gradients(zip(gradients, self.policy.trainable_variables))

        due = self.updates % config.target_update_every == 0
        tf.cond(due, lambda: update_target(self.target.variables, self.policy.variables, 1.0), lambda: None)
        return loss, tf.reduce_mean(q_tm1), tf.reduce_mean(tf.abs(error)), error

    @staticmethod
    def network(config: DQNConfig, spec: PolicySpec) -> keras.Sequential:
        """From observations to the value of each choice."""
        return q_network(config, spec, dueling=config.dueling)
