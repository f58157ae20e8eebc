"""Policies that were trained elsewhere: runs like others, except that they cannot be trained further."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tf_keras as keras

from converters.sources import ForeignPolicy
from converters.sources.layers import Layer, build, describe
from edge.artifact import PolicySpec
from edge.errors import UsageError
from tfqrl import envs
from tfqrl.runs import Run, State, nested


@dataclass(frozen=True)
class ImportedConfig:
    """A policy from elsewhere.

    Attributes:
      env: the environment that it is for; None if that was not said.
      spec: what it reads and gives.
      layers: its network, without the weights.
      origin: what it was: format, algorithm, versions.
      env_module: the module that registers the environment, if it is one of the user's own.
    """

    env: str | None
    spec: PolicySpec
    layers: tuple[Layer, ...]
    origin: dict[str, Any]
    env_module: str | None = None


def create_run(path: str | Path, foreign: ForeignPolicy, env: str | None, env_module: str | None = None) -> Run:
    """Make a run of a policy from elsewhere. The environment, if there is one, gives the rate of control.

    Raises:
      UsageError: the folder holds a run already, or the environment is another than the policy is for.
      ImportPolicyError: the network has layers that a run cannot describe.
      OutputError: the folder cannot be written.
    """
    if (Path(path) / "config.json").exists():
        raise UsageError(f"{path} holds a run already. Give another --out.")
    spec = (
        foreign.spec if env is None else replace(foreign.spec, control_rate_hz=_rate_hz(env, env_module, foreign.spec))
    )
    layers = describe(foreign.network)
    run = Run.create(path, "imported", ImportedConfig(env, spec, layers, foreign.origin, env_module))
    run.save_checkpoint({f"policy/{i}": array for i, array in enumerate(foreign.network.get_weights())})
    return run


def restore_policy(config: ImportedConfig, state: State) -> tuple[keras.Model, PolicySpec]:
    """The network of a checkpoint, and its spec; what registers its environment is imported."""
    if config.env_module is not None:
        envs.import_module(config.env_module)
    arrays = nested(state, "policy")
    _check_layers(config, arrays)
    network = build(config.spec.observation.shape, config.layers)
    network.set_weights([arrays[str(i)] for i in range(len(arrays))])
    return network, config.spec


def _check_layers(config: ImportedConfig, arrays: State) -> None:
    """See whether the checkpoint has the layers' weights, before layers of whatever size config.json says are built.

    Raises:
      ValueError: it does not, or there can be no such layer.
    """
    shape, taken = config.spec.observation.shape, 0
    for i, layer in enumerate(config.layers):
        place = f"layer {i} ({layer.kind})"
        if layer.kind == "flatten":
            shape = (math.prod(shape),)
        if layer.kind in ("flatten", "activation"):
            continue
        convolution = layer.kind == "conv2d"
        if (
            convolution != (layer.kernel is not None)
            or min(layer.strides) < 1
            or not shape
            or (convolution and len(shape) != 3)
        ):
            raise ValueError(f"{place} cannot be with these settings, behind values of the shape {shape}")
        kernel = (*(layer.kernel or ()), shape[-1], layer.units)
        for expected in (kernel, (layer.units,))[: 1 + layer.bias]:
            if str(taken) not in arrays:
                raise ValueError(f"it lacks policy/{taken}, of {place}")
            if arrays[str(taken)].shape != expected:
                found = arrays[str(taken)].shape
                raise ValueError(f"{place} has weights of the shape {expected}, the checkpoint some of {found}")
            taken += 1
        shape = (*_image(layer, shape), arrays[str(taken - 1)].shape[-1])
    if len(arrays) != taken:
        raise ValueError(f"it has {len(arrays)} arrays, the layers take {taken}")


def _image(layer: Layer, shape: tuple[int, ...]) -> tuple[int, ...]:
    """What stands before the last dimension behind a dense layer or a convolution."""
    if layer.kernel is None:
        return shape[:-1]
    if layer.padding == "same":
        return tuple(math.ceil(size / stride) for size, stride in zip(shape, layer.strides))
    return tuple((size - taps) // stride + 1 for size, taps, stride in zip(shape, layer.kernel, layer.strides))


def _rate_hz(name: str, module: str | None, spec: PolicySpec) -> float | None:
    theirs = envs.spec_of(name, module)
    envs.check_fits("The policy", spec, name, theirs)
    return theirs.control_rate_hz
