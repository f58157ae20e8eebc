import math

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfqrl.losses import (
    categorical_cross_entropy,
    categorical_l2_project,
    categorical_mean,
    categorical_support,
    categorical_td_target,
)

FloatArray = npt.NDArray[np.float64]
SUPPORT = categorical_support(-1.0, 1.0, 5)  # -1, -0.5, 0, 0.5, 1


def project(support_t: list[float], probs_t: list[float]) -> FloatArray:
    return categorical_l2_project(tf.constant([support_t]), tf.constant([probs_t]), SUPPORT).numpy()[0]


def logits(*probs: float) -> tf.Tensor:
    return tf.math.log(tf.constant([probs]))


def algorithm_1(r: float, gamma: float, p: FloatArray, v_min: float, v_max: float) -> FloatArray:
    """Bellemare et al. 2017, word for word, but for one thing: where b is a whole number, l = u, and as it stands there
    the algorithm loses p_j."""
    n = len(p)
    delta_z = (v_max - v_min) / (n - 1)
    m = np.zeros(n)
    for j in range(n):
        tz = min(max(r + gamma * (v_min + j * delta_z), v_min), v_max)
        b = min(max((tz - v_min) / delta_z, 0.0), n - 1.0)
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            m[lower] += p[j]
        else:
            m[lower] += p[j] * (upper - b)
            m[upper] += p[j] * (b - lower)
    return m


@settings(deadline=None)
@given(
    probs=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12).filter(lambda p: sum(p) > 0.1),
    reward=st.floats(-30.0, 30.0),
    discount=st.one_of(st.just(0.0), st.just(1.0), st.floats(0.0, 1.0)),
    v_min=st.floats(-20.0, 5.0),
    extent=st.floats(0.5, 50.0),
)
def test_the_projection_is_that_of_the_paper(
    probs: list[float], reward: float, discount: float, v_min: float, extent: float
) -> None:
    p = np.array(probs) / np.sum(probs)
    # What float32 makes of the numbers is what both get.
    reward, discount, v_min, v_max = (float(np.float32(x)) for x in (reward, discount, v_min, v_min + extent))
    support = categorical_support(v_min, v_max, len(p))
    support_t = tf.constant([[reward + discount * float(z) for z in np.linspace(v_min, v_max, len(p))]], tf.float32)
    projected = categorical_l2_project(support_t, tf.constant([p], tf.float32), support)
    np.testing.assert_allclose(projected[0], algorithm_1(reward, discount, p, v_min, v_max), atol=2e-4)
    np.testing.assert_allclose(np.sum(projected), 1.0, rtol=1e-6)


def test_a_projection_by_hand() -> None:
    # 0.1 lies 0.2 of the way from 0 to 0.5, -0.6 lies 0.8 of the way from -1 to -0.5.
    expected = [0.25 * 0.2, 0.25 * 0.8, 0.75 * 0.8, 0.75 * 0.2, 0.0]
    np.testing.assert_allclose(project([0.1, -0.6], [0.75, 0.25]), expected, atol=1e-6)


def test_mass_on_an_atom_stays_there() -> None:
    for i, atom in enumerate([-1.0, -0.5, 0.0, 0.5, 1.0]):
        assert project([atom, 0.0], [1.0, 0.0]).tolist() == np.eye(5)[i].tolist()


def test_mass_beyond_the_ends_goes_to_them() -> None:
    assert project([-1.25, 1e30, -1e30], [0.25, 0.5, 0.25]).tolist() == [0.5, 0.0, 0.0, 0.0, 0.5]


