"""The algorithms, one readable file each, and the table of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tf_keras as keras

from converters.stripping import deployable
from edge.artifact import PolicySpec
from edge.errors import UnknownNameError, UsageError
from edge.records import from_plain
from tfqrl.agents import imported
from tfqrl.agents.a2c import A2C, A2CConfig
from tfqrl.agents.d4pg import D4PG, D4PGConfig
from tfqrl.agents.ddpg import DDPG, DDPGConfig
from tfqrl.agents.distill import Distill, DistillConfig
from tfqrl.agents.dqn import DQN, DQNConfig
from tfqrl.agents.ppo import PPO, PPOConfig
from tfqrl.agents.sac import SAC, SACConfig
from tfqrl.agents.td3 import TD3, TD3Config
from tfqrl.runs import Run, RunError, State
from tfqrl.training import imitation, off_policy, on_policy
from tfqrl.training.restoring import restore_policy


@dataclass(frozen=True)
class Algorithm:
    """What the rest of the project needs to know of an algorithm.

    Attributes:
      config: its configuration, a frozen dataclass with the field env, and with steps and seed if it can be trained.
      train: trains a run to its configured steps, from its checkpoint if it has one; None if it came from elsewhere.
      restore_policy: the trained network, with the wrappers of a compressor, and spec, from (config, checkpoint).
      check: raises UsageError where it cannot be trained as (config, spec) say.
      agent: its networks and its update; None if it came from elsewhere.
    """

    config: type[Any]
    train: Callable[[Run], None] | None
    restore_policy: Callable[[Any, State], tuple[keras.Model, PolicySpec]]
    check: Callable[[Any, PolicySpec], None] = lambda config, spec: None
    agent: type[Any] | None = None


def _algorithm(loop: Callable[[Run, Any, Any], None], config_type: type[Any], agent_type: type[Any]) -> Algorithm:
    def train(run: Run) -> None:
        loop(run, from_plain(config_type, run.config, "config"), agent_type)

    def check(config: Any, spec: PolicySpec) -> None:
        agent_type.check(config, spec)
        agent_type.network(config, spec)

    return Algorithm(config_type, train, functools.partial(restore_policy, agent_type), check, agent_type)


ALGORITHMS = {
    "a2c": _algorithm(on_policy.train, A2CConfig, A2C),
    "dqn": _algorithm(off_policy.train, DQNConfig, DQN),
    "ppo": _algorithm(on_policy.train, PPOConfig, PPO),
    "ddpg": _algorithm(off_policy.train, DDPGConfig, DDPG),
    "td3": _algorithm(off_policy.train, TD3Config, TD3),
    "d4pg": _algorithm(off_policy.train, D4PGConfig, D4PG),
    "sac": _algorithm(off_policy.train, SACConfig, SAC),
    "distill": _algorithm(imitation.train, DistillConfig, Distill),
    "imported": Algorithm(imported.ImportedConfig, None, imported.restore_policy),
}
# By `tfqrl train`.
TRAINABLE = [name for name in ALGORITHMS if name not in ("distill", "imported")]


def get(name: str) -> Algorithm:
    """The algorithm called `name`.

    Raises:
      UnknownNameError: there is none.
    """
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def check_trainable(name: str) -> None:
    """See whether `tfqrl train` takes this name.

    Raises:
      UnknownNameError: there is no such algorithm.
      UsageError: it is that of policies that were trained elsewhere, or that learn from a teacher.
    """
    if name == "distill":
        raise UsageError("Policies learn from a teacher by `tfqrl distill TEACHER --out RUN`.")
    if name == "imported":
        raise UsageError(
            f"Runs of {name} policies cannot be trained: they were trained elsewhere. `tfqrl convert` takes them; "
            f"`tfqrl train` knows {', '.join(TRAINABLE)}."
        )
    if name not in TRAINABLE:
        raise UnknownNameError("algorithm", name, TRAINABLE)


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
    """What is deployed of a run, as of its last checkpoint, and the spec of the policy.

    Raises:
      RunError: the run has no checkpoint, or one that does not fit its configuration.
    """
    network, spec = load_trained(run)
    return deployable(network), spec


def load_trained(run: Run) -> tuple[keras.Model, PolicySpec]:
    """The same with the wrappers of its compressor, which know more of the weights than is deployed.

    Raises:
      RunError: see `load_policy`.
    """
    config = config_of(run)
    try:
        return get(run.algorithm).restore_policy(config, run.load_checkpoint())
    except (KeyError, ValueError) as error:
        raise RunError(
            f"The checkpoint of {run.path} is of other networks than its config.json says: {error}"
        ) from error
