import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfqrl import losses
from tfqrl.losses import (
    categorical_cross_entropy,
    categorical_l2_project,
    categorical_mean,
    categorical_support,
    categorical_td_target,
    clipped_double_q,
    clipped_surrogate,
    deterministic_policy_gradient,
    double_q_learning,
    generalized_advantages,
    huber,
    policy_gradient,
    q_learning,
    soft_policy_loss,
    soft_value,
    td_error,
    temperature_loss,
)

B = (0.3, -1.2, 2.5)
BA = ((0.3, -1.2, 2.5, 0.1), (1.5, 0.4, -0.7, 0.9), (0.0, 2.0, 1.0, -3.0))
CHOICES = (2, 0, 3)
# Every loss, with arguments that it takes: floats as here, all of them of a batch of 3.
EXAMPLES: dict[Callable[..., tf.Tensor], tuple[Any, ...]] = {
    categorical_cross_entropy: (BA, BA),
    categorical_l2_project: (BA, BA, (-1.0, 0.0, 1.0)),
    categorical_mean: (BA, (-1.0, 0.0, 1.0, 2.0)),
    categorical_td_target: (B, B, BA, (-1.0, 0.0, 1.0, 2.0)),
    clipped_double_q: (B, B),
    clipped_surrogate: (B, B, B),
    deterministic_policy_gradient: (B,),
    double_q_learning: (BA, CHOICES, B, B, BA, BA),
    generalized_advantages: (BA, BA, BA, BA, BA),
    huber: (B,),
    policy_gradient: (B, B),
    q_learning: (BA, CHOICES, B, B, BA),
    soft_policy_loss: (B, B, 0.2),
    soft_value: (B, B, 0.2),
    td_error: (B, B, B, B),
    temperature_loss: (-1.5, B),
}
SETTINGS = {clipped_surrogate: (0.2,), generalized_advantages: (0.9, 0.8), temperature_loss: (-2.0,)}
every_loss = pytest.mark.parametrize("loss", EXAMPLES, ids=lambda loss: loss.__name__)


def tensors(loss: Callable[..., tf.Tensor], dtype: tf.DType = tf.float32) -> list[tf.Tensor]:
    return [tf.constant(x, tf.int32 if x is CHOICES else dtype) for x in EXAMPLES[loss]]


def gradients(loss: Callable[..., tf.Tensor], *arguments: Any) -> list[Any]:
    """Of the sum of what `loss` gives, with respect to each argument that is a tensor of floats; None where cut off."""
    watched = [x for x in arguments if isinstance(x, tf.Tensor) and x.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        total = tf.reduce_sum(loss(*arguments))
    return [None if g is None else g.numpy() for g in tape.gradient(total, watched)]


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


def test_every_loss_is_tried_below() -> None:
    assert {loss.__name__ for loss in EXAMPLES} | {"categorical_support"} == set(losses.__all__)


@every_loss
def test_a_loss_compiles_in_xla_to_what_it_is_without(loss: Callable[..., tf.Tensor]) -> None:
    arguments, settings = tensors(loss), SETTINGS.get(loss, ())
    compiled = tf.function(lambda *x: loss(*x, *settings), jit_compile=True)
    np.testing.assert_allclose(compiled(*arguments), loss(*arguments, *settings), rtol=1e-5, atol=1e-6)


@every_loss
def test_a_loss_computes_bfloat16_in_float32(loss: Callable[..., tf.Tensor]) -> None:
    narrow, settings = tensors(loss, tf.bfloat16), SETTINGS.get(loss, ())
    widened = [tf.cast(x, tf.float32) if x.dtype.is_floating else x for x in narrow]
    result = loss(*narrow, *settings)
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, loss(*widened, *settings))


def positions(*, batch_only: bool) -> pytest.MarkDecorator:
    """Each loss with the position of each argument whose shape it checks: all but Huber's, which takes any."""
    cases = [(loss, i, x) for loss, arguments in EXAMPLES.items() for i, x in enumerate(arguments) if loss is not huber]
    if batch_only:
        # A batch of one is wrong beside another batch only.
        batch = (B, BA, CHOICES)
        cases = [(loss, i, x) for loss, i, x in cases if x in batch and sum(y in batch for y in EXAMPLES[loss]) > 1]
    return pytest.mark.parametrize(
        ("loss", "position"), [pytest.param(loss, i, id=f"{loss.__name__}-{i}") for loss, i, _ in cases]
    )


