"""Compression while a policy is trained.

A compressor is a frozen dataclass of its options. Algorithms do not know of it: the functions that build a policy's
network (`tfqrl.networks`) let it wrap what they built, and the session tells it of each update. All that it has to
remember is in variables of the network, so checkpoints hold it, and target networks have it too.
"""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf
import tf_keras as keras

from converters.emulation import Output
from tfqrl.compress.bayesian.qabp import QABP
from tfqrl.compress.bayesian.svd import SVD
from tfqrl.compress.bayesian.vnq import VNQ
from tfqrl.compress.clustering import Clustering
from tfqrl.compress.delay import Delayed
from tfqrl.compress.pruning import Pruning
from tfqrl.compress.qat import QAT
from tfqrl.compress.sparse_qat import SparseQAT

__all__ = [
    "COMPRESSORS",
    "QABP",
    "QAT",
    "SVD",
    "VNQ",
    "Clustering",
    "Compressor",
    "Delayed",
    "Pruning",
    "SparseQAT",
    "compressed_networks",
]


class Compressor(Protocol):
    """What `TrainingConfig.compress` is."""

    method: str

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """A network that computes the same and can be compressed; the layers keep their order and their weights.

        Args:
          network: the policy's, of Keras' own layers.
          output: what its last layer gives.
          seed: of what is drawn in training.

        Raises:
          UsageError: it has layers that cannot be.
        """
        ...

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """To be called after each call of updates.

        Args:
          network: what `wrap` gave, the policy's or its target's.
          observation: a batch of what it was trained on, as it reads them.
          progress: the part of the training that is done, 0..1.
          transitions: how many it has learnt from.
        """
        ...

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """Whether what would be deployed at this part of the training, 0..1, is as compressed as it will be."""
        ...

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """How far the compression is, for the run's metrics."""
        ...


_ALL = (QAT, Pruning, SparseQAT, Clustering, SVD, VNQ, QABP)
COMPRESSORS: dict[str, type[Any]] = {kind.method: kind for kind in _ALL}


def compressed_networks(agent: Any) -> dict[str, keras.Sequential]:
    """The networks of an algorithm that a compressor wrapped, its policy's and that policy's target's, by attribute."""
    return {
        name: value
        for name, value in vars(agent).items()
        if isinstance(value, keras.Sequential)
        and any(isinstance(layer, keras.layers.Wrapper) for layer in value.layers)
    }
