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
from edge.errors import UnknownNameError, UsageError
from tfqrl.compress import QABP, SVD
from tfqrl.compress.bayesian.uvnq import T, Uniform, bits_of, integers_of
from tfqrl.compress.bayesian.variational import Posterior, log_uniform, variational


def test_the_published_constants() -> None:
    # github.com/Cerphilly/UVNQ_tf2: the bounds of log alpha for N bits.
    for bits, bound in ((3, -4.447), (4, -5.833), (5, -7.219), (6, -8.605)):
        assert math.log(T / 4**bits) == pytest.approx(bound, abs=1e-3)


def test_bits_of_alphas_by_hand() -> None:
    # Nothing above 0.75; one bit down to 0.1875, two to 0.046875, three to 0.01171875, then four.
    alpha = np.array([100.0, 0.76, 0.74, 0.19, 0.18, 0.05, 0.04, 0.012, 0.011, 1e-6])
    assert bits_of(np.log(alpha), 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert bits_of(np.log(alpha), 2).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]


def test_values_of_weights_by_hand() -> None:
    # In steps of 0.1. One digit: 1, 2 or 4; two: 1, 2, 3, 4, 6; three: up to 7.
    theta = np.array([0.9, 0.31, 0.31, 0.31, -0.02, 0.53, 0.53, 0.53, -5.0, -5.0])
    bits = np.array([0, 1, 2, 3, 4, 2, 3, 4, 3, 4], np.int8)
    assert integers_of(theta, 0.1, bits, 4).tolist() == [0, 4, 4, 3, 0, 4, 6, 5, -6, -7]
    assert integers_of(np.array([0.29, 0.051, 0.049]), 0.1, np.array([2, 2, 2]), 4).tolist() == [2, 1, 0]


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.integers(0, 2**31), st.integers(2, 8))
def test_quantising_again_changes_nothing(theta: list[float], seed: int, max_bits: int) -> None:
    bits = np.random.default_rng(seed).integers(0, max_bits + 1, len(theta)).astype(np.int8)
    once = integers_of(np.array(theta), 0.1, bits, max_bits)
    np.testing.assert_array_equal(integers_of(once * 0.1, 0.1, bits, max_bits), once)
    assert np.abs(once).max() < 2 ** (max_bits - 1)
    for integer, n in zip(np.abs(once).tolist(), bits.tolist()):
        digits = f"{integer:b}".strip("0")
        assert len(digits) <= max(n - 1, 1)


def test_what_fewer_bits_lose_is_about_the_noise_that_allows_them() -> None:
    theta = np.exp(np.random.default_rng(0).uniform(math.log(16), math.log(64), 50_000))
    for bits in (2, 3, 4, 5):
        error = integers_of(theta, 1.0, np.full(theta.shape, bits, np.int8), 8) / theta - 1
        # The least alpha that has so many bits, and the least that has one fewer.
        assert T / 4**bits / 2 < np.mean(error**2) < T / 4 ** (bits - 1)


def test_training_draws_what_the_step_loses_of_each_weight(network: keras.Sequential) -> None:
    layer, grid = network.layers[1].layer, config_of(network.layers[1]).kernel
    layer.set_log_variance(np.full(layer.theta.shape, -30.0))
    grid.follow()
    step = float(grid.scale())
    expected = np.maximum(step**2 / 12, math.exp(-8) * layer.theta.numpy() ** 2)
    np.testing.assert_allclose(layer.variance(), expected, rtol=1e-3)
    # What is less than a third of a step is noise by that alone.
    small = np.abs(layer.theta.numpy()) < 0.33 * step
    assert small.any()
    assert (grid.bits()[small] == 0).all()
    assert (grid.bits()[np.abs(layer.theta.numpy()) > 0.34 * step] > 0).all()


def test_a_warm_up_draws_a_part_of_what_the_step_loses(network: keras.Sequential) -> None:
    layer, grid = network.layers[1].layer, config_of(network.layers[1]).kernel
    for part, drawn in ((0.0, 0.01), (0.25, 0.25), (1.0, 1.0)):
        grid.follow(part)
        assert math.exp(layer.least_log_variance) == pytest.approx(drawn * float(grid.scale()) ** 2 / 12, rel=1e-4)


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.9])
def test_exactly_as_many_weights_go_as_are_wished_those_with_most_noise(
    network: keras.Sequential, sparsity: float
) -> None:
    layers = [network.layers[i].layer for i in (1, 2)]
    for layer in layers:
        layer.grid.follow()
    log_alpha = np.concatenate([layer.unbounded_log_alpha().ravel() for layer in layers])
    options = QABP(sparsity=sparsity)
    options.advance(network, tf.zeros((1, 6)), 0.8, 100)
    bits = np.concatenate([config_of(network.layers[i]).kernel.bits().ravel() for i in (1, 2)])
    assert (bits == 0).sum() == round(40 * sparsity)
    assert log_alpha[bits > 0].max() <= log_alpha[bits == 0].min()
    assert options.complete(network, 0.8)


def test_weights_at_a_bound_of_log_alpha_are_not_all_alike(network: keras.Sequential) -> None:
    for layer in (network.layers[i].layer for i in (1, 2)):
        layer.set_log_variance(np.full(layer.theta.shape, 12.0))
        assert (layer.log_alpha().numpy() == 8.0).all()
    QABP(sparsity=0.5).advance(network, tf.zeros((1, 6)), 0.8, 100)
    theta = np.abs(np.concatenate([network.layers[i].layer.theta.numpy().ravel() for i in (1, 2)]))
    bits = np.concatenate([config_of(network.layers[i]).kernel.bits().ravel() for i in (1, 2)])
    assert (bits == 0).sum() == 20
    assert theta[bits > 0].min() >= theta[bits == 0].max()
    assert set(bits) == {0, 2}


