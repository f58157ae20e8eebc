"""Magnitude pruning while training (Zhu & Gupta 2017, arXiv 1710.01878), by TF-MOT's wrapper and schedules.

The smallest weights of each kernel, or its weakest neurons, become zero and are held there, more of them as training
goes on. The critic stays dense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
import tyro
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

from converters.emulation import Output
from converters.stripping import own_variables
from edge.errors import UnknownNameError, UsageError

# A training is so many steps to TF-MOT's schedules, and its masks are looked at as often at the most: more would cost
# time and change nothing.
STEPS = 200


@dataclass(frozen=True)
class Pruning:
    """Magnitude pruning.

    Attributes:
      sparsity: part of each kernel's weights that is zero in the end, 0 to 1.
      layer_sparsity: the same for single layers, by name.
      sparsity_distribution: uniform: each kernel loses the same part; erdos-renyi: small ones less and large ones more
        of theirs, and all together as many (Evci et al. 2020, arXiv 1911.11134).
      neurons: prune whole neurons, or filters of convolutions, which the converter then takes out: those with the
        smallest product of the norms of what goes in and what comes out. Each hidden layer loses the same part of its
        own; `layer_sparsity` is for hidden layers alone.
      pattern: let so many of so many neighbouring weights be zero: 2 4 for hardware with 2:4 sparsity.
      prune_schedule: polynomial: sparsity rises from 0, ever more slowly; constant: all at once.
      prune_begin: part of the training after which weights begin to be pruned.
      prune_end: part of the training at which the last of them are; what remains is trained on.
    """

    method: tyro.conf.Suppress[Literal["prune"]] = "prune"
    sparsity: float = 0.9
    layer_sparsity: dict[str, float] = field(default_factory=dict)
    sparsity_distribution: Literal["uniform", "erdos-renyi"] = "uniform"
    neurons: bool = False
    pattern: tuple[int, int] | None = None
    prune_schedule: Literal["polynomial", "constant"] = "polynomial"
    prune_begin: float = 0.1
    prune_end: float = 0.7

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name, value in (("--sparsity", self.sparsity), *self.layer_sparsity.items()):
            if not 0 <= value < 1:
                raise UsageError(f"A sparsity must be at least 0 and below 1; {name} was given {value}.")
        if not 0 <= self.prune_begin <= self.prune_end <= 1:
            raise UsageError(
                "--prune-begin and --prune-end must lie in 0..1, in this order; they were given "
                f"{self.prune_begin} and {self.prune_end}."
            )
        if self.neurons and self.pattern is not None:
            raise UsageError("--neurons and --pattern exclude each other: patterns are of single weights.")
        if self.sparsity_distribution != "uniform" and (
            self.neurons or self.pattern is not None or self.layer_sparsity
        ):
            raise UsageError(
                "--sparsity-distribution erdos-renyi says what each layer loses: leave out --layer-sparsity, --neurons "
                "and --pattern."
            )
        if self.pattern is not None and not 0 < self.pattern[0] < self.pattern[1]:
            raise UsageError(f"--pattern takes N M, N zeros of M weights, 0 < N < M; it was given {self.pattern}.")

    def wrap(self, network: keras.Sequential, output: Output, seed: int = 0) -> keras.Sequential:
        """See `Compressor.wrap`."""
        return prunable(network, self)

    def advance(self, network: keras.Sequential, observation: tf.Tensor, progress: float, transitions: int) -> None:
        """See `Compressor.advance`."""
        update_masks(network, progress, neurons=self.neurons)

    def complete(self, network: keras.Sequential, progress: float) -> bool:
        """See `Compressor.complete`."""
        return progress >= self.prune_end

    def metrics(self, network: keras.Sequential) -> dict[str, float]:
        """The part of all prunable weights that is zero."""
        return {"sparsity": sparsity(network)}


def prunable(network: keras.Sequential, options: Pruning) -> keras.Sequential:
    """A network of the same layers, whose Dense and Conv2D layers, with wrappers or without, stand in TF-MOT's."""
    layers: list[keras.layers.Layer] = [keras.Input(network.input_shape[1:])]
    weighted = [layer for layer in network.layers if _is_prunable(layer)]
    names = [layer.name for layer in weighted]
    for name in options.layer_sparsity:
        if name not in names:
            raise UnknownNameError("layer that can be pruned", name, names)
    kernels = {layer.name: own_variables([layer])[0] for layer in weighted}
    sparsities = dict.fromkeys(names, options.sparsity) | options.layer_sparsity
    if options.sparsity_distribution == "erdos-renyi":
        sparsities = erdos_renyi({name: tuple(kernel.shape) for name, kernel in kernels.items()}, options.sparsity)
    for layer in network.layers:
        if layer not in weighted:
            layers.append(layer)
            continue
        kernel = kernels[layer.name]
        arguments: dict[str, Any] = {"pruning_schedule": _schedule(options, sparsities[layer.name])}
        if options.pattern is not None:
            arguments["sparsity_m_by_n"] = options.pattern
        # What the wrapper of another method computes with is made of the variable, which is what is pruned.
        layer.get_prunable_weights = lambda kernel=kernel: [kernel]
        layers.append(Masked(layer, **arguments))
    return keras.Sequential(layers, name=network.name)