@positions(batch_only=False)
def test_a_loss_refuses_one_axis_more(loss: Callable[..., tf.Tensor], position: int) -> None:
    arguments = tensors(loss)
    arguments[position] = arguments[position][..., tf.newaxis]
    with pytest.raises(ValueError, match=r"rank|scalar"):
        loss(*arguments, *SETTINGS.get(loss, ()))


@positions(batch_only=True)
def test_a_loss_refuses_a_batch_of_one_beside_one_of_three(loss: Callable[..., tf.Tensor], position: int) -> None:
    arguments = tensors(loss)
    arguments[position] = arguments[position][:1]
    with pytest.raises(ValueError, match="dimension"):
        loss(*arguments, *SETTINGS.get(loss, ()))


def test_the_temporal_difference_error_by_hand() -> None:
    # 1 + 0.5 x 4 - 2 = 1; where nothing follows (discount 0), 3 - 1 = 2 whatever the value of what follows.
    error = td_error(tf.constant([2.0, 1.0]), tf.constant([1.0, 3.0]), tf.constant([0.5, 0.0]), tf.constant([4.0, 1e9]))
    assert error.numpy().tolist() == [1.0, 2.0]


def test_the_error_of_q_learning_by_hand() -> None:
    q_tm1, q_t = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), tf.constant([[0.0, -1.0, 4.0], [-3.0, -1.0, -2.0]])
    # 1 + 0.5 x 4 - 2 = 1, and 2 + 0.25 x -1 - 4 = -2.25.
    error = q_learning(q_tm1, tf.constant([1, 0]), tf.constant([1.0, 2.0]), tf.constant([0.5, 0.25]), q_t)
    assert error.numpy().tolist() == [1.0, -2.25]


def test_the_error_of_double_q_learning_by_hand() -> None:
    q_tm1, q_t = tf.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), tf.constant([[0.0, -1.0, 4.0], [-3.0, -1.0, -2.0]])
    selector = tf.constant([[0.0, 7.0, 1.0], [2.0, 2.0, 1.0]])
    # Chosen: the second, -1, and of equals the first, -3. 1 + 0.5 x -1 - 2 = -1.5, and 2 + 0.25 x -3 - 4 = -2.75.
    rest = (tf.constant([1, 0]), tf.constant([1.0, 2.0]), tf.constant([0.5, 0.25]))
    assert double_q_learning(q_tm1, *rest, q_t, selector).numpy().tolist() == [-1.5, -2.75]


def test_a_choice_is_made_by_the_values_as_they_are_given() -> None:
    # In bfloat16 these two would be equal.
    selector = tf.constant([[1.0, 1.001]])
    arguments = (tf.zeros((1, 2)), tf.constant([0]), tf.zeros(1), tf.ones(1), tf.constant([[5.0, 7.0]]), selector)
    assert double_q_learning(*arguments).numpy() == [7.0]


def test_the_value_of_an_action_that_was_not_taken_may_be_anything() -> None:
    q_tm1 = tf.constant([[1.0, math.inf], [math.nan, 2.0]])
    error = q_learning(q_tm1, tf.constant([0, 1]), tf.zeros(2), tf.zeros(2), tf.ones((2, 2)))
    assert error.numpy().tolist() == [-1.0, -2.0]


@pytest.mark.parametrize("loss", [td_error, q_learning, double_q_learning], ids=lambda loss: loss.__name__)
def test_only_the_prediction_of_a_temporal_difference_gets_a_gradient(loss: Callable[..., tf.Tensor]) -> None:
    prediction, *target = gradients(loss, *tensors(loss))
    assert target == [None] * len(target)
    assert prediction.sum() == -3.0
    if loss is not td_error:
        np.testing.assert_array_equal(prediction, -np.eye(4)[list(CHOICES)])


def test_the_lesser_critic_counts() -> None:
    assert clipped_double_q(tf.constant([1.0, -1.0]), tf.constant([2.0, -3.0])).numpy().tolist() == [1.0, -3.0]


def test_the_huber_loss_by_hand() -> None:
    # 0.5 x 0.5^2 = 0.125; at the corner 0.5; 1 x (3 - 0.5) = 2.5; with delta 2: 0.5 x 1 = 0.5 and 2 x (3 - 1) = 4.
    errors = tf.constant([0.0, 0.5, -1.0, -3.0])
    assert huber(errors).numpy().tolist() == [0.0, 0.125, 0.5, 2.5]
    assert huber(tf.constant([[1.0], [-3.0]]), 2.0).numpy().tolist() == [[0.5], [4.0]]


def test_the_gradient_of_the_huber_loss_is_the_clipped_error() -> None:
    (gradient,) = gradients(huber, tf.constant([-1e20, -3.0, -0.5, 0.0, 0.5, 1.5]))
    np.testing.assert_array_equal(gradient, [-1.0, -1.0, -0.5, 0.0, 0.5, 1.0])


