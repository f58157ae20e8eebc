"""What goes between actors and the learner. No TensorFlow: actors import this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.artifact import PolicySpec
from tfqrl.actorq.stopwatch import Usage
from tfqrl.exploration import Explorer
from tfqrl.replay import Transitions


@dataclass(frozen=True)
class Assignment:
    """What an actor is told when it is made.

    Attributes:
      actor: its number, 0 for the first.
      actors: how many there are.
      env: the environment's name.
      env_module: the module that registers it, or None.
      seed: of its episodes and its exploration.
      clip_reward: send the sign of rewards alone.
      counter: file in which it counts its steps, so that they are known when it is killed.
    """

    actor: int
    actors: int
    env: str
    env_module: str | None
    seed: int
    clip_reward: bool
    counter: str


def assignments(config: Any, actors: int, counters: str) -> list[Assignment]:
    """Those of so many actors in a training of this configuration, which count steps in the folder `counters`."""
    return [
        Assignment(
            actor=i,
            actors=actors,
            env=config.env,
            env_module=config.env_module,
            seed=config.seed,
            clip_reward=config.clip_reward,
            counter=f"{counters}/{i}",
        )
        for i in range(actors)
    ]


@dataclass(frozen=True)
class Hello:
    """What an actor says when it begins, for the first time or again.

    Attributes:
      actor: its number.
      successor: a number that no other process in its place has.
      life: another one each time it says so. Messages of an earlier life that are still on their way are lost.
      stepped: steps that it, and those before it in its place, have made.
      unfinished: transitions of n steps that it has begun.
    """

    actor: int
    successor: int
    life: int
    stepped: int
    unfinished: int


@dataclass(frozen=True)
class Experience:
    """What an actor has seen since its last message.

    Attributes:
      actor: its number.
      life: of its last Hello.
      transitions: that were finished, (n, ...); observations are the environment's own.
      stepped: steps that it, and those before it in its place, have made.
      episodes: (return, steps) of those that have ended.
      updates: how many updates the policy had had that took the first of these steps.
      usage: of the actor since it began.
    """

    actor: int
    life: int
    transitions: Transitions
    stepped: int
    episodes: list[tuple[float, int]]
    updates: int
    usage: Usage


@dataclass(frozen=True)
class Push:
    """A policy on its way to the actors.

    Attributes:
      flatbuffer: reference to its bytes in the object store.
      spec: what it reads and gives: outputs of the network, in no units.
      updates: how many updates it has had.
      explorer: how one explores with it.
      in_place: it may be written over the one before it (`acting.Rewritten`).
    """

    flatbuffer: Any
    spec: PolicySpec
    updates: int
    explorer: Explorer
    in_place: bool


@dataclass(frozen=True)
class Order:
    """What the learner answers.

    Attributes:
      push: the newest policy; None if it is the one that the actor has.
      random: take random actions: there is no policy yet that is better.
      stop: the training ends.
    """

    push: Push | None
    random: bool
    stop: bool


@dataclass(frozen=True)
class Farewell:
    """What an actor leaves behind.

    Attributes:
      actor: its number.
      successor: as in its Hello.
      stepped: steps that it, and those before it in its place, have made.
      unfinished: transitions of n steps that were begun and not finished.
      usage: of the actor since it began.
    """

    actor: int
    successor: int
    stepped: int
    unfinished: int
    usage: Usage


def is_finite(seen: Any) -> bool:
    """Whether there is neither NaN nor infinity among the arrays of a dataclass, such as Transitions."""
    arrays = [array for array in vars(seen).values() if isinstance(array, np.ndarray)]
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays)
