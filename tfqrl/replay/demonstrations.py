"""What a teacher would do where a student went."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from tfqrl.runs import State

Array = npt.NDArray[Any]


class Demonstrations:
    """The last `capacity` observations with a teacher's outputs, sampled uniformly. Memory is taken as it fills."""

    def __init__(self, capacity: int, spec: PolicySpec, outputs: int) -> None:
        """Room for `capacity` observations as the environment gives them, with `outputs` numbers for each."""
        self._added = 0
        self._observation = np.empty((capacity, *spec.observation.shape), spec.observation.dtype)
        self._output = np.empty((capacity, outputs), np.float32)

    def __len__(self) -> int:
        return min(self._added, len(self._output))

    def extend(self, observation: Array, output: Array) -> None:
        """Add (n, *shape) observations with (n, outputs), over the oldest where there is no room."""
        rows = np.arange(self._added, self._added + len(output)) % len(self._output)
        self._observation[rows], self._output[rows] = observation, output
        self._added += len(output)

    def sample(self, updates: int, batch_size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Observations and outputs with leading dimensions (updates, batch_size)."""
        rows = rng.integers(0, len(self), (updates, batch_size))
        return np.take(self._observation, rows, axis=0), np.take(self._output, rows, axis=0)

    def state(self) -> State:
        """What is in it, for a checkpoint; large arrays are views."""
        n = len(self)
        return {"added": np.array(self._added), "observation": self._observation[:n], "output": self._output[:n]}

    def restore(self, state: State) -> None:
        """The inverse of `state`, into a new one of the same capacity; nothing if that is empty."""
        if state:
            self._added = int(state["added"])
            n = len(self)
            self._observation[:n], self._output[:n] = state["observation"], state["output"]
