"""The quantisation-aware Bayesian policy: one training that learns which weights to keep, and in how many bits each.

Sparse variational dropout (`svd`) finds how much noise each weight can have before return suffers; the uniform
quantiser (`uvnq`) says how many bits are lost in so much noise, and that a weight needs none if all of them are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tensorflow as tf
import tf_keras as keras
import tyro

from converters.emulation import Output, Widths, calibrate
from converters.quantizers import Quantizer, Switch, is_on_grid
from edge.errors import UsageError
from tfqrl.compress.bayesian.uvnq import Uniform, threshold
from tfqrl.compress.bayesian.variational import (
    Variational,
    log_uniform,
    mean_bits,
    settle,
    variational,
)
from tfqrl.compress.bits import check_bits

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer


@dataclass(frozen=True)
class QABP(Variational):
    """Quantisation-aware Bayesian policy.

    Attributes:
      max_bits: of a weight, 2 to 8.
      beta: standard deviations of a layer's weights that its grid covers, each way.
      activation_bits: of what hidden layers give, 2 to 8.
      observation_bits: of what the policy reads, 2 to 8.
      output_bits: of continuous actions, 2 to 8.
      fine_tune: part of the training, at its end, in which bits stay and weights are trained on their grid.
    """

    method: tyro.conf.Suppress[Literal["qabp"]] = "qabp"
    max_bits: int = 4
    beta: float = 1.5
    activation_bits: int = 8
    observation_bits: int = 8
    output_bits: int = 8
    fine_tune: float = 0.3

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        check_bits(self, "max_bits", "activation_bits", "observation_bits", "output_bits")
        if not 0 < self.beta < math.inf:
            raise UsageError(f"--beta must be above 0 and finite; it was given {self.beta}.")
        if not 0 <= self.fine_tune < 1 - self.kl_end:
            raise UsageError(
                f"--fine-tune must be at least 0 and leave something of the training behind --kl-end {self.kl_end}; it "
                f"was given {self.fine_tune}."
            )

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        widths = Widths(self.max_bits, self.activation_bits, self.observation_bits, self.output_bits)
        # Training draws at least what the finest grid will lose.
        least = math.log(threshold(self.beta)) - self.max_bits * math.log(4.0)
        return variational(network, widths, output, log_uniform, self._quantizer, seed, least)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        if is_on_grid(network):
            return
        if progress < 1 - self.fine_tune:
            self.weigh(network, progress, transitions)
        else:
            settle(network)
            calibrate(network, observation)

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """Those of all of them, bits of a weight that is left, and whether it computes on its grids yet, 0 or 1."""
        more = {"mean_bits": mean_bits(network), "on_grid": float(is_on_grid(network))}
        return super().metrics(network) | more

    def _quantizer(self, switch: Switch, layer: Layer) -> Quantizer:
        return Uniform(switch, layer, self.max_bits, self.beta)