class Masked(PruneLowMagnitude):
    """TF-MOT's wrapper, whose masks are looked at by `update_masks`, and in no call."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """What the layer gives without the weights that masks hold at zero."""
        return super().call(inputs, training=False)


def update_masks(network: keras.Sequential, progress: float, *, neurons: bool) -> None:
    """Let the masks be what the schedule says for this part of the training, 0..1."""
    step = int(progress * STEPS)
    if neurons:
        _mask_neurons(network, step)
        return
    for wrapper in _wrappers(network):
        if int(wrapper.pruning_step.numpy()) == step:
            continue
        begin, end = wrapper.pruning_schedule.begin_step, wrapper.pruning_schedule.end_step
        if wrapper.sparsity_m_by_n:
            # TF-MOT makes masks of patterns at its step 1, and only then.
            made = int(wrapper.pruning_step.numpy()) >= begin
            wrapper.pruning_step.assign(1)
            if step >= begin and not made:
                wrapper.pruning_obj.conditional_mask_update()
        elif step >= begin and int(wrapper.pruning_step.numpy()) < end:
            wrapper.pruning_step.assign(min(step, end))
            wrapper.pruning_obj.conditional_mask_update()
        wrapper.pruning_step.assign(step)


def _mask_neurons(network: keras.Sequential, step: int) -> None:
    for wrapper, following in pairwise(_wrappers(network)):
        if step < wrapper.pruning_schedule.begin_step or int(wrapper.pruning_step.numpy()) == step:
            continue
        wrapper.pruning_step.assign(step)
        (variable, mask, _), (next_variable, next_mask, _) = wrapper.pruning_vars[0], following.pruning_vars[0]
        kernel, next_kernel = variable.numpy() * mask.numpy(), next_variable.numpy() * next_mask.numpy()
        units = kernel.shape[-1]
        # What is flattened lies channel by channel, pixel after pixel.
        read = next_kernel.reshape(-1, units, next_kernel.shape[-1])
        strength = np.linalg.norm(kernel.reshape(-1, units), axis=0) * np.linalg.norm(read, axis=(0, 2))
        _, part = wrapper.pruning_schedule(tf.constant(step))
        dead = np.argsort(strength, kind="stable")[: min(units - 1, round(float(part) * units))]
        pruned = np.ones(units, np.float32)
        pruned[dead] = 0.0
        mask.assign(np.broadcast_to(pruned, kernel.shape))


def sparsity(network: keras.Sequential) -> float:
    """The part of all prunable weights that masks hold at zero."""
    masks = [mask.numpy() for wrapper in _wrappers(network) for _, mask, _ in wrapper.pruning_vars]
    return float(1.0 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks))


def erdos_renyi(shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> dict[str, float]:
    """Sparsities of kernels whose densities are as the sum of their sides over the product, at the most 1.

    Args:
      shapes: of the kernels, by name.
      sparsity: of all of them together, 0..1.

    Returns:
      Of each (Evci et al. 2020, arXiv 1911.11134, section 3.1: "ERK").
    """
    weights = {name: math.prod(shape) for name, shape in shapes.items()}
    left, dense = (1.0 - sparsity) * sum(weights.values()), set[str]()
    while True:
        others = {name: sum(shape) for name, shape in shapes.items() if name not in dense}
        factor = (left - sum(weights[name] for name in dense)) / max(sum(others.values()), 1)
        full = {name for name, sides in others.items() if factor * sides >= weights[name]}
        if not full:
            return {name: 0.0 if name in dense else 1.0 - factor * others[name] / weights[name] for name in shapes}
        dense |= full


def _schedule(options: Pruning, final: float) -> Any:
    begin, end = int(options.prune_begin * STEPS), int(options.prune_end * STEPS)
    schedules = tfmot.sparsity.keras
    if options.prune_schedule == "constant":
        return schedules.ConstantSparsity(final, begin, begin, frequency=1)
    return schedules.PolynomialDecay(0.0, final, begin, max(end, begin + 1), frequency=1)


def _is_prunable(layer: keras.layers.Layer) -> bool:
    """A Dense or Conv2D layer, also inside a wrapper; not one that computes its kernel of others."""
    while isinstance(layer, keras.layers.Wrapper):
        layer = layer.layer
    return type(layer) in (keras.layers.Dense, keras.layers.Conv2D)


def _wrappers(network: keras.Sequential) -> list[Any]:
    return [layer for layer in network.layers if hasattr(layer, "pruning_vars")]
