"""The bits that noise leaves a weight, and the grid that they are on."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from hypothesis import given
from hypothesis import strategies as st

from converters.emulation import Widths
from converters.quantizers import Switch, config_of, switch_of
from edge.errors import UnknownNameError
from tfqrl.compress import QABP
from tfqrl.compress.bayesian.uvnq import Uniform, bits_of, integers_of, threshold
from tfqrl.compress.bayesian.variational import Posterior, log_uniform, variational


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
    theta = np.array([0.9, 0.9, 0.9, 0.9, -0.02, -0.02, 0.24, 0.24, -5.0])
    bits = np.array([0, 1, 2, 4, 1, 2, 3, 4, 3], np.int8)
    # Steps of 0.1. One bit is a sign, two go to 1, three to 3 and four to 7.
    assert integers_of(theta, 0.1, bits).tolist() == [0, 1, 1, 7, -1, 0, 2, 2, -3]


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.integers(0, 2**31))
def test_quantising_again_changes_nothing(theta: list[float], seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 9, len(theta)).astype(np.int8)
    once = integers_of(np.array(theta), 0.1, bits)
    np.testing.assert_array_equal(integers_of(once * 0.1, 0.1, bits), once)
    for n in range(1, 9):
        assert len(set(once[bits == n].tolist())) <= 2**n


@pytest.mark.parametrize("max_bits", [4, 8])
def test_bits_suffice_where_noise_is_as_large_as_the_error_of_the_step(max_bits: int) -> None:
    # Weights of all sizes with one noise, that of a step's rounding: none is off by much more than half a step.
    theta = np.random.default_rng(0).normal(size=20_000)
    theta = theta[np.abs(theta) < 1.5]
    step = 2 * 1.5 * 1.0 / 2**max_bits
    bits = bits_of(np.log(step**2 / 12 / theta**2), max_bits, 1.5)
    error = np.abs(integers_of(theta, step, bits) * step - theta)
    assert error.max() < 1.01 * step
    assert np.sqrt(np.mean(error**2)) < 1.15 * step / np.sqrt(12)
    assert (np.abs(theta[bits == 0]) < 0.34 * step).all()


def made(posterior: Posterior = Posterior(log_uniform), *, one_step: bool = False) -> keras.Sequential:  # noqa: B008
    plain = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu", name="a"), keras.layers.Dense(2, name="b")]
    )
    grids: list[Uniform] = []

    def quantizer(switch: Switch, layer: Any) -> Uniform:
        grids.append(Uniform(switch, layer, 4, 1.5, grids if one_step else None))
        return grids[-1]

    made = variational(plain, Widths(), "clipped", posterior, quantizer)
    rng = np.random.default_rng(0)
    for layer in (made.layers[1].layer, made.layers[2].layer):
        # So that each number of bits is there.
        layer.set_log_variance(np.log(layer.theta.numpy() ** 2) + rng.uniform(-8, 2, layer.theta.shape))
    return made


@pytest.fixture
def network() -> keras.Sequential:
    return made()


def test_one_step_is_that_of_all_weights_that_are_left() -> None:
    network = made(one_step=True)
    first, last = (config_of(network.layers[i]).kernel for i in (1, 2))
    theta = [network.layers[i].layer.theta.numpy() for i in (1, 2)]
    left = np.concatenate([values[grid.bits() > 0] for values, grid in zip(theta, (first, last))])
    first.fit(theta[0])
    last.fit(theta[1])
    for grid in (first, last):
        assert float(grid.scale()) == pytest.approx(2 * 1.5 * np.sqrt(np.mean(left**2)) / 16, rel=1e-5)
    first.set_scale(0.3)
    assert float(last.scale()) == pytest.approx(0.3)
    separate = made()
    assert len(network.trainable_variables) == len(separate.trainable_variables) - 1


def test_bits_that_are_wished_are_counted_over_all_weights(network: keras.Sequential) -> None:
    bits = np.concatenate([config_of(network.layers[i]).kernel.bits().ravel() for i in (1, 2)])
    options = QABP(bits_per_weight=1.0)
    assert options.wished == 0.75
    assert options.gone(network) == pytest.approx(1 - bits.mean() / 4)
    assert QABP(sparsity=0.9).wished == 0.9
    assert QABP(sparsity=0.9).gone(network) == pytest.approx((bits == 0).mean())


def test_a_protected_layer_has_all_bits() -> None:
    network = made(Posterior(log_uniform, protected=("b",)))
    first, last = (config_of(network.layers[i]).kernel for i in (1, 2))
    assert (first.bits() < 4).any()
    assert (last.bits() == 4).all()
    with pytest.raises(UnknownNameError, match="c"):
        made(Posterior(log_uniform, protected=("c",)))


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
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(first(theta, None, None))
    gradient, of_scale = tape.gradient(total, [theta, first.log_scale])
    bits, steps = first.bits(), theta.numpy() / float(first.scale())
    inside = (bits > 0) & (np.abs(steps) <= np.maximum(2.0 ** (bits - 1.0) - 1, 1))
    np.testing.assert_array_equal(gradient.numpy(), inside.astype(np.float32))
    assert 0 < inside.sum() < (bits > 0).sum()
    # LSQ (eq. 3): the rounding error where it is inside, and the last step beyond; the scale's gradient is scaled down.
    error = np.where(inside, first.integers(theta.numpy()) - steps, first.integers(theta.numpy()))
    expected = (error * (bits > 0)).sum() * float(first.scale()) / np.sqrt(theta.numpy().size * 7)
    assert float(of_scale) == pytest.approx(expected, rel=1e-3)
