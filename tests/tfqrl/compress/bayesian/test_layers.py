"""Layers with normal weights, beside weights that are really drawn."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from tfqrl.compress.bayesian.layers import RATE, VariationalConv2D, VariationalDense
from tfqrl.compress.bayesian.noise import noise
from tfqrl.compress.bayesian.variational import Posterior, log_uniform

DRAWS = 4000
WEIGHTS, NEURONS = Posterior(log_uniform), Posterior(log_uniform, neurons=True)


def dense(posterior: Posterior = WEIGHTS) -> keras.Sequential:
    return keras.Sequential([keras.Input((5,)), VariationalDense(3, posterior, name="dense")])


def convolution(posterior: Posterior = WEIGHTS) -> keras.Sequential:
    return keras.Sequential([keras.Input((4, 4, 2)), VariationalConv2D(3, (3, 3), posterior, name="conv")])


def shaken(network: keras.Sequential) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Theta, sigma and bias, of which none is what it was."""
    (layer,) = network.layers
    rng = np.random.default_rng(0)
    theta, sigma = rng.normal(size=layer.theta.shape), rng.uniform(0.1, 0.5, layer.theta.shape)
    layer.theta.assign(theta)
    layer.begin()
    layer.set_log_variance(2 * np.log(sigma))
    layer.bias.assign(rng.normal(size=3))
    return theta, sigma, layer.bias.numpy()


def draws(network: keras.Sequential, x: np.ndarray) -> np.ndarray:
    """Outputs for (examples, ...) as (DRAWS, examples, ...): of one batch, since each example has noise of its own."""
    drawn = network(np.tile(x, (DRAWS, *[1] * (x.ndim - 1))), training=True).numpy()
    return drawn.reshape(DRAWS, len(x), *drawn.shape[1:])


@pytest.mark.parametrize("made", [dense, convolution])
def test_what_is_drawn_has_mean_and_variance_of_drawn_weights(made: keras.Sequential) -> None:
    network = made()
    theta, sigma, bias = shaken(network)
    x = np.float32(np.random.default_rng(1).normal(size=(2, *network.input_shape[1:])))
    drawn = draws(network, x)
    apply = tf.matmul if made is dense else lambda a, w: tf.nn.conv2d(a, w, 1, "VALID")
    rng = np.random.default_rng(2)
    true = np.stack([apply(x, np.float32(rng.normal(theta, sigma))).numpy() + bias for _ in range(DRAWS)])
    error = true.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(drawn.mean(axis=0) - true.mean(axis=0)) < 6 * error).all()
    np.testing.assert_allclose(drawn.std(axis=0), true.std(axis=0), rtol=0.08)
    # Each example has noise of its own.
    flat = drawn.reshape(DRAWS, 2, -1)
    assert abs(np.corrcoef(flat[:, 0, 0], flat[:, 1, 0])[0, 1]) < 0.08


@pytest.mark.parametrize("made", [dense, convolution])
def test_noise_of_neurons_is_that_of_all_their_weights_at_once(made: keras.Sequential) -> None:
    network = made(NEURONS)
    (layer,) = network.layers
    rng = np.random.default_rng(0)
    layer.theta.assign(rng.normal(size=layer.theta.shape))
    layer.begin()
    alpha = rng.uniform(0.05, 0.5, layer.scaled_log_variance.shape)
    layer.set_log_variance(np.log(alpha))
    x = np.float32(rng.normal(size=(2, *network.input_shape[1:])))
    drawn = draws(network, x)
    apply = tf.matmul if made is dense else lambda a, w: tf.nn.conv2d(a, w, 1, "VALID")
    z = 1 + np.sqrt(alpha) * rng.normal(size=(DRAWS, *alpha.shape))
    true = np.stack([apply(x, np.float32(layer.theta * each)).numpy() for each in z])
    error = true.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(drawn.mean(axis=0) - true.mean(axis=0)) < 6 * error).all()
    np.testing.assert_allclose(drawn.std(axis=0), true.std(axis=0), rtol=0.08)
    # What an example's outputs read in common shakes them together.
    flat, expected = drawn[:, 0].reshape(DRAWS, -1), true[:, 0].reshape(DRAWS, -1)
    np.testing.assert_allclose(np.corrcoef(flat.T), np.corrcoef(expected.T), atol=0.1)


@pytest.mark.parametrize("posterior", [WEIGHTS, NEURONS])
def test_a_kernel_that_is_drawn_whole_has_the_noise_of_its_weights(posterior: Posterior) -> None:
    network = dense(posterior)
    (layer,) = network.layers
    theta = layer.theta.numpy()
    np.testing.assert_array_equal(layer.sample(), theta)
    layer.begin()
    alpha = np.random.default_rng(0).uniform(0.05, 0.5, layer.scaled_log_variance.shape)
    layer.set_log_variance(np.log(alpha) if posterior.neurons else np.log(alpha * theta**2))
    np.testing.assert_array_equal(layer.sample(), layer.sample())
    samples = []
    for _ in range(DRAWS):
        layer._draws.assign_add(1)
        samples.append(layer.sample())
    np.testing.assert_allclose(np.mean(samples, axis=0), theta, atol=0.05)
    expected = np.broadcast_to(np.sqrt(alpha), theta.shape) * np.abs(theta)
    np.testing.assert_allclose(np.std(samples, axis=0), expected, rtol=0.08)


