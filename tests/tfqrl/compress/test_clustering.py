import zlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from nets import filled
from tensorflow_model_optimization.python.core.clustering.keras.clustering_algorithm import ClusteringAlgorithm

from converters.stripping import computed, plain
from tfqrl.compress import Clustering
from tfqrl.compress.clustering import Lookup
from tfqrl.networks import nature_cnn


def test_kernels_become_the_nearest_of_their_centroids_once_it_begins() -> None:
    network = filled(nature_cnn((36, 36, 2), 3))
    options = Clustering(clusters=4, delay=0.5)
    wrapped = options.wrap(network, "choices")
    frames = tf.random.stateless_uniform((3, 36, 36, 2), (1, 2))
    options.advance(wrapped, frames, 0.4, 0)
    np.testing.assert_allclose(wrapped(frames), network(frames), atol=1e-5)
    assert options.metrics(wrapped) == {"clustered": 0.0}
    options.advance(wrapped, frames, 0.6, 0)
    assert options.metrics(wrapped) == {"clustered": 1.0}
    clustered = plain(wrapped)
    np.testing.assert_allclose(wrapped(frames), clustered(frames), atol=1e-5)
    for before, after in zip(computed(network), computed(clustered)):
        if before.kernel is not None and after.kernel is not None:
            values = np.unique(after.kernel)
            assert len(values) == 4
            distance = np.abs(before.kernel[..., None] - values)
            np.testing.assert_allclose(np.abs(before.kernel - after.kernel), distance.min(axis=-1), atol=1e-6)


def test_the_file_deflates_to_a_few_bits_a_weight() -> None:
    network = filled(keras.Sequential([keras.Input((64,)), *(keras.layers.Dense(n) for n in (256, 4))]))
    wrapped = Clustering(clusters=16).wrap(network, "choices")
    Clustering(clusters=16, delay=0.0).advance(wrapped, tf.zeros((1, 64)), 0.0, 0)
    kernel = plain(wrapped).layers[0].kernel.numpy()
    after = np.rint(kernel / np.abs(kernel).max() * 127).astype(np.int8)
    assert len(zlib.compress(after.tobytes(), 9)) * 8 / after.size < 4.5
    assert len(zlib.compress(kernel.tobytes(), 9)) * 8 / kernel.size < 6.5


def test_a_kernel_with_fewer_weights_than_clusters_stays_as_it_is() -> None:
    network = filled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)]))
    options = Clustering(clusters=16, delay=0.0)
    wrapped = options.wrap(network, "choices")
    options.advance(wrapped, tf.zeros((1, 4)), 0.0, 0)
    first, second = (item.kernel for item in computed(wrapped))
    assert len(np.unique(first)) == 16
    np.testing.assert_array_equal(second, network.layers[1].kernel)


@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 2, 4)])
def test_lookups_are_those_of_tfmot(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    centroids = tf.Variable(rng.standard_normal(6).astype(np.float32))  # in no order, as training leaves them
    weight, upstream = (tf.constant(rng.standard_normal(shape).astype(np.float32)) for _ in range(2))
    found = []
    for algorithm in (ClusteringAlgorithm(centroids), Lookup(centroids)):

        @tf.function
        def looked_up(weight: tf.Tensor, algorithm: ClusteringAlgorithm = algorithm) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape() as tape:
                tape.watch(weight)
                indices = algorithm.get_pulling_indices(weight)
                total = tf.reduce_sum(upstream * algorithm.get_clustered_weight(indices, weight))
            by_weight, by_centroids = tape.gradient(total, [weight, centroids])
            return indices, total, by_weight, tf.convert_to_tensor(by_centroids)

        found.append([tensor.numpy() for tensor in looked_up(weight)])
    (indices, *theirs), (ours, *mine) = found
    np.testing.assert_array_equal(ours, indices)
    for expected, values in zip(theirs, mine):
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
