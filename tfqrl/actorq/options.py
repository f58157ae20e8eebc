"""How a training is distributed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from edge.errors import UsageError
from tfqrl.options import optional
from tfqrl.training.config import OffPolicyConfig, OnPolicyConfig, TrainingConfig, above, are_numbers, at_least, one_of

Precision = Literal["int8", "float16", "float32"]

# By precision, how a policy is converted: integer weights, and activations that are quantised as they come.
RECIPES = {"int8": "dynamic-int8", "float16": "float16", "float32": "float32"}


@dataclass(frozen=True)
class Distribution:
    """How a training is distributed.

    Attributes:
      actors: processes that act, each with an environment of its own.
      actor_precision: of the weights that actors compute with; the learner's are float32.
      push_every: steps of an actor between two messages: it sends what it has seen, and takes the newest policy (a2c
        and ppo: --rollout-steps).
      samples_per_insert: transitions learnt from for each that is collected, on average (default: as in `tfqrl train`,
        --batch-size / --update-every; a2c and ppo learn from each as often as there).
      patience_s: an actor that says nothing for so many seconds is replaced.
    """

    actors: int = 4
    actor_precision: Precision = "int8"
    push_every: int = 30
    samples_per_insert: Annotated[float | None, optional("RATIO")] = None
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        are_numbers(self)
        at_least(self, 1, "actors", "push_every")
        above(self, 0, "patience_s")
        one_of(self, "actor_precision", tuple(RECIPES))
        if self.samples_per_insert is not None:
            above(self, 0, "samples_per_insert")

    def ratio(self, config: OffPolicyConfig) -> float:
        """Samples per insert."""
        if self.samples_per_insert is None:
            return config.batch_size / config.update_every
        return self.samples_per_insert

    def updates_per_call(self, config: OffPolicyConfig) -> int:
        """How many updates are compiled into one: as many as are due by the time each actor has sent a message."""
        due = round(self.actors * self.push_every * self.ratio(config) / config.batch_size)
        return min(max(1, due), config.updates_per_call)


def check(config: TrainingConfig, distribution: Distribution) -> None:
    """Refuse what of an algorithm's options cannot be distributed so.

    Raises:
      UsageError: there is such.
    """
    if isinstance(config, OnPolicyConfig):
        if config.num_envs % distribution.actors:
            raise UsageError(
                f"--num-envs {config.num_envs} must be a multiple of --actors {distribution.actors}, which share them."
            )
        if distribution != replace(distribution, push_every=Distribution.push_every, samples_per_insert=None):
            raise UsageError(
                "--push-every and --samples-per-insert are for algorithms with a replay: here actors get a policy for "
                "each rollout of --rollout-steps, which is learnt from once."
            )
    elif config.num_envs != 1:
        raise UsageError(f"--num-envs is 1 here, of each actor; it was given {config.num_envs}. Give --actors.")
    if config.vec != "threads":
        raise UsageError(f"--vec is threads here; it was given {config.vec}.")
