"""Sparse variational dropout (Molchanov et al. 2017, arXiv 1701.05369) of a policy.

With a deterministic policy gradient (ddpg, td3, d4pg) that is SVDPG (Park et al., IEEE Transactions on Industrial
Electronics): the policy that the critic values is drawn from the posterior of its weights, whose divergence from a
log-uniform prior makes noise of those that return does not need. They are deployed as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tensorflow as tf
import tf_keras as keras
import tyro

from converters.emulation import Output, Widths
from converters.quantizers import Quantizer, Switch
from tfqrl.compress.bayesian.uvnq import Sparse
from tfqrl.compress.bayesian.variational import Variational, log_uniform, sparsity, variational, variational_layers

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer


@dataclass(frozen=True)
class SVD(Variational):
    """Sparse variational dropout."""

    method: tyro.conf.Suppress[Literal["svd"]] = "svd"

    def wrap(self, network: keras.Sequential, output: Output) -> keras.Sequential:
        """See `Compressor.wrap`."""
        return variational(network, Widths(), output, log_uniform, self._quantizer)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        self.weigh(network, progress, transitions)

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """The part of all weights that is mostly noise, and what the divergence is worth."""
        return {"sparsity": sparsity(network), "kl_weight": float(variational_layers(network)[0].kl_weight)}

    def _quantizer(self, switch: Switch, layer: Layer) -> Quantizer:
        return Sparse(switch, layer)
