"""Quantisation-aware training with a delay, as in QuaRL (Krishnan et al. 2022, arXiv 1910.01055), for integer kernels.

After the delay, in which it trains in float, the policy computes as it will when it is deployed: kernels, biases and
activations on integer grids. The critic stays in float.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tensorflow as tf
import tf_keras as keras
import tyro

from converters.emulation import Output, Widths, calibrate, emulated
from converters.quantizers import is_on_grid
from tfqrl.compress.bits import check_bits
from tfqrl.compress.delay import Delayed


@dataclass(frozen=True)
class QAT(Delayed):
    """Quantisation-aware training.

    Attributes:
      weight_bits: of kernels, 2 to 8.
      activation_bits: of what hidden layers give, 2 to 8.
      observation_bits: of what the policy reads, 2 to 8.
      output_bits: of continuous actions, 2 to 8.
      per_channel: let each output of a layer have a weight scale of its own.
    """

    method: tyro.conf.Suppress[Literal["qat"]] = "qat"
    weight_bits: int = 8
    activation_bits: int = 8
    observation_bits: int = 8
    output_bits: int = 8
    per_channel: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        check_bits(self, "weight_bits", "activation_bits", "observation_bits", "output_bits")

    @property
    def widths(self) -> Widths:
        """For `converters.emulation`."""
        return Widths(self.weight_bits, self.activation_bits, self.observation_bits, self.output_bits, self.per_channel)

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        return emulated(network, self.widths, output)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        if self.begins(progress) and not is_on_grid(network):
            calibrate(network, observation)

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """See `Compressor.complete`."""
        return is_on_grid(network)

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """Whether the policy computes on its grids yet, 0 or 1."""
        return {"on_grid": float(is_on_grid(network))}
