"""Values as distributions over fixed, evenly spaced atoms (Bellemare et al. 2017, arXiv 1707.06887)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfqrl.losses.precision import float32


def categorical_support(v_min: float, v_max: float, atoms: int) -> tf.Tensor:
    """The returns that the atoms stand for, (atoms,) float32: evenly spaced, both ends among them.

    Raises:
      ValueError: fewer than two atoms, or bounds that are not in order.
    """
    if atoms < 2 or not v_min < v_max:
        raise ValueError(f"A support needs two atoms or more and v_min < v_max, not {atoms} from {v_min} to {v_max}.")
    return tf.constant(np.linspace(v_min, v_max, atoms), tf.float32)


def categorical_mean(logits: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    """Expected returns: (batch, atoms) logits and (atoms,) returns -> (batch,)."""
    tf.debugging.assert_shapes([(logits, ("B", "N")), (support, ("N",))])
    logits, support = float32(logits, support)
    return tf.reduce_sum(tf.nn.softmax(logits) * support, axis=-1)


def categorical_l2_project(support_t: tf.Tensor, probs_t: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    """The projection of distributions onto the atoms of `support` (algorithm 1, in the closed form of eq. 7).

    What lies between two atoms is shared by them in proportion to its nearness, what lies beyond the ends goes to them.
    Computed as a triangular kernel, without a scatter.

    Args:
      support_t: (batch, m) returns, in any order.
      probs_t: (batch, m) their probabilities.
      support: (atoms,) returns of the atoms, evenly spaced, ascending.

    Returns:
      (batch, atoms) probabilities.
    """
    tf.debugging.assert_shapes([(support_t, ("B", "M")), (probs_t, ("B", "M")), (support, ("N",))])
    support_t, probs_t, support = float32(support_t, probs_t, support)
    atoms = support.shape[0]
    # In units of atoms, where the neighbours of b are whole numbers and their shares add up to 1 without rounding.
    b = (support_t - support[0]) * ((atoms - 1) / (support[-1] - support[0]))
    b = tf.clip_by_value(b, 0.0, atoms - 1.0)
    distance = tf.abs(b[:, :, tf.newaxis] - tf.range(atoms, dtype=tf.float32))
    return tf.reduce_sum(tf.maximum(1.0 - distance, 0.0) * probs_t[:, :, tf.newaxis], axis=1)


def categorical_td_target(r_t: tf.Tensor, discount_t: tf.Tensor, logits_t: tf.Tensor, support: tf.Tensor) -> tf.Tensor:
    """The projected distribution of r_t + discount_t * Z, Z being the return that follows; without a gradient.

    Args:
      r_t: (batch,) reward; over n steps, their discounted sum.
      discount_t: (batch,) of what follows; 0 where nothing does.
      logits_t: (batch, atoms) of the return that follows, by the target network, for the action that it would take.
      support: (atoms,) returns of the atoms.

    Returns:
      (batch, atoms) probabilities.
    """
    tf.debugging.assert_shapes([(r_t, ("B",)), (discount_t, ("B",)), (logits_t, ("B", "N")), (support, ("N",))])
    r_t, discount_t, logits_t, support = float32(r_t, discount_t, logits_t, support)
    support_t = r_t[:, tf.newaxis] + discount_t[:, tf.newaxis] * support
    return tf.stop_gradient(categorical_l2_project(support_t, tf.nn.softmax(logits_t), support))


def categorical_cross_entropy(logits_tm1: tf.Tensor, target_probs: tf.Tensor) -> tf.Tensor:
    """The loss of predicted distributions, without the target's own entropy (the last line of algorithm 1).

    Args:
      logits_tm1: (batch, atoms) predicted.
      target_probs: (batch, atoms) as of `categorical_td_target`.

    Returns:
      (batch,) cross-entropies, in nats.
    """
    tf.debugging.assert_shapes([(logits_tm1, ("B", "N")), (target_probs, ("B", "N"))])
    logits_tm1, target_probs = float32(logits_tm1, target_probs)
    return -tf.reduce_sum(tf.stop_gradient(target_probs) * tf.nn.log_softmax(logits_tm1), axis=-1)
