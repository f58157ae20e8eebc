"""The bits that noise leaves a weight, and the grid that they are on."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hypothesis import given
from hypothesis import strategies as st

from converters.emulation import Widths
from converters.quantizers import config_of, switch_of
from tfqrl.compress.bayesian.layers import RATE
from tfqrl.compress.bayesian.uvnq import Uniform, bits_of, integers_of, threshold
from tfqrl.compress.bayesian.variational import log_uniform, variational


def test_the_published_constants() -> None:
    # github.com/Cerphilly/UVNQ_tf2, for beta 1.5: the lower bounds of log alpha for N bits.
    assert threshold(1.5) == 0.75
    for bits, bound in ((3, -4.447), (4, -5.833), (5, -7.219), (6, -8.605)):
        assert math.log(threshold(1.5) / 4**bits) == pytest.approx(bound, abs=1e-3)


def test_bits_of_alphas_by_hand() -> None:
    # T = 0.75: nothing above it; one bit down to 0.1875, two to 0.046875, three to 0.01171875, then four.
    alpha = np.array([100.0, 0.76, 0.74, 0.19, 0.18, 0.05, 0.04, 0.012, 0.011, 1e-6])
    assert bits_of(np.log(alpha), 4, 1.5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert bits_of(np.log(alpha), 2, 1.5).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]


def test_values_of_weights_by_hand() -> None:
    theta = np.array([0.9, 0.9, 0.9, 0.9, -0.1, -0.1, 0.34, 0.34, 5.0])
    bits = np.array([0, 1, 2, 4, 1, 2, 3, 4, 3], np.int8)
    # Steps of 0.1; three bits go by twos up to 6, two by fours, and one is a sign of 4.
    assert integers_of(theta, 0.1, bits, 4).tolist() == [0, 4, 4, 7, -4, 0, 4, 3, 6]


@given(st.integers(2, 8), st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.integers(0, 2**31))
def test_quantising_again_changes_nothing(max_bits: int, theta: list[float], seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, max_bits + 1, len(theta)).astype(np.int8)
    once = integers_of(np.array(theta), 0.1, bits, max_bits)
    np.testing.assert_array_equal(integers_of(once * 0.1, 0.1, bits, max_bits), once)
    assert (np.abs(once.astype(int)) < 2 ** (max_bits - 1)).all()
    for n in range(1, max_bits + 1):
        assert len(set(once[bits == n].tolist())) <= 2**n


@pytest.fixture
def network() -> keras.Sequential:
    plain = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu", name="a"), keras.layers.Dense(2, name="b")]
    )
    made = variational(
        plain, Widths(), "clipped", log_uniform, lambda switch, layer: Uniform(switch, layer, max_bits=4, beta=1.5)
    )
    rng = np.random.default_rng(0)
    for layer in (made.layers[1].layer, made.layers[2].layer):
        layer.scaled_log_variance.assign(rng.uniform(-10, 0, layer.theta.shape) / RATE)
    return made


def test_what_is_computed_on_the_grid_is_what_numpy_makes_of_it(network: keras.Sequential) -> None:
    first = config_of(network.layers[1]).kernel
    theta = network.layers[1].layer.theta.numpy()
    would_be = first.deployed(theta)
    first.fit(theta)
    switch_of(network).variable.assign(1.0)
    np.testing.assert_array_equal(first(tf.constant(theta), None, None), first.integers(theta) * first.scale().numpy())
    # `fit` keeps what was deployed before it.
    np.testing.assert_allclose(first.integers(theta) * first.scale().numpy(), would_be, rtol=1e-6)
    assert set(first.bits().ravel().tolist()) == {0, 1, 2, 3, 4}


def test_rounding_lets_gradients_through_where_bits_are_left(network: keras.Sequential) -> None:
    first = config_of(network.layers[1]).kernel
    theta = network.layers[1].layer.theta
    first.fit(theta.numpy())
    switch_of(network).variable.assign(1.0)
    first.set_scale(1.0)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(first(theta, None, None))
    gradient = tape.gradient(total, theta).numpy()
    np.testing.assert_array_equal(gradient, np.where(first.bits() > 0, 1.0, 0.0))
