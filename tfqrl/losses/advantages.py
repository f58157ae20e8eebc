"""Estimators of the advantage."""

from __future__ import annotations

import tensorflow as tf

from tfqrl.losses.precision import float32


def generalized_advantages(
    v_tm1: tf.Tensor,
    r_t: tf.Tensor,
    v_t: tf.Tensor,
    terminated_t: tf.Tensor,
    done_t: tf.Tensor,
    gamma: float,
    lambda_: float,
) -> tf.Tensor:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16).

    Time-limit truncation ends the sum but not the future: the value of the state that the time limit cut off still
    counts (Pardo et al. 2018, arXiv 1712.00378). So `v_t` is the value of what the action led to, also where an
    episode ended there.

    With `lambda_` 1 it is the return over the rest of the rollout less the value, the advantage of A2C (Mnih et al.
    2016, arXiv 1602.01783, algorithm S3); advantage + v_tm1 is then that return.

    Args:
      v_tm1: (time, batch) value of the state acted in.
      r_t: (time, batch) reward.
      v_t: (time, batch) value of the state that the action led to.
      terminated_t: (time, batch) 1 where that state has no future.
      done_t: (time, batch) 1 where the episode ended, for whatever reason.
      gamma: discount.
      lambda_: weight of longer returns, 0..1.

    Returns:
      (time, batch) advantages.
    """
    for tensor in (v_tm1, r_t, v_t, terminated_t, done_t):
        tf.debugging.assert_shapes([(tensor, ("T", "B")), (v_tm1, ("T", "B"))])
    v_tm1, r_t, v_t, terminated_t, done_t = float32(v_tm1, r_t, v_t, terminated_t, done_t)
    delta_t = r_t + gamma * (1.0 - terminated_t) * v_t - v_tm1
    decay_t = gamma * lambda_ * (1.0 - done_t)
    return tf.scan(
        lambda advantage_t, x: x[0] + x[1] * advantage_t,
        (delta_t, decay_t),
        initializer=tf.zeros_like(delta_t[0]),
        reverse=True,
    )