def test_a_protected_layer_keeps_the_least_noise_and_does_not_diverge() -> None:
    network = dense(Posterior(log_uniform, protected=("dense",)))
    (layer,) = network.layers
    layer.theta.assign(np.linspace(-1.0, 0.9, 15).reshape(5, 3))
    layer.begin()
    layer.set_log_variance(np.zeros((5, 3)))
    layer.kl_weight.assign(1.0)
    layer.least_log_variance.assign(-4.0)
    assert not network.losses
    np.testing.assert_allclose(layer.variance(), np.full((5, 3), np.exp(-4.0)), rtol=1e-2)


def test_policies_of_targets_are_drawn_where_that_is_wished() -> None:
    x = tf.ones((4, 5))
    for always in (False, True):
        network = dense(Posterior(log_uniform, always=always))
        network.layers[0].begin()
        assert (np.ptp(network(x), axis=0) > 0).any() == always


@pytest.mark.parametrize("made", [dense, convolution])
def test_without_training_it_computes_with_the_means(made: keras.Sequential) -> None:
    network = made()
    theta, _, bias = shaken(network)
    x = np.float32(np.random.default_rng(1).normal(size=(2, *network.input_shape[1:])))
    apply = tf.matmul if made is dense else lambda a, w: tf.nn.conv2d(a, w, 1, "VALID")
    for training in (None, False):
        np.testing.assert_allclose(network(x, training=training), apply(x, np.float32(theta)) + bias, rtol=1e-5)


def test_noise_begins_small_beside_the_weights_whatever_their_size() -> None:
    network = dense()
    (layer,) = network.layers
    x = tf.ones((1000, 5))
    for size in (1e-3, 10.0):
        layer.theta.assign(np.full((5, 3), size))
        assert layer.noisy.numpy() == 0
        np.testing.assert_array_equal(network(x, training=True), network(x))
        layer.begin()
        drawn = network(x, training=True).numpy()
        assert drawn.std() == pytest.approx(0.05 * size * np.sqrt(5), rel=0.1)
        layer.noisy.assign(0.0)


def test_a_weight_has_at_least_the_least_noise() -> None:
    layer = VariationalDense(1, WEIGHTS)
    network = keras.Sequential([keras.Input((1,)), layer])
    layer.theta.assign([[3.0]])
    layer.set_log_variance([[-30.0]])
    layer.least_log_variance.assign(-2.0)
    assert float(layer.variance()[0, 0]) == pytest.approx(np.exp(-2), rel=1e-5)
    layer.kl_weight.assign(1.0)
    with tf.GradientTape() as tape:
        (loss,) = network.losses
    # The way back is open.
    assert float(tape.gradient(loss, layer.scaled_log_variance)[0, 0]) < 0


def test_the_divergence_counts_once_however_often_it_is_called() -> None:
    network = dense()
    shaken(network)
    network.layers[0].kl_weight.assign(0.5)
    for _ in range(3):
        network(tf.ones((2, 5)), training=True)
    (loss,) = network.losses
    assert float(loss) == pytest.approx(0.5 * float(log_uniform(network.layers[0])))


def test_gradients_are_those_of_finite_differences() -> None:
    network = dense()
    shaken(network)
    (layer,) = network.layers
    layer.kl_weight.assign(0.1)
    x = tf.constant(np.random.default_rng(1).normal(size=(8, 5)), tf.float32)

    def loss() -> tf.Tensor:
        layer._draws.assign(7)  # the same noise each time
        return tf.reduce_mean(network(x, training=True) ** 2) + tf.add_n(network.losses)

    with tf.GradientTape() as tape:
        value = loss()
    for variable, gradient in zip(network.trainable_variables, tape.gradient(value, network.trainable_variables)):
        direction = np.float32(np.random.default_rng(3).normal(size=variable.shape))
        step = 1e-2 / np.linalg.norm(direction) / (RATE if "scaled" in variable.name else 1.0)
        kept = variable.numpy()
        variable.assign(kept + step * direction)
        above = float(loss())
        variable.assign(kept - step * direction)
        below = float(loss())
        variable.assign(kept)
        along = float(tf.reduce_sum(gradient * direction))
        assert (above - below) / (2 * step) == pytest.approx(along, rel=0.02, abs=1e-3), variable.name


def test_what_reads_zeros_alone_has_gradients() -> None:
    # The noise is then 0, and so is the root whose gradient is not.
    network = dense()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(tf.zeros((4, 5)), training=True) ** 2) + tf.add_n(network.losses)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, network.trainable_variables))


def test_noise_is_white_and_the_same_again() -> None:
    streams = np.stack(
        [noise((256, 64), stream, tf.constant(n)).numpy().ravel() for stream in (0, 1) for n in range(8)]
    )
    assert abs(streams.mean()) < 4 / np.sqrt(streams.size)
    assert streams.var() == pytest.approx(1.0, abs=0.01)
    assert (streams**4).mean() == pytest.approx(2.7, abs=0.05)
    between = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(between).max() < 5 / np.sqrt(streams.shape[1])
    for lag in (1, 2, 64, 255, 256):
        assert abs((streams[:, lag:] * streams[:, :-lag]).mean()) < 5 / np.sqrt(streams.size)
    np.testing.assert_array_equal(streams[3], noise((256, 64), 0, tf.constant(3)).numpy().ravel())


@pytest.mark.parametrize(
    "before",
    [
        "pass",
        "import os; os.environ['TF_USE_LEGACY_KERAS'] = '1'",
        "import tensorflow",
        "import tensorflow as tf; tf.keras.layers",
    ],
)
def test_tensorflow_probability_is_there_whatever_was_imported_before(before: str) -> None:
    program = f"{before}; import converters; from tfqrl.compress.bayesian.layers import VariationalDense"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
