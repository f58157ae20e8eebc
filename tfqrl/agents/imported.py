"""Policies that were trained elsewhere: runs like others, except that they cannot be trained further."""

from __future__ import annotations

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
    envs.check_fits("The policy", spec, name, theirs)
    return theirs.control_rate_hz
