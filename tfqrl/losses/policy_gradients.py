"""Policy-gradient losses."""

from __future__ import annotations

import tensorflow as tf

from tfqrl.losses.precision import float32


def clipped_surrogate(
    log_prob: tf.Tensor, old_log_prob: tf.Tensor, advantage: tf.Tensor, clip_range: float
) -> tf.Tensor:
    """PPO's clipped surrogate objective, negated to be minimised (Schulman et al. 2017, arXiv 1707.06347, eq. 7).

    Args:
      log_prob: (batch,) log-probability of the actions under the policy being trained.
      old_log_prob: (batch,) the same under the policy that took them.
      advantage: (batch,) advantages.
      clip_range: epsilon; how far the ratio may move before its gradient is cut off.

    Returns:
      scalar loss.
    """
    tf.debugging.assert_shapes([(log_prob, ("B",)), (old_log_prob, ("B",)), (advantage, ("B",))])
    log_prob, old_log_prob, advantage = float32(log_prob, old_log_prob, advantage)
    ratio = tf.exp(log_prob - old_log_prob)
    clipped = tf.clip_by_value(ratio, 1.0 - clip_range, 1.0 + clip_range)
    return -tf.reduce_mean(tf.minimum(ratio * advantage, clipped * advantage))


def policy_gradient(log_prob: tf.Tensor, advantage: tf.Tensor) -> tf.Tensor:
    """The advantage actor-critic's policy loss (Mnih et al. 2016, arXiv 1602.01783, section 4).

    Args:
      log_prob: (batch,) log-probability of the actions that were taken.
      advantage: (batch,) advantages; they get no gradient.

    Returns:
      scalar loss.
    """
    tf.debugging.assert_shapes([(log_prob, ("B",)), (advantage, ("B",))])
    log_prob, advantage = float32(log_prob, advantage)
    return -tf.reduce_mean(log_prob * tf.stop_gradient(advantage))


def deterministic_policy_gradient(q_t: tf.Tensor) -> tf.Tensor:
    """The loss whose gradient is the deterministic policy gradient (Lillicrap et al. 2015, arXiv 1509.02971, eq. 6).

    Args:
      q_t: (batch,) the critic's value of the policy's own actions, through which the gradient is taken.

    Returns:
      scalar loss.
    """
    tf.debugging.assert_shapes([(q_t, ("B",))])
    return -tf.reduce_mean(*float32(q_t))
