"""What the Bayesian compressors have in common: how much the divergence from the prior counts, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.emulation import Output, Widths, emulated
from converters.quantizers import Quantizer, Switch, config_of
from edge.errors import UnknownNameError, UsageError
from tfqrl.compress.bayesian.kl import log_uniform_kl
from tfqrl.options import optional

if TYPE_CHECKING:
    from tfqrl.compress.bayesian.layers import Layer

# By how much the logarithm of the divergence's weight moves in a whole training, for a sparsity that is wrong by 1.
GAIN = 200.0
# How far from `kl_weight` it goes, in powers of e; it begins half way below, since what is lost comes back slowly.
FURTHEST = 12.0
# How often in a training it is looked at how much is gone, which takes milliseconds.
LOOKS = 1000
# How far below what is wished it may end.
NEARLY = 0.01


@dataclass(frozen=True)
class Posterior:
    """What a network's layers are told of their weights.

    Attributes:
      divergence: of a layer from its prior, ().
      seed: of what is drawn.
      neurons: whether noise is that of whole neurons.
      protected: names of layers that have the least noise for ever, and no divergence.
      always: draw in every call, and not only with `training=True`.
      acts: let what acts in training be drawn, too.
    """

    divergence: Callable[[Any], tf.Tensor]
    seed: int = 0
    neurons: bool = False
    protected: tuple[str, ...] = ()
    always: bool = False
    acts: bool = False


class OfPosterior:
    """What quantisers of such layers have in common."""

    _layer: Layer

    def acting(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Quantizer.acting`: what is drawn, if that is to act."""
        return self._layer.sample() if self._layer.posterior.acts else values


@dataclass(frozen=True)
class Variational:
    """Options of a policy whose weights are normal.

    Attributes:
      kl_weight: how much the divergence from the prior counts in the policy's loss, over the number of transitions that
        were learnt from; 1 is the evidence lower bound.
      kl_over: over this number instead.
      sparsity: part of the weights that is to go; a controller then makes the divergence count for more or less than
        `kl_weight` until so many are gone (default: as many as go).
      kl_begin: part of the training after which the divergence begins to count.
      kl_end: part of the training from which on it counts fully, and `sparsity` is to be reached.
      draw_targets: draw policies also where targets of the critic are computed, and not their means.
      draw_acting: let what acts in training be drawn, too, anew after each call of updates.
    """

    kl_weight: float = 1.0
    kl_over: Annotated[int | None, optional("TRANSITIONS")] = None
    sparsity: Annotated[float | None, optional("FRACTION")] = None
    kl_begin: float = 0.1
    kl_end: float = 0.5
    draw_targets: bool = False
    draw_acting: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not 0 < self.kl_weight < float("inf"):
            raise UsageError(f"--kl-weight must be above 0 and finite; it was given {self.kl_weight}.")
        if self.kl_over is not None and self.kl_over < 1:
            raise UsageError(f"--kl-over must be at least 1; it was given {self.kl_over}.")
        if self.sparsity is not None and not 0 < self.sparsity < 1:
            raise UsageError(f"--sparsity must lie between 0 and 1; it was given {self.sparsity}.")
        if not 0 <= self.kl_begin <= self.kl_end <= 1:
            raise UsageError(
                "--kl-begin and --kl-end must lie in 0..1, in this order; they were given "
                f"{self.kl_begin} and {self.kl_end}."
            )

    @property
    def wished(self) -> float | None:
        """What `gone` is to be in the end; None if that is left to the divergence."""
        return self.sparsity

    def gone(self, network: keras.Sequential) -> float:
        """How much of the network is gone, 0..1."""
        return sparsity(network)

    def reached(self, network: keras.Sequential) -> bool:
        """Whether as much is gone as was wished; the controller keeps to that within about NEARLY."""
        return self.wished is not None and self.gone(network) >= self.wished - NEARLY

    def ramp(self, progress: float) -> float:
        """How far the warm-up is at this part of the training, 0..1."""
        return min(1.0, max(0.0, (progress - self.kl_begin) / max(self.kl_end - self.kl_begin, 1e-6)))

    def weigh(self, network: keras.Sequential, progress: float, transitions: int) -> bool:
        """Let the divergence count for what it should at this part of the training, 0..1; whether it counts yet."""
        ramp = self.ramp(progress)
        if ramp == 0:
            return False
        layers = variational_layers(network)
        if not layers[0].noisy.numpy():
            for layer in layers:
                layer.begin()
                layer.weighed_at.assign(progress)
        base = self.kl_weight / (self.kl_over or max(1, transitions))
        if self.wished is None:
            weight = base * ramp
        else:
            before = float(layers[0].kl_weight.numpy()) or base * math.exp(-FURTHEST / 2)
            # As magnitude pruning does it: fast at first, when what goes is not missed (Zhu & Gupta 2017).
            wished = self.wished * (1.0 - (1.0 - ramp) ** 3)
            last = float(layers[0].weighed_at.numpy())
            if int(progress * LOOKS) == int(last * LOOKS) and layers[0].kl_weight.numpy() > 0:
                return True
            # More steps may be asked for when a run is resumed, and then its progress falls.
            step = GAIN * max(progress - last, 0.0) * (wished - self.gone(network))
            moved = math.log(before / base) + min(max(step, -1.0), 1.0)
            weight = base * math.exp(min(max(moved, -FURTHEST), FURTHEST))
        for layer in layers:
            layer.kl_weight.assign(weight)
            layer.weighed_at.assign(progress)
        return True

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """The part of all weights that is gone, and what the divergence is worth."""
        return {"sparsity": sparsity(network), "kl_weight": float(variational_layers(network)[0].kl_weight)}


