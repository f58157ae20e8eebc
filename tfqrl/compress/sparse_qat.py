"""Pruning and quantisation-aware training together: weights go first, and those that are left go on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf
import tf_keras as keras
import tyro

from converters.emulation import Output
from edge.errors import UsageError
from tfqrl.compress.delay import DELAY
from tfqrl.compress.pruning import Pruning, prunable
from tfqrl.compress.qat import QAT


@dataclass(frozen=True)
class SparseQAT(Pruning, QAT):
    """Pruning, then quantisation-aware training of what is left; the masks stay."""

    method: tyro.conf.Suppress[Literal["prune-qat"]] = "prune-qat"
    prune_end: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values out of range, and grids that would be fitted to weights that are yet to go."""
        Pruning.__post_init__(self)
        QAT.__post_init__(self)
        delay = DELAY if self.delay is None else self.delay
        if delay < self.prune_end:
            raise UsageError(
                f"Weights go until {self.prune_end:g} of the training (--prune-end), and grids are fitted to what is "
                f"left: --delay must be {self.prune_end:g} or more, and is {delay:g}."
            )

    def of_trained(self) -> SparseQAT:
        """The same: weights go first."""
        return self

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        return prunable(QAT.wrap(self, network, output), self)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        # In this order: the grids are fitted to the weights that are left.
        Pruning.advance(self, network, observation, progress, transitions)
        QAT.advance(self, network, observation, progress, transitions)

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """See `Compressor.complete`."""
        return Pruning.complete(self, network, progress) and QAT.complete(self, network, progress)

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """Those of both."""
        return Pruning.metrics(self, network) | QAT.metrics(self, network)
