"""A Gymnasium environment as a plant: each write is one step of the simulation."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy.typing as npt

from edge.errors import UnknownNameError, UserError


class GymPlant:
    """Steps the environment on every write and resets it when an episode ends.

    Attributes:
      returns: the return of each finished episode.
    """

    def __init__(self, env: str, *, seed: int = 0) -> None:
        """Make the environment named `env`; the first episode is seeded with `seed`.

        Raises:
          UserError: gymnasium is not installed.
          UnknownNameError: there is no such environment.
        """
        try:
            import gymnasium
        except ImportError as error:
            raise UserError("The plant `gym` needs Gymnasium: `pip install 'gymnasium[mujoco]'`.") from error
        try:
            self._env: Any = gymnasium.make(env)
        except gymnasium.error.DependencyNotInstalled as error:
            raise UserError(f"The environment {env} cannot be made here: {error}") from error
        except (gymnasium.error.UnregisteredEnv, gymnasium.error.Error) as error:
            raise UnknownNameError("environment", env, gymnasium.registry) from error
        self._seed = seed
        self._observation: npt.NDArray[Any] | None = None
        self._return = 0.0
        self.returns: list[float] = []

    def reset(self) -> None:
        """See `Plant`."""
        self._observation, _ = self._env.reset(seed=self._seed)
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
