"""Errors of value functions against their bootstrapped targets. No gradient flows into a target."""

from __future__ import annotations

import tensorflow as tf

from tfqrl.losses.precision import float32


def td_error(q_tm1: tf.Tensor, r_t: tf.Tensor, discount_t: tf.Tensor, q_t: tf.Tensor) -> tf.Tensor:
    """The temporal-difference error, target less prediction (Sutton & Barto 2018, eq. 6.5).

    Args:
      q_tm1: (batch,) value of what was done; of a state or of an action, it is the same.
      r_t: (batch,) reward; over n steps, their discounted sum.
      discount_t: (batch,) of what follows; 0 where nothing does; gamma**n after n steps.
      q_t: (batch,) value of what follows.

    Returns:
      (batch,) errors.
    """
    tf.debugging.assert_shapes([(q_tm1, ("B",)), (r_t, ("B",)), (discount_t, ("B",)), (q_t, ("B",))])
    q_tm1, r_t, discount_t, q_t = float32(q_tm1, r_t, discount_t, q_t)
    return tf.stop_gradient(r_t + discount_t * q_t) - q_tm1


def q_learning(q_tm1: tf.Tensor, a_tm1: tf.Tensor, r_t: tf.Tensor, discount_t: tf.Tensor, q_t: tf.Tensor) -> tf.Tensor:
    """The error of Q-learning, whose target is the best action's value (Mnih et al. 2015, Nature 518, algorithm 1).

    Args:
      q_tm1: (batch, actions) values in the state acted in.
      a_tm1: (batch,) integers, what was chosen.
      r_t: (batch,) reward.
      discount_t: (batch,) of what follows.
      q_t: (batch, actions) values in the state that followed, by the target network.

    Returns:
      (batch,) errors.
    """
    return double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, q_t)


def double_q_learning(
    q_tm1: tf.Tensor,
    a_tm1: tf.Tensor,
    r_t: tf.Tensor,
    discount_t: tf.Tensor,
    q_t: tf.Tensor,
    q_t_selector: tf.Tensor,
) -> tf.Tensor:
    """The error of double Q-learning: one network chooses, another judges (van Hasselt 2015, arXiv 1509.06461, eq. 4).

    Args:
      q_tm1: (batch, actions) values in the state acted in.
      a_tm1: (batch,) integers, what was chosen.
      r_t: (batch,) reward.
      discount_t: (batch,) of what follows.
      q_t: (batch, actions) values in the state that followed, by the target network.
      q_t_selector: (batch, actions) the same by the network that is trained, to choose by; of equals the first.

    Returns:
      (batch,) errors.
    """
    batch_by_actions = [(q, ("B", "A")) for q in (q_tm1, q_t, q_t_selector)]
    tf.debugging.assert_shapes([*batch_by_actions, (a_tm1, ("B",)), (r_t, ("B",)), (discount_t, ("B",))])
    q_tm1, q_t = float32(q_tm1, q_t)
    best = tf.argmax(q_t_selector, axis=-1, output_type=tf.int32)
    return td_error(_chosen(q_tm1, a_tm1), r_t, discount_t, _chosen(q_t, best))


def _chosen(q: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    # A sum with zeros: the gradient of a gather is a scatter, which XLA runs one element after another on a CPU.
    return tf.reduce_sum(tf.where(tf.one_hot(action, q.shape[1], on_value=True, off_value=False), q, 0.0), axis=-1)


def clipped_double_q(q1_t: tf.Tensor, q2_t: tf.Tensor) -> tf.Tensor:
    """The lesser of two critics' values, (batch,) each, for targets (Fujimoto 2018, arXiv 1802.09477, eq. 10)."""
    tf.debugging.assert_shapes([(q1_t, ("B",)), (q2_t, ("B",))])
    return tf.minimum(*float32(q1_t, q2_t))


def huber(error: tf.Tensor, delta: float = 1.0) -> tf.Tensor:
    """Half the square up to `delta`, linear beyond, element by element (Huber 1964, Ann. Math. Statist. 35).

    Its gradient is the error clipped to -delta..delta, which is how Mnih et al. 2015 put it.
    """
    (error,) = float32(error)
    size = tf.abs(error)
    within = tf.minimum(size, delta)
    return within * (size - 0.5 * within)
