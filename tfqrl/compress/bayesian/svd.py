"""Sparse variational dropout (Molchanov et al. 2017, arXiv 1701.05369) of a policy.

With a deterministic policy gradient (ddpg, td3, d4pg) that is SVDPG (Park et al., IEEE Transactions on Industrial
Electronics): the policy that the critic values is drawn from the posterior of its weights, whose divergence from a
log-uniform prior makes noise of those that return does not need. They are deployed as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras
import tyro

from converters.emulation import Output, Widths
from converters.quantizers import Fixed, Switch
from tfqrl.compress.bayesian.kl import PRUNED
from tfqrl.compress.bayesian.variational import Dropout, OfPosterior, variational

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SVD(Dropout):
    """Sparse variational dropout."""

    method: tyro.conf.Suppress[Literal["svd"]] = "svd"

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        self.check_protected(network)
        return variational(network, Widths(), output, self.posterior(seed), Sparse)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        self.weigh(network, progress, transitions)

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """See `Compressor.complete`."""
        # Without a wish, weights go to the end.
        return progress >= 1 if self.wished is None else progress >= self.kl_end and self.reached(network)


class Sparse(OfPosterior, Fixed):
    """No grid: the weights of one layer that are mostly noise are deployed as zeros (Molchanov et al., section 4.4)."""

    def __init__(self, switch: Switch, layer: Layer) -> None:
        super().__init__(switch, 1.0, -127, 127)
        self._layer = layer

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Any, **kwargs: Any) -> tf.Tensor:
        """The kernel itself."""
        return tf.identity(inputs)

    def bits(self) -> npt.NDArray[np.int8]:
        """32 of each weight that is left."""
        left = (self._layer.log_alpha().numpy() < PRUNED) | self._layer.protected
        return np.broadcast_to(np.where(left, 32, 0).astype(np.int8), self._layer.theta.shape)

    def deployed(self, values: Array) -> Array:
        """The kernel without the weights that are noise."""
        return np.where(self.bits() > 0, values, 0.0).astype(np.float32)