def test_the_policy_gradient_by_hand() -> None:
    # -(-1 x 2 + -0.5 x -4) / 2 = 0; its gradient is -advantage / 2, and the advantage's none.
    log_prob, advantage = tf.constant([-1.0, -0.5]), tf.constant([2.0, -4.0])
    assert policy_gradient(log_prob, advantage).numpy() == 0.0
    of_log_prob, of_advantage = gradients(policy_gradient, log_prob, advantage)
    assert of_log_prob.tolist() == [-1.0, 2.0]
    assert of_advantage is None


def test_the_surrogates_first_gradient_is_the_policy_gradient() -> None:
    log_prob, advantage = tf.constant([-1.0, -0.5, -2.0]), tf.constant([2.0, -4.0, 1.0])
    surrogate = gradients(lambda x: clipped_surrogate(x, log_prob, advantage, 0.2), log_prob + 0.0)
    np.testing.assert_allclose(surrogate, gradients(policy_gradient, log_prob, advantage)[:1], rtol=1e-6)


def test_the_deterministic_policy_gradient_goes_through_the_critic() -> None:
    # Q = -(action - 1)^2 for action = 3: dQ/da = -4, so the loss of one gets +4 and moves the action towards 1.
    (gradient,) = gradients(lambda action: deterministic_policy_gradient(-((action - 1.0) ** 2)), tf.constant([3.0]))
    assert gradient.tolist() == [4.0]
    assert deterministic_policy_gradient(tf.constant([1.0, 4.0])).numpy() == -2.5


def test_the_soft_value_by_hand() -> None:
    # 2 - 0.5 x -3 = 3.5, 2 - 0.5 x 1 = 1.5.
    value = soft_value(tf.constant([2.0, 2.0]), tf.constant([-3.0, 1.0]), tf.constant(0.5))
    assert value.numpy().tolist() == [3.5, 1.5]


def test_the_soft_policys_loss_by_hand() -> None:
    # ((0.5 x -3 - 2) + (0.5 x 1 - 2)) / 2 = (-3.5 - 1.5) / 2 = -2.5.
    log_prob, q, temperature = tf.constant([-3.0, 1.0]), tf.constant([2.0, 2.0]), tf.constant(0.5)
    assert soft_policy_loss(log_prob, q, temperature).numpy() == -2.5
    of_log_prob, of_q, of_temperature = gradients(soft_policy_loss, log_prob, q, temperature)
    assert of_log_prob.tolist() == [0.25, 0.25]
    assert of_q.tolist() == [-0.5, -0.5]
    assert of_temperature is None


def test_the_temperatures_loss_by_hand() -> None:
    # Entropy is about 1, its target -2: too much of it. -0.5 x (-1 + -2) = 1.5; descending lowers the temperature.
    log_temperature, log_prob = tf.constant(0.5), tf.constant([-2.0, 0.0])
    assert temperature_loss(log_temperature, log_prob, -2.0).numpy() == 1.5
    of_temperature, of_log_prob = gradients(lambda *x: temperature_loss(*x, -2.0), log_temperature, log_prob)
    assert of_temperature == 3.0
    assert of_log_prob is None
    # At the target it stands still, below it (entropy -3) it rises.
    at, below = tf.constant([2.0]), tf.constant([3.0])
    assert gradients(lambda x: temperature_loss(x, at, -2.0), log_temperature) == [0.0]
    assert gradients(lambda x: temperature_loss(x, below, -2.0), log_temperature) == [-1.0]


def test_the_surrogate_survives_a_policy_that_is_far_away() -> None:
    # exp(200) is infinite in float32; where the advantage is positive the clipped ratio counts.
    loss = clipped_surrogate(tf.constant([200.0, -200.0]), tf.zeros(2), tf.constant([1.0, -1.0]), 0.2)
    assert loss.numpy() == pytest.approx(-(1.2 - 0.8) / 2)


def test_a_support_is_evenly_spaced_and_has_both_ends() -> None:
    assert categorical_support(-1.0, 2.0, 4).numpy().tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert categorical_support(-10.0, 10.0, 51).dtype == tf.float32


@pytest.mark.parametrize("bounds", [(0.0, 1.0, 1), (1.0, 1.0, 51), (1.0, -1.0, 51), (math.nan, 1.0, 51)])
def test_a_support_without_extent_is_refused(bounds: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="two atoms or more and v_min < v_max"):
        categorical_support(*bounds)
