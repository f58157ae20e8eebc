"""The algorithms, one readable file each, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tf_keras as keras

from edge.artifact import PolicySpec
from edge.errors import UnknownNameError
from edge.records import from_plain
from tfqrl import envs
from tfqrl.agents import ppo
from tfqrl.runs import Run, RunError, State


@dataclass(frozen=True)
class Algorithm:
    """What the rest of the project needs to know of an algorithm.

    Attributes:
      config: its configuration, a frozen dataclass with the fields env, steps and seed among others.
      train: trains a run to its configured steps, from its checkpoint if it has one.
      restore_policy: the trained network and spec, from (config, spec of the environment, checkpoint).
    """

    config: type[Any]
    train: Callable[[Run], None]
    restore_policy: Callable[[Any, PolicySpec, State], tuple[keras.Model, PolicySpec]]


ALGORITHMS = {"ppo": Algorithm(ppo.PPOConfig, ppo.train, ppo.restore_policy)}


def get(name: str) -> Algorithm:
    """The algorithm called `name`.

    Raises:
      UnknownNameError: there is none.
    """
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def config_of(run: Run) -> Any:
    """The configuration of a run, as its algorithm's dataclass.

    Raises:
      UsageError: config.json has a key that is not known (the nearest is offered), or a value out of range.
      RunError: a key is missing, or a value of another type.
    """
    try:
        return from_plain(get(run.algorithm).config, run.config, f"{run.path}/config.json")
    except ValueError as error:
        raise RunError(f"The run does not fit {run.algorithm}: {error}") from error


def load_policy(run: Run) -> tuple[keras.Model, PolicySpec]:
    """The network of a run, as of its last checkpoint, and the spec of the policy.

    Raises:
      RunError: the run has no checkpoint, or one that does not fit its configuration.
    """
    config = config_of(run)
    env = envs.make(config.env)
    spec = envs.policy_spec(env, None)
    env.close()
    try:
        return get(run.algorithm).restore_policy(config, spec, run.load_checkpoint())
    except (KeyError, ValueError) as error:
        raise RunError(
            f"The checkpoint of {run.path} is of other networks than its config.json says: {error}"
        ) from error
