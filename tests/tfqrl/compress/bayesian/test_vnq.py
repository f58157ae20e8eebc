"""The codebook of one layer, by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from converters.quantizers import config_of, switch_of
from tfqrl.compress import VNQ
from tfqrl.compress.bayesian.variational import variational_layers
from tfqrl.compress.bayesian.vnq import FIRST_VALUE, FUNNEL, LEAST, Codebook

THETA = np.array([[0.25, 0.05], [-0.4, 0.9], [-0.08, 0.2]], np.float32)


@pytest.fixture
def network() -> keras.Sequential:
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "relu", name="a"), keras.layers.Dense(1)])
    plain.layers[0].set_weights([THETA, np.zeros(2)])
    return VNQ().wrap(plain, "choices")


def codebook(network: keras.Sequential) -> Codebook:
    return config_of(network.layers[1]).kernel


def test_weights_become_the_nearest_value_or_nothing_where_they_are_noise(network: keras.Sequential) -> None:
    found, (layer, *_) = codebook(network), variational_layers(network)
    found.hold()
    found._scaled.assign(math.log(0.3) / 0.01)
    assert float(found.scale()) == pytest.approx(0.3)
    layer.set_log_variance(np.full(THETA.shape, -10.0))
    expected = [[1, 0], [-1, 1], [0, 1]]
    assert found.integers(THETA).tolist() == expected
    assert found.bits().tolist() == (32 * np.abs(expected)).tolist()
    # log alpha of the second is log(20.1) + log(1), above 3.
    variance = np.full(THETA.shape, -10.0)
    variance[1, 0] = math.log(0.4**2 * 20.5)
    layer.set_log_variance(variance)
    assert found.integers(THETA).tolist() == [[1, 0], [0, 1], [0, 1]]
    np.testing.assert_array_equal(found(tf.constant(THETA), None, None), THETA)  # it is off
    switch_of(network).variable.assign(1.0)
    assert found.bits().tolist() == [[2, 0], [0, 2], [0, 2]]
    np.testing.assert_allclose(found(tf.constant(THETA), None, None), 0.3 * found.integers(THETA), rtol=1e-6)


def test_it_begins_at_the_size_of_the_weights_and_does_not_collapse(network: keras.Sequential) -> None:
    found = codebook(network)
    found.hold()
    value = FIRST_VALUE * math.sqrt(np.mean(THETA**2))
    assert float(found.scale()) == pytest.approx(value, rel=1e-4)
    found._scaled.assign(-1e4)
    assert float(found.scale()) == pytest.approx(LEAST * value, rel=1e-4)
    # It is fitted once.
    found._scaled.assign(math.log(0.5) / 0.01)
    found.hold()
    assert float(found.scale()) == pytest.approx(0.5)


def test_it_learns_a_hundredth_as_fast_as_weights(network: keras.Sequential) -> None:
    found = codebook(network)
    found.hold()
    with tf.GradientTape() as tape:
        scale = found.scale()
    assert float(tape.gradient(scale, found._scaled)) == pytest.approx(0.01 * float(scale))


def test_the_largest_weights_come_in_reach_little_by_little(network: keras.Sequential) -> None:
    found, (layer, *_) = codebook(network), variational_layers(network)
    layer.theta.assign(far := np.array([[9.0, -0.1], [-8.0, 0.1], [0.1, 0.1]], np.float32))
    found.hold(0.0)
    np.testing.assert_array_equal(layer.theta, far)
    found._scaled.assign(math.log(0.3) / 0.01)
    for _ in range(3):
        found.hold(0.5)
    np.testing.assert_allclose(layer.theta, np.clip(far, -4.5, 4.5))


def test_weights_stay_where_the_divergence_is_known(network: keras.Sequential) -> None:
    found, (layer, *_) = codebook(network), variational_layers(network)
    found.hold()
    found._scaled.assign(math.log(0.3) / 0.01)
    layer.set_log_variance(np.full(THETA.shape, -4.0))
    found.hold()
    furthest = 0.3 + FUNNEL * math.exp(-2.0)
    np.testing.assert_allclose(layer.theta, np.clip(THETA, -furthest, furthest), rtol=1e-5)
    # From -10 to 1 where the codebook is at 0.2.
    shift, wide = 2 * math.log(0.3 / 0.2), np.linspace(-20, 5, 6).reshape(3, 2)
    layer.set_log_variance(wide)
    found.hold()
    np.testing.assert_allclose(layer.log_variance, np.clip(wide, -10 + shift, 1 + shift), rtol=1e-5)
