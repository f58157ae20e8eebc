"""Weight clustering (Han et al. 2016, arXiv 1510.00149, section 3), by TF-MOT's wrapper: a few values for all weights.

After a delay, in which it trains in float, the weights of each kernel become the nearest of a few centroids, which are
trained along with them. The critic stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras as keras
import tyro
from scipy.cluster.vq import kmeans2
from tensorflow_model_optimization.python.core.clustering.keras.cluster_config import CentroidInitialization
from tensorflow_model_optimization.python.core.clustering.keras.cluster_wrapper import ClusterWeights
from tensorflow_model_optimization.python.core.clustering.keras.clustering_algorithm import ClusteringAlgorithm

from converters.emulation import Output
from converters.quantizers import fused
from edge.errors import UsageError
from tfqrl.compress.delay import Delayed


@dataclass(frozen=True)
class Clustering(Delayed):
    """Weight clustering.

    Attributes:
      clusters: different weights in each kernel, 2 to 256.
    """

    method: tyro.conf.Suppress[Literal["cluster"]] = "cluster"
    clusters: int = 16

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        if not 2 <= self.clusters <= 256:
            raise UsageError(f"--clusters must lie in 2..256; it was given {self.clusters}.")

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        layers: list[keras.layers.Layer] = [keras.Input(network.input_shape[1:])]
        for layer in network.layers:
            clustered = type(layer) in (keras.layers.Dense, keras.layers.Conv2D) and _fits(layer, self.clusters)
            layers.append(Clustered(layer, self.clusters) if clustered else layer)
        return keras.Sequential(layers, name=network.name)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        if self.begins(progress):
            for wrapper in _wrappers(network):
                wrapper.begin()

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """See `Compressor.complete`."""
        return all(wrapper.on for wrapper in _wrappers(network))

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """Whether the weights are clustered yet, 0 or 1."""
        return {"clustered": float(all(wrapper.on for wrapper in _wrappers(network)))}


class Clustered(ClusterWeights):
    """TF-MOT's wrapper, which computes with the layer's own weights until `begin`."""

    def __init__(self, layer: keras.layers.Layer, clusters: int) -> None:
        """Wrap `layer`."""
        # They are fitted when they are needed.
        super().__init__(layer, clusters, CentroidInitialization.LINEAR)

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create what is learnt, and the switch."""
        super().build(input_shape)
        for name, algorithm in self.clustering_algorithms.items():
            self.clustering_algorithms[name] = Lookup(algorithm.cluster_centroids)
        self._switch = self.add_weight("clustered", (), initializer="zeros", trainable=False)

    @property
    def on(self) -> bool:
        """Whether it computes with clusters."""
        return bool(self._switch.numpy() > 0)

    @property
    def centroids(self) -> tf.Variable | None:
        """The values that weights have; None before `begin`."""
        return self.cluster_centroids["kernel"] if self.on else None

    def begin(self) -> None:
        """Fit the centroids to the weights, and compute with them from now on."""
        if self.on:
            return
        weights = self.original_clusterable_weights["kernel"].numpy().reshape(-1, 1)
        centroids, _ = kmeans2(weights, self.number_of_clusters, minit="++", seed=0)
        self.cluster_centroids["kernel"].assign(np.sort(centroids[:, 0]))
        self._switch.assign(1.0)

    def update_clustered_weights_associations(self) -> None:
        """Let the layer have the weights of the time."""
        super().update_clustered_weights_associations()
        own = self.original_clusterable_weights["kernel"]
        self.layer.kernel = tf.where(self._switch > 0, self.layer.kernel, own)


class Lookup(ClusteringAlgorithm):
    """TF-MOT's with SUM for the gradients of centroids, in operations that XLA does side by side on a CPU.

    Of TF-MOT's own the gradient, which scatters those of weights, is done weight by weight. Either way what it takes
    grows with the number of clusters.
    """

    def get_pulling_indices(self, weight: tf.Tensor, centroids: tf.Tensor | None = None) -> tf.Tensor:
        """The number of the centroid that is nearest to each weight."""

        def nearest(weight: tf.Tensor, centroids: tf.Tensor) -> tf.Tensor:
            order = tf.argsort(centroids)
            ordered = tf.gather(centroids, order)
            # As many centroids are below it as middles between two of them.
            middles = tf.unstack((ordered[1:] + ordered[:-1]) / 2.0)
            place = tf.add_n([tf.cast(weight > middle, tf.int32) for middle in middles])
            return tf.cast(tf.gather(order, place), tf.int64)

        given = self.cluster_centroids if centroids is None else centroids
        return fused(nearest)(tf.convert_to_tensor(weight), tf.convert_to_tensor(given))

    def get_clustered_weight(self, pulling_indices: tf.Tensor, original_weight: tf.Tensor) -> tf.Tensor:
        """The centroids of these numbers. The gradient of each goes to its centroid and to the weight itself."""
        clusters = self.cluster_centroids.shape[0]

        def of_centroids(upstream: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
            rows = tf.reshape(upstream, (-1, upstream.shape[-1]))
            numbers = tf.reshape(indices, rows.shape)
            columns = tf.stack([tf.reduce_sum(tf.where(numbers == i, rows, 0.0), axis=0) for i in range(clusters)])
            return tf.linalg.matvec(columns, tf.ones(rows.shape[-1]))

        @tf.custom_gradient
        def pulled(centroids: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                return fused(of_centroids)(upstream, pulling_indices), upstream

            return tf.gather(centroids, pulling_indices), gradient

        return pulled(tf.convert_to_tensor(self.cluster_centroids), tf.convert_to_tensor(original_weight))


def _fits(layer: keras.layers.Layer, clusters: int) -> bool:
    """Whether it has more weights than there are clusters."""
    return bool(tf.size(layer.kernel) > clusters)


def _wrappers(network: keras.Sequential) -> list[Clustered]:
    return [layer for layer in network.layers if isinstance(layer, Clustered)]
