"""Where a replay keeps observations that are vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfqrl.runs import State


class Vectors:
    """Rows of an observation and the one that followed it."""

    def __init__(self, capacity: int, shape: tuple[int, ...]) -> None:
        """Room for `capacity` rows of observations of `shape`, float32. Memory is taken as it is written to."""
        self._observation = np.empty((capacity, *shape), np.float32)
        self._next_observation = np.empty((capacity, *shape), np.float32)

    def write(self, rows: slice, observation: npt.NDArray[Any], next_observation: npt.NDArray[Any]) -> None:
        """Replace `rows`."""
        self._observation[rows] = observation
        self._next_observation[rows] = next_observation

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Observations and those that followed, (*rows.shape, *shape)."""
        return np.take(self._observation, rows, axis=0), np.take(self._next_observation, rows, axis=0)

    def state(self, rows: int) -> State:
        """The first `rows` rows, as views."""
        return {"observation": self._observation[:rows], "next_observation": self._next_observation[:rows]}

    def restore(self, state: State) -> None:
        """The inverse of `state`."""
        self.write(slice(0, len(state["observation"])), state["observation"], state["next_observation"])