def test_a_projection_keeps_the_mean_of_what_lies_within() -> None:
    rng = np.random.default_rng(0)
    support = categorical_support(-10.0, 10.0, 51)
    support_t, probs_t = rng.uniform(-10, 10, (256, 51)), rng.dirichlet(np.ones(51), 256)
    projected = categorical_l2_project(tf.constant(support_t), tf.constant(probs_t), support)
    np.testing.assert_allclose(np.sum(projected, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(projected @ support[:, tf.newaxis], (support_t * probs_t).sum(1)[:, None], atol=1e-5)


def test_a_reward_that_is_not_a_number_does_not_become_one() -> None:
    target = categorical_td_target(tf.constant([math.nan]), tf.ones(1), tf.zeros((1, 5)), SUPPORT)
    assert np.isnan(target).all()


def test_the_target_by_hand() -> None:
    # Reward 0.5, discount 0.5: the atoms go to 0, 0.25, 0.5, 0.75, 1. Half of what is at 0.25 goes to 0 and half to
    # 0.5, and so on. 0: 0.1 + 0.1, 0.5: 0.1 + 0.4 + 0.05, 1: 0.05 + 0.2.
    target = categorical_td_target(tf.constant([0.5]), tf.constant([0.5]), logits(0.1, 0.2, 0.4, 0.1, 0.2), SUPPORT)
    np.testing.assert_allclose(target, [[0.0, 0.0, 0.2, 0.55, 0.25]], atol=1e-6)


def test_where_nothing_follows_the_target_is_the_reward() -> None:
    # 0.6 lies 0.2 of the way from 0.5 to 1.
    target = categorical_td_target(tf.constant([0.6]), tf.constant([0.0]), logits(0.1, 0.2, 0.4, 0.1, 0.2), SUPPORT)
    np.testing.assert_allclose(target, [[0.0, 0.0, 0.0, 0.8, 0.2]], atol=1e-6)


def test_without_reward_and_discounting_the_target_is_the_distribution_itself() -> None:
    probs = [0.1, 0.2, 0.4, 0.1, 0.2]
    target = categorical_td_target(tf.constant([0.0]), tf.constant([1.0]), logits(*probs), SUPPORT)
    np.testing.assert_allclose(target, [probs], atol=1e-6)


def test_the_mean_by_hand() -> None:
    # 0.1 x -1 + 0.2 x -0.5 + 0.1 x 0.5 + 0.2 x 1 = 0.05.
    mean = categorical_mean(logits(0.1, 0.2, 0.4, 0.1, 0.2), SUPPORT)
    assert mean.numpy() == pytest.approx([0.05], abs=1e-6)


def test_the_cross_entropy_by_hand() -> None:
    # -(0.5 log 0.25 + 0.5 log 0.5) = 1.5 log 2.
    loss = categorical_cross_entropy(logits(0.25, 0.5, 0.25), tf.constant([[0.5, 0.5, 0.0]]))
    assert loss.numpy() == pytest.approx([1.5 * math.log(2.0)])


def test_the_cross_entropy_of_logits_that_are_far_apart_is_finite() -> None:
    loss = categorical_cross_entropy(tf.constant([[1000.0, -1000.0]]), tf.constant([[0.5, 0.5]]))
    assert loss.numpy() == [1000.0]


def test_the_gradient_moves_the_prediction_to_the_target_and_not_the_other_way() -> None:
    logits_tm1, logits_t = logits(0.25, 0.25, 0.5), logits(0.5, 0.25, 0.25)
    support = categorical_support(-1.0, 1.0, 3)
    with tf.GradientTape() as tape:
        tape.watch([logits_tm1, logits_t])
        target = categorical_td_target(tf.zeros(1), tf.ones(1), logits_t, support)
        loss = categorical_cross_entropy(logits_tm1, target)
    of_prediction, of_target = tape.gradient(loss, [logits_tm1, logits_t])
    # softmax - target.
    np.testing.assert_allclose(of_prediction, [[-0.25, 0.0, 0.25]], atol=1e-6)
    assert of_target is None


def test_a_prediction_gets_no_gradient_from_probabilities_given_as_its_target() -> None:
    target = tf.constant([[0.5, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(target)
        loss = categorical_cross_entropy(logits(0.25, 0.75), target)
    assert tape.gradient(loss, target) is None
