"""Losses of soft actor-critic, which values the policy's entropy (Haarnoja et al. 2018, arXiv 1812.05905)."""

from __future__ import annotations

import tensorflow as tf

from tfqrl.losses.precision import float32


def soft_value(q: tf.Tensor, log_prob: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """The value of a state, estimated by one action of the policy there (eq. 3).

    Args:
      q: (batch,) value of the action.
      log_prob: (batch,) its log-probability.
      temperature: scalar, what a nat of entropy is worth.

    Returns:
      (batch,) values; a target's `q_t`.
    """
    tf.debugging.assert_shapes([(q, ("B",)), (log_prob, ("B",))])
    tf.debugging.assert_scalar(temperature)
    q, log_prob, temperature = float32(q, log_prob, temperature)
    return q - temperature * log_prob


def soft_policy_loss(log_prob: tf.Tensor, q: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """The loss of the policy, whose actions are reparametrised: the gradient is taken through them (eq. 7, eq. 9).

    Args:
      log_prob: (batch,) log-probability of actions drawn from the policy that is trained.
      q: (batch,) value of these actions.
      temperature: scalar; it gets no gradient.

    Returns:
      scalar loss.
    """
    return -tf.reduce_mean(soft_value(q, log_prob, tf.stop_gradient(temperature)))


def temperature_loss(log_temperature: tf.Tensor, log_prob: tf.Tensor, target_entropy: float) -> tf.Tensor:
    """The loss by which the temperature finds the value at which the policy has the target entropy (eq. 18).

    The paper's loss is -temperature * (log_prob + target_entropy); like its authors' code, and what came after it,
    this has the logarithm in the temperature's place. It has the same sign and the same zero, so the same solution;
    its gradient does not shrink with the temperature, which stays positive by itself.

    Args:
      log_temperature: scalar, what is trained.
      log_prob: (batch,) log-probability of actions drawn from the policy; it gets no gradient.
      target_entropy: in nats; -(number of action elements) in the paper.

    Returns:
      scalar loss.
    """
    tf.debugging.assert_shapes([(log_prob, ("B",))])
    tf.debugging.assert_scalar(log_temperature)
    log_temperature, log_prob = float32(log_temperature, log_prob)
    return -log_temperature * tf.stop_gradient(tf.reduce_mean(log_prob) + target_entropy)
