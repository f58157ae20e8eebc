"""Policy-gradient losses."""

from __future__ import annotations

import tensorflow as tf


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
    ratio = tf.exp(log_prob - old_log_prob)
    clipped = tf.clip_by_value(ratio, 1.0 - clip_range, 1.0 + clip_range)
    return -tf.reduce_mean(tf.minimum(ratio * advantage, clipped * advantage))
