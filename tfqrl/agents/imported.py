"""Policies that were trained elsewhere: runs like others, except that they cannot be trained further."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

from converters.sources import ForeignPolicy
from converters.sources.layers import Layer, build, describe
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
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
    """

    env: str | None
    spec: PolicySpec
    layers: tuple[Layer, ...]
    origin: dict[str, Any]


def create_run(path: str | Path, foreign: ForeignPolicy, env: str | None) -> Run:
    """Make a run of a policy from elsewhere. The environment, if there is one, gives the rate of control.

    Raises:
      UsageError: the folder holds a run already, or the environment is another than the policy is for.
      ImportPolicyError: the network has layers that a run cannot describe.
      OutputError: the folder cannot be written.
    """
    if (Path(path) / "config.json").exists():
        raise UsageError(f"{path} holds a run already. Give another --out.")
    spec = foreign.spec if env is None else replace(foreign.spec, control_rate_hz=_rate_hz(env, foreign.spec))
    layers = describe(foreign.network)
    run = Run.create(path, "imported", ImportedConfig(env, spec, layers, foreign.origin))
    run.save_checkpoint({f"policy/{i}": array for i, array in enumerate(foreign.network.get_weights())})
    return run


def restore_policy(config: ImportedConfig, state: State) -> tuple[keras.Model, PolicySpec]:
    """The network of a checkpoint, and its spec."""
    network = build(config.spec.observation.shape, config.layers)
    network.set_weights([state[f"policy/{i}"] for i in range(len(nested(state, "policy")))])
    return network, config.spec


def _rate_hz(name: str, spec: PolicySpec) -> float | None:
    theirs = envs.spec_of(name)
    for what, ours, other in (
        ("observes", spec.observation, theirs.observation),
        ("acts by", spec.action, theirs.action),
    ):
        if not _same(ours, other):
            raise UsageError(
                f"The policy is not for {name}: it {what} {text(ours)}, the environment {text(other)}. "
                "Give the --env that it was trained in, or none."
            )
    return theirs.control_rate_hz


def _same(a: ObservationSpec | ActionSpec, b: ObservationSpec | ActionSpec) -> bool:
    kinds = [(space.shape, getattr(space, "n", None), getattr(space, "dtype", None)) for space in (a, b)]
    return kinds[0] == kinds[1] and all(
        x is y is None or (x is not None and y is not None and np.isclose(x, y, rtol=1e-5))
        for x, y in zip((*a.low, *a.high), (*b.low, *b.high))
    )


def text(space: ObservationSpec | ActionSpec) -> str:
    """What is observed or done, for people."""
    if isinstance(space, ActionSpec) and space.n is not None:
        return f"one of {space.n} choices"
    shape = "x".join(map(str, space.shape))
    if not space.low:
        return f"{shape} bytes"
    bounds = [f"{_bound(a)}..{_bound(b)}" for a, b in zip(space.low, space.high)]
    return f"{shape} numbers ({', '.join(bounds[:6])}{', ...' if len(bounds) > 6 else ''})"


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