def test_no_more_is_wished_than_protected_layers_leave() -> None:
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="a"), keras.layers.Dense(2, name="b")])
    message = "75.0% of the weights cannot go, as b have 25.0% of them and are protected: wish for less than 75.0%"
    for options in (QABP, SVD):
        options(sparsity=0.74, protected=("b",)).wrap(plain, "choices")
        with pytest.raises(UsageError, match=message):
            options(sparsity=0.75, protected=("b",)).wrap(plain, "choices")


def test_protected_layers_lose_nothing_where_a_number_is_wished() -> None:
    network = made(Posterior(log_uniform, protected=("b",)))
    QABP(sparsity=0.5, protected=("b",)).advance(network, tf.zeros((1, 6)), 0.8, 100)
    first, last = (config_of(network.layers[i]).kernel.bits() for i in (1, 2))
    assert ((first == 0).sum(), (last == 0).sum()) == (20, 0)


def test_steps_are_those_that_lose_least_of_what_is_left(network: keras.Sequential) -> None:
    theta, grid = network.layers[1].layer.theta.numpy(), config_of(network.layers[1]).kernel
    left = theta[grid.bits() > 0]
    grid.follow()
    chosen = float(grid.scale())

    def lost(scale: float) -> float:
        return float(np.square(np.clip(np.rint(left / scale), -7, 7) * scale - left).sum())

    assert lost(chosen) <= min(lost(chosen * factor) for factor in (0.7, 0.85, 1.15, 1.3))


WEIGHTS = Posterior(log_uniform)


def made(posterior: Posterior = WEIGHTS, *, one_step: bool = False) -> keras.Sequential:
    plain = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu", name="a"), keras.layers.Dense(2, name="b")]
    )
    grids: list[Uniform] = []

    def quantizer(switch: Switch, layer: Any) -> Uniform:
        grids.append(Uniform(switch, layer, 4, grids if one_step else None))
        return grids[-1]

    made = variational(plain, Widths(), "clipped", posterior, quantizer)
    rng = np.random.default_rng(0)
    for layer in (made.layers[1].layer, made.layers[2].layer):
        layer.theta.assign(rng.normal(size=layer.theta.shape))
        # So that each number of bits is there.
        if not posterior.neurons:
            layer.set_log_variance(np.log(layer.theta.numpy() ** 2) + rng.uniform(-8, 2, layer.theta.shape))
    return made


@pytest.fixture
def network() -> keras.Sequential:
    return made()


def test_one_step_is_that_of_all_layers() -> None:
    network = made(one_step=True)
    first, last = (config_of(network.layers[i]).kernel for i in (1, 2))
    last.follow()
    assert float(first.scale()) == float(last.scale())
    first.set_scale(0.3)
    assert float(last.scale()) == pytest.approx(0.3)
    separate = made()
    assert len(network.trainable_variables) == len(separate.trainable_variables) - 1


def test_steps_are_fitted_as_soon_as_there_is_noise() -> None:
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(2)])
    options = QABP(kl_begin=0.0)
    network = options.wrap(plain, "choices")
    options.advance(network, tf.zeros((1, 6)), 0.0001, 100)
    theta, grid = network.layers[1].layer.theta.numpy(), config_of(network.layers[1]).kernel
    error = grid.deployed(theta) - theta
    assert 0 < np.sqrt(np.mean(error**2)) < 0.3 * theta.std()


def test_with_noise_of_neurons_rows_stay_whole_or_go() -> None:
    network = made(Posterior(log_uniform, neurons=True))
    layer, grid = network.layers[1].layer, config_of(network.layers[1]).kernel
    layer.set_log_variance(np.log([[0.7], [0.8], [1e-4], [0.2], [5.0], [0.01]]))
    assert grid.bits().tolist() == [[4] * 5, [0] * 5, [4] * 5, [4] * 5, [0] * 5, [4] * 5]


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
    np.testing.assert_array_equal(first.deployed(theta), theta)  # there is no noise yet
    network.layers[1].layer.noisy.assign(1.0)
    first.follow()
    would_be = first.deployed(theta)
    first.fit(theta)
    switch_of(network).variable.assign(1.0)
    np.testing.assert_array_equal(first(tf.constant(theta), None, None), first.integers(theta) * first.scale().numpy())
    # `fit` keeps what was deployed before it.
    np.testing.assert_allclose(first.integers(theta) * first.scale().numpy(), would_be, rtol=1e-6)
    assert set(first.bits().ravel().tolist()) == {0, 2, 3, 4}


def test_rounding_lets_gradients_through_where_bits_are_left(network: keras.Sequential) -> None:
    first = config_of(network.layers[1]).kernel
    theta = network.layers[1].layer.theta
    first.fit(theta.numpy())
    switch_of(network).variable.assign(1.0)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(first(theta, None, None))
    gradient, of_scale = tape.gradient(total, [theta, first.log_scale])
    bits, steps = first.bits(), theta.numpy() / float(first.scale())
    inside = (bits > 0) & (np.abs(steps) <= 7)
    np.testing.assert_array_equal(gradient.numpy(), inside.astype(np.float32))
    assert 0 < inside.sum() < bits.size
    # LSQ (eq. 3): the rounding error where it is inside, and the last step beyond; the scale's gradient is scaled down.
    integers = first.integers(theta.numpy()).astype(np.float32)
    error = np.where(inside, integers - steps, integers)
    expected = (error * (bits > 0)).sum() * float(first.scale()) / np.sqrt(theta.numpy().size * 7)
    assert float(of_scale) == pytest.approx(expected, rel=1e-3)
