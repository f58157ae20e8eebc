"""What variational dropout leaves of networks whose task is known."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from converters.stripping import deployable, plain
from tfqrl.compress import QABP, SVD
from tfqrl.compress.bayesian.variational import FURTHEST, GAIN, bits, sparsity, variational_layers
from tfqrl.networks import regularization

Loss = Any
NOISE = 0.5


def fitted(compress: Any, network: keras.Sequential, x: np.ndarray, y: np.ndarray, loss: Loss, steps: int) -> Any:
    """A network trained by Adam, on batches of 128, for the evidence lower bound: `loss` is a log-likelihood's."""
    wrapped = compress.wrap(network, "before tanh")
    falling = keras.optimizers.schedules.PolynomialDecay(3e-3, steps, 1e-5)
    optimizer = keras.optimizers.Adam(falling, jit_compile=False)
    optimizer.build(wrapped.trainable_variables)

    @tf.function(jit_compile=True)
    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            objective = loss(y, wrapped(x, training=True)) + regularization(wrapped)
        variables = wrapped.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(objective, variables), variables))

    rng = np.random.default_rng(0)
    for i in range(steps):
        batch = rng.integers(0, len(x), 128)
        step(tf.constant(x[batch]), tf.constant(y[batch]))
        if i % 10 == 9:
            compress.advance(wrapped, tf.constant(x[batch]), (i + 1) / steps, len(x))
    return wrapped


@pytest.mark.parametrize(("compress", "least"), [(SVD(), 0.75), (QABP(), 0.9)])
def test_inputs_that_do_not_matter_are_pruned(compress: Any, least: float) -> None:
    rng = np.random.default_rng(1)
    x = np.float32(rng.normal(size=(1000, 10)))
    y = np.float32(np.tanh(x[:, :1] - 2 * x[:, 1:2]) + NOISE * rng.normal(size=(1000, 1)))
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((10,)), keras.layers.Dense(24, "relu"), keras.layers.Dense(1)])

    def loss(y: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean((y - found) ** 2) / (2 * NOISE**2)

    wrapped = fitted(compress, network, x, y, loss, 3000)
    first, _ = bits(wrapped)
    assert (first[2:] == 0).mean() > least
    assert (first[:2] > 0).any(axis=1).all()
    deployed = deployable(wrapped)
    assert float(tf.reduce_mean((deployed(x) - y) ** 2)) < 1.1 * NOISE**2


@pytest.mark.parametrize("compress", [SVD(sparsity=0.3), QABP(sparsity=0.4), QABP(bits_per_weight=1.5)])
def test_a_controller_reaches_what_is_wished(compress: Any) -> None:
    # Most of these weights would go by themselves, if the divergence counted fully.
    rng = np.random.default_rng(1)
    x = np.float32(rng.normal(size=(1000, 10)))
    y = np.float32(np.tanh(x[:, :1] - 2 * x[:, 1:2]))
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((10,)), keras.layers.Dense(24, "relu"), keras.layers.Dense(1)])
    wrapped = fitted(compress, network, x, y, lambda y, found: tf.reduce_mean((y - found) ** 2) / (2 * NOISE**2), 2000)
    assert compress.gone(wrapped) == pytest.approx(compress.wished, abs=0.05)


def test_a_controller_turns_with_what_is_missing_and_with_the_time_that_passes() -> None:
    network = keras.Sequential([keras.Input((10,)), keras.layers.Dense(24, "relu"), keras.layers.Dense(1)])
    options = SVD(sparsity=0.8, kl_begin=0.0, kl_end=0.5)
    wrapped = options.wrap(network, "choices")
    layer = variational_layers(wrapped)[0]

    def weight(progress: float) -> float:
        options.weigh(wrapped, progress, 1000)
        return float(layer.kl_weight.numpy())

    first = weight(0.5)
    assert first == pytest.approx(math.exp(-FURTHEST / 2) / 1000, rel=1e-5)
    assert sparsity(wrapped) == 0.0
    assert weight(0.502) == pytest.approx(first * math.exp(GAIN * 0.002 * 0.8), rel=1e-3)
    assert weight(0.9) == pytest.approx(first * math.exp(GAIN * 0.002 * 0.8 + 1), rel=1e-3), "by a factor e at the most"
    before = weight(0.9)
    assert weight(0.2) == pytest.approx(before), "a resumed run with more steps goes back"
    # Everything is noise: too much is gone.
    for each in variational_layers(wrapped):
        each.set_log_variance(np.full(each.theta.shape, 5.0))
    assert weight(0.202) < before


@pytest.mark.long
def test_lenet_300_100_loses_most_of_its_first_layer_and_no_accuracy() -> None:
    # Digits of a kind: ten prototypes of strokes in the middle of 28 x 28 pixels, moved about and noisy.
    rng = np.random.default_rng(2)
    prototypes = rng.normal(size=(10, 7, 7)).repeat(2, axis=1).repeat(2, axis=2)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels, images = rng.integers(0, 10, n), np.zeros((n, 28, 28), np.float32)
        for image, label, (row, column) in zip(images, labels, rng.integers(5, 10, (n, 2))):
            image[row : row + 14, column : column + 14] = prototypes[label]
        return np.float32(images + 0.3 * rng.normal(size=images.shape)).reshape(n, -1), labels

    (x, y), (test_x, test_y) = drawn(6000), drawn(1000)
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    network = keras.Sequential([keras.Input((784,)), dense(300, "relu"), dense(100, "relu"), dense(10)])

    def loss(y: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, found))

    wrapped = fitted(SVD(), network, x, y, loss, 2500)
    left = [float((each > 0).mean()) for each in bits(wrapped)]
    assert left[0] < 0.1
    assert sum((each > 0).sum() for each in bits(wrapped)) < 0.1 * sum(each.size for each in bits(wrapped))
    assert (np.argmax(plain(wrapped)(test_x), axis=1) == test_y).mean() > 0.97
