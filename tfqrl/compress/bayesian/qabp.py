"""The quantisation-aware Bayesian policy: one training that learns which weights to keep, and in how many bits each.

Sparse variational dropout (`svd`) finds how much noise each weight can have before return suffers; the uniform
quantiser (`uvnq`) says how many bits are lost in so much noise, and that a weight needs none if all of them are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tensorflow as tf
import tf_keras as keras
import tyro

from converters.emulation import Output, Widths, calibrate
from converters.quantizers import Quantizer, Switch, is_on_grid
from edge.errors import UsageError
from tfqrl.compress.bayesian.uvnq import Uniform
from tfqrl.compress.bayesian.variational import (
    Dropout,
    bits,
    mean_bits,
    settle,
    variational,
    variational_layers,
)
from tfqrl.compress.bits import check_bits
from tfqrl.options import optional

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer


# How often in a training steps are fitted to weights: it takes some tens of milliseconds.
FITS = 200


@dataclass(frozen=True)
class QABP(Dropout):
    """Quantisation-aware Bayesian policy.

    Attributes:
      max_bits: of a weight, 2 to 8.
      bits_per_weight: of all weights in the mean, those that are gone too; a controller then reaches this instead of
        `sparsity`.
      one_step: one step for all layers; otherwise each has its own.
      activation_bits: of what hidden layers give, 2 to 8.
      observation_bits: of what the policy reads, 2 to 8.
      output_bits: of continuous actions, 2 to 8.
      fine_tune: part of the training, at its end, in which bits stay and weights are trained on their grid.
    """

    method: tyro.conf.Suppress[Literal["qabp"]] = "qabp"
    max_bits: int = 4
    bits_per_weight: Annotated[float | None, optional("BITS")] = None
    one_step: bool = False
    activation_bits: int = 8
    observation_bits: int = 8
    output_bits: int = 8
    fine_tune: float = 0.3

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        check_bits(self, "max_bits", "activation_bits", "observation_bits", "output_bits")
        if self.bits_per_weight is not None and not 0 < self.bits_per_weight < self.max_bits:
            raise UsageError(
                f"--bits-per-weight must lie between 0 and --max-bits {self.max_bits}; it was given "
                f"{self.bits_per_weight}."
            )
        if self.bits_per_weight is not None and self.sparsity is not None:
            raise UsageError("--bits-per-weight and --sparsity exclude each other: both say what is to be left.")
        if not 0 <= self.fine_tune < 1 - self.kl_end:
            raise UsageError(
                f"--fine-tune must be at least 0 and leave something of the training behind --kl-end {self.kl_end}; it "
                f"was given {self.fine_tune}."
            )

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        self.check_protected(network)
        widths = Widths(self.max_bits, self.activation_bits, self.observation_bits, self.output_bits)
        grids: list[Uniform] = []

        def quantizer(switch: Switch, layer: Layer) -> Quantizer:
            grids.append(Uniform(switch, layer, self.max_bits, grids if self.one_step else None))
            return grids[-1]

        return variational(network, widths, output, self.posterior(seed), quantizer)

    @property
    def wished(self) -> float | None:
        """See `Variational.wished`."""
        return self.sparsity if self.bits_per_weight is None else 1.0 - self.bits_per_weight / self.max_bits

    def gone(self, network: keras.Sequential) -> float:
        """See `Variational.gone`."""
        if self.bits_per_weight is None:
            return super().gone(network)
        return 1.0 - float(np.concatenate([each.ravel() for each in bits(network)]).mean()) / self.max_bits

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        if is_on_grid(network):
            return
        if progress < 1 - self.fine_tune:
            layers = variational_layers(network)
            begins, before = not layers[0].noisy.numpy(), layers[0].weighed_at.numpy()
            if self.weigh(network, progress, transitions) and (begins or int(progress * FITS) > int(before * FITS)):
                for layer in layers:
                    layer.grid.follow(self.ramp(progress))
        else:
            settle(network)
            if self.sparsity is not None and not self.neurons:
                _let_go(network, self.sparsity)
            calibrate(network, observation)

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """See `Compressor.complete`."""
        return is_on_grid(network) and (self.wished is None or self.reached(network))

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """Those of all of them, bits of a weight that is left, and whether it computes on its grids yet, 0 or 1."""
        more = {"mean_bits": mean_bits(network), "on_grid": float(is_on_grid(network))}
        return super().metrics(network) | more


def _let_go(network: keras.Sequential, part: float) -> None:
    """Let so many weights go, those with most noise: the controller came near to what was wished."""
    layers = variational_layers(network)
    for layer in layers:
        layer.grid.follow()
    size = sum(layer.theta.shape.num_elements() for layer in layers)
    layers = [layer for layer in layers if not layer.protected]
    order = np.argsort(np.concatenate([layer.unbounded_log_alpha().ravel() for layer in layers]), kind="stable")
    left = np.ones(len(order), bool)
    left[order[len(order) - round(part * size) :]] = False
    ends = np.cumsum([layer.theta.shape.num_elements() for layer in layers])
    for layer, each in zip(layers, np.split(left, ends[:-1])):
        layer.grid.left = each.reshape(layer.theta.shape)
