"""What is done in training instead of what the policy thinks best. No TensorFlow: ActorQ's actors import this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
# From (batch, ...) observations to (batch, outputs).
Network = Callable[[Array], FloatArray]

# Of SquashedNormal, as in the code of Haarnoja et al. 2018 (arXiv 1812.05905).
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0


class Explorer(Protocol):
    """A way to explore, at one time of a training."""

    def __call__(self, network: Network, observation: Array, rng: np.random.Generator) -> Array:
        """Actions, (batch, *action.shape) float32 or (batch,) choices, for (batch, ...) normalised observations."""
        ...

    def of_actor(self, actor: int, actors: int) -> Explorer:
        """What number `actor` of several does, which explore more or less than each other."""
        ...


@dataclass(frozen=True)
class AddedNoise:
    """The network's actions in [-1, 1], with normal noise on them that is not correlated in time.

    Attributes:
      std: of the noise.
    """

    std: float

    def __call__(self, network: Network, observation: Array, rng: np.random.Generator) -> FloatArray:
        """See `Explorer`."""
        action = network(observation)
        noise = self.std * rng.standard_normal(action.shape, np.float32)
        return np.clip(action + noise, -1.0, 1.0)

    def of_actor(self, actor: int, actors: int) -> AddedNoise:
        """From none to twice the noise in equal steps, as in the code of ActorQ."""
        return self if actors == 1 else AddedNoise(2 * self.std * actor / (actors - 1))


@dataclass(frozen=True)
class EpsilonGreedy:
    """The choice with the largest output, or now and then any (Mnih et al. 2015).

    Attributes:
      epsilon: how often any, 0..1.
      choices: how many there are.
    """

    epsilon: float
    choices: int

    def __call__(self, network: Network, observation: Array, rng: np.random.Generator) -> Array:
        """See `Explorer`."""
        random = rng.integers(self.choices, size=len(observation))
        explores = rng.random(len(observation)) < self.epsilon
        if explores.all():
            return random
        return np.where(explores, random, network(observation).argmax(axis=-1))

    def of_actor(self, actor: int, actors: int) -> EpsilonGreedy:
        """From epsilon to its eighth power (Horgan et al. 2018, arXiv 1803.00933, section 4.1)."""
        power = 1.0 if actors == 1 else 1.0 + 7.0 * actor / (actors - 1)
        return EpsilonGreedy(self.epsilon**power, self.choices)


@dataclass(frozen=True, eq=False)
class Normal:
    """Normal actions around the network's outputs.

    Attributes:
      std: (actions,) float32.
    """

    std: FloatArray

    def __call__(self, network: Network, observation: Array, rng: np.random.Generator) -> FloatArray:
        """See `Explorer`."""
        mean = network(observation)
        return mean + self.std * rng.standard_normal(mean.shape, np.float32)

    def of_actor(self, actor: int, actors: int) -> Normal:
        """The same: what is learnt is how much to explore."""
        return self


@dataclass(frozen=True)
class Gumbel:
    """A choice with the outputs as logits, by the Gumbel-max trick (Maddison et al. 2014, arXiv 1411.0030)."""

    def __call__(self, network: Network, observation: Array, rng: np.random.Generator) -> Array:
        """See `Explorer`."""
        logits = network(observation)
        return np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)

    def of_actor(self, actor: int, actors: int) -> Gumbel:
        """The same; see `Normal`."""
        return self


@dataclass(frozen=True)
class SquashedNormal:
    """The tanh of a normal variable, whose mean and log-deviation are the halves of the network's outputs."""

    def __call__(self, network: Network, observation: Array, rng: np.random.Generator) -> FloatArray:
        """See `Explorer`."""
        mean, log_std = np.split(network(observation), 2, axis=-1)
        std = np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))
        return np.tanh(mean + std * rng.standard_normal(mean.shape, np.float32))

    def of_actor(self, actor: int, actors: int) -> SquashedNormal:
        """The same; see `Normal`."""
        return self


def random_actions(spec: PolicySpec, num_envs: int, rng: np.random.Generator) -> Array:
    """Actions drawn uniformly: (num_envs,) choices, or (num_envs, *shape) float32 in [-1, 1]."""
    if spec.action.n is not None:
        return rng.integers(spec.action.n, size=num_envs)
    return cast(Array, rng.uniform(-1.0, 1.0, (num_envs, *spec.action.shape)).astype(np.float32))
