"""A Gymnasium environment as a plant: each write is one step of the simulation."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from edge.errors import UnknownNameError, UsageError, UserError


class GymPlant:
    """Steps the environment on every write and resets it when an episode ends.

    Attributes:
      seed: of the first episode.
      returns: the return of each finished episode.
    """

    def __init__(self, env: str, spec: PolicySpec, *, seed: int = 0) -> None:
        """Make the environment named `env` for a policy of `spec`; the first episode is seeded with `seed`.

        Raises:
          UserError: gymnasium is not installed, or the environment cannot be made here.
          UnknownNameError: there is no such environment.
          UsageError: it observes or acts otherwise than the policy.
        """
        try:
            import gymnasium
        except ImportError as error:
            raise UserError("The plant `gym` needs Gymnasium: `pip install 'gymnasium[mujoco]'`.") from error
        known = gymnasium.error
        try:
            self._env: Any = gymnasium.make(env, disable_env_checker=True)
        except (known.NameNotFound, known.NamespaceNotFound, known.VersionNotFound) as error:
            raise UnknownNameError("environment", env, gymnasium.registry) from error
        except (known.Error, ImportError, AttributeError) as error:
            raise UserError(f"The environment {env} cannot be made here: {error}") from error
        observes, acts = self._env.observation_space, self._env.action_space
        n = int(acts.n) if isinstance(acts, gymnasium.spaces.Discrete) else None
        # Numbers of any type are as good as others, but frames are bytes.
        fits = (observes.shape, acts.shape, n) == (spec.observation.shape, spec.action.shape, spec.action.n)
        if not fits or (spec.observation.frames and observes.dtype != np.uint8):
            self._env.close()
            raise UsageError(
                f"{env} observes {observes} and acts by {acts}; the policy takes "
                f"{'frames of uint8 ' if spec.observation.frames else ''}{spec.observation.shape} and gives "
                + (f"one of {spec.action.n}." if spec.action.discrete else f"{spec.action.shape}.")
            )
        self.seed = seed
        self._observation: npt.NDArray[Any] | None = None
        self._return = 0.0
        self.returns: list[float] = []

    def reset(self) -> None:
        """See `Plant`."""
        self._observation, _ = self._env.reset(seed=self.seed)
        self._return = 0.0

    def read(self) -> npt.NDArray[Any]:
        """See `Plant`."""
        assert self._observation is not None, "reset first"
        return self._observation

    def write(self, action: Any) -> Any:
        """See `Plant`."""
        self._observation, reward, terminated, truncated, _ = self._env.step(action)
        self._return += float(reward)
        if terminated or truncated:
            self.returns.append(self._return)
            self._observation, _ = self._env.reset()
            self._return = 0.0
        return action

    def __enter__(self) -> GymPlant:
        """See `Plant`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See `Plant`."""
        self._env.close()