@dataclass(frozen=True)
class Dropout(Variational):
    """Options of variational dropout: the prior is log-uniform.

    Attributes:
      neurons: noise is that of whole neurons, or filters of convolutions, which go as a whole; the converter takes them
        out.
      protected: layers that lose no weight, by name.
    """

    neurons: bool = False
    protected: tuple[str, ...] = ()

    def check_protected(self, network: keras.Sequential) -> None:
        """Refuse to take more than there is outside of protected layers.

        Raises:
          UsageError: there is less than `sparsity` wishes.
        """
        sizes = {layer.name: math.prod(layer.kernel.shape) for layer in network.layers if hasattr(layer, "kernel")}
        most = 1.0 - sum(sizes.get(name, 0) for name in self.protected) / sum(sizes.values())
        if self.wished is not None and self.wished >= most:
            raise UsageError(
                f"{self.wished:.1%} of the weights cannot go, as {' and '.join(self.protected)} have {1 - most:.1%} of "
                f"them and are protected: wish for less than {most:.1%}."
            )

    def posterior(self, seed: int) -> Posterior:
        """What layers are told."""
        return Posterior(log_uniform, seed, self.neurons, self.protected, self.draw_targets, self.draw_acting)


def variational(
    network: keras.Sequential,
    widths: Widths,
    output: Output,
    posterior: Posterior,
    quantizer: Callable[[Switch, Layer], Quantizer],
) -> keras.Sequential:
    """A network of the same layers, whose kernels are the means of normal weights with hardly any noise.

    Args:
      network: as `emulated` takes it.
      widths: bits of what is no kernel, once it is switched on.
      output: what its last layer gives.
      posterior: what its layers are told.
      quantizer: of a layer's kernel.

    Raises:
      UsageError: it has layers of another kind.
      UnknownNameError: it has no layer that is to be protected.
    """
    if (posterior.always or posterior.acts) and any(type(each) is keras.layers.Conv2D for each in network.layers):
        raise UsageError("Policies for frames act by their means: leave out --draw-acting and --draw-targets.")
    names = [layer.name for layer in network.layers if layer.weights]
    for name in posterior.protected:
        if name not in names:
            raise UnknownNameError("layer", name, names)
    # Only those who have such layers wait for TFP.
    from tfqrl.compress.bayesian.layers import VariationalConv2D, VariationalDense

    def weighted(
        kind: type[keras.layers.Layer], options: dict[str, Any], switch: Switch, widths: Widths
    ) -> tuple[keras.layers.Layer, Quantizer]:
        kinds = {keras.layers.Dense: VariationalDense, keras.layers.Conv2D: VariationalConv2D}
        if kind not in kinds:
            raise UsageError(
                f"The layer {options['name']} ({kind.__name__}) cannot have normal weights: leave out --dueling, or "
                "compress by qat or prune."
            )
        layer = kinds[kind].standing_for(options, posterior)
        return layer, quantizer(switch, layer)

    return emulated(network, widths, output, weighted)


def settle(network: keras.Sequential) -> None:
    """Draw no more, and let no divergence count: what is left is trained as it is."""
    for layer in variational_layers(network):
        layer.kl_weight.assign(0.0)
        layer.noisy.assign(0.0)


def log_uniform(layer: Layer) -> tf.Tensor:
    """The divergence of a layer's weights from the log-uniform prior, ()."""
    return tf.reduce_sum(log_uniform_kl(layer.log_alpha()))


def variational_layers(network: keras.Sequential) -> list[Layer]:
    """Its layers with normal weights, without wrappers, in their order."""
    inner = (layer.layer for layer in network.layers if isinstance(layer, keras.layers.Wrapper))
    return [layer for layer in inner if hasattr(layer, "kl_weight")]


def bits(network: keras.Sequential) -> list[np.ndarray]:
    """Of each weight of each kernel, once deployed: 0 of those that are gone."""
    configs = (config_of(layer) for layer in network.layers)
    return [config.kernel.bits() for config in configs if config is not None and config.kernel is not None]


def sparsity(network: keras.Sequential) -> float:
    """The part of all weights that is gone."""
    counts = [(np.count_nonzero(each == 0), each.size) for each in bits(network)]
    return float(sum(gone for gone, _ in counts) / sum(size for _, size in counts))


def mean_bits(network: keras.Sequential) -> float:
    """Bits of a weight that is left, in the mean; 0 if none is."""
    left = np.concatenate([each[each > 0] for each in bits(network)])
    return float(left.mean()) if left.size else 0.0
