import numpy as np
import pytest
import tensorflow as tf

from tfqrl.losses import clipped_surrogate, generalized_advantages


def column(*values: float) -> tf.Tensor:
    return tf.constant(values, tf.float32)[:, tf.newaxis]


def test_generalised_advantages_by_hand() -> None:
    # delta = r + 0.5 v_t - v_tm1 = [1 + 1 - 1, 2 + 1.5 - 2, 3 + 2 - 3] = [1, 1.5, 2]; decay 0.5 x 0.8 = 0.4.
    # A_2 = 2, A_1 = 1.5 + 0.4 x 2 = 2.3, A_0 = 1 + 0.4 x 2.3 = 1.92.
    advantages = generalized_advantages(
        column(1, 2, 3), column(1, 2, 3), column(2, 3, 4), column(0, 0, 0), column(0, 0, 0), 0.5, 0.8
    )
    np.testing.assert_allclose(advantages[:, 0], [1.92, 2.3, 2.0], rtol=1e-6)


def test_termination_has_no_future_but_truncation_has() -> None:
    arguments = (column(1, 2, 3), column(1, 2, 3), column(2, 3, 4))
    # The episode ends at the second step. Terminated: delta_1 = 2 - 2 = 0. Truncated: delta_1 = 2 + 1.5 - 2 = 1.5.
    terminated = generalized_advantages(*arguments, column(0, 1, 0), column(0, 1, 0), 0.5, 0.8)
    truncated = generalized_advantages(*arguments, column(0, 0, 0), column(0, 1, 0), 0.5, 0.8)
    np.testing.assert_allclose(terminated[:, 0], [1.0, 0.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(truncated[:, 0], [1.0 + 0.4 * 1.5, 1.5, 2.0], rtol=1e-6)


def test_with_lambda_one_the_advantage_is_the_return_less_the_value() -> None:
    rng = np.random.default_rng(0)
    v, r, v_next = (rng.normal(size=(6, 3)).astype(np.float32) for _ in range(3))
    v_next[:-1] = v[1:]
    zero = np.zeros((6, 3), np.float32)
    advantages = generalized_advantages(*map(tf.constant, (v, r, v_next, zero, zero)), 0.9, 1.0)
    returns = v_next[-1]
    for t in reversed(range(6)):
        returns = r[t] + 0.9 * returns
        np.testing.assert_allclose(advantages[t], returns - v[t], rtol=1e-4, atol=1e-5)


def test_the_clipped_surrogate_by_hand() -> None:
    ratio = tf.constant([1.0, 1.5, 0.5, 1.5, 0.5])
    advantage = tf.constant([1.0, 1.0, 1.0, -1.0, -1.0])
    # min(ratio A, clip(ratio, 0.8, 1.2) A): 1, 1.2 (clipped), 0.5, -1.5, -0.8 (clipped).
    loss = clipped_surrogate(tf.math.log(ratio), tf.zeros(5), advantage, 0.2)
    assert loss.numpy() == pytest.approx(-(1.0 + 1.2 + 0.5 - 1.5 - 0.8) / 5)


def test_the_surrogates_gradient_vanishes_only_where_clipping_would_be_exceeded() -> None:
    log_ratio = tf.math.log(tf.constant([1.5, 0.5, 1.5, 0.5]))
    advantage = tf.constant([1.0, 1.0, -1.0, -1.0])
    with tf.GradientTape() as tape:
        tape.watch(log_ratio)
        loss = clipped_surrogate(log_ratio, tf.zeros(4), advantage, 0.2)
    gradient = tape.gradient(loss, log_ratio).numpy()
    np.testing.assert_allclose(gradient, [0.0, -0.5 / 4, 1.5 / 4, 0.0], atol=1e-6)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="rank"):
        clipped_surrogate(tf.zeros(4), tf.zeros((4, 1)), tf.zeros(4), 0.2)
    with pytest.raises(ValueError, match="dimension"):
        generalized_advantages(*[tf.zeros((4, 2))] * 4, tf.zeros((4, 1)), 0.9, 0.9)
