"""Replay in which every transition is as likely as any other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from tfqrl.replay.frames import Frames
from tfqrl.replay.transitions import Transitions
from tfqrl.replay.vectors import Vectors
from tfqrl.runs import State, nested, prefixed


class UniformReplay:
    """The last `capacity` transitions (Lin 1992; Mnih et al. 2015), sampled uniformly with replacement.

    Memory is taken as it fills. Each field is an array of its own. Rows that hold all fields are read faster, but who
    learns needs the fields apart, and to take rows apart costs more than was saved.
    """

    def __init__(self, capacity: int, spec: PolicySpec) -> None:
        """Room for `capacity` transitions of a policy with `spec`."""
        assert capacity >= 1
        self._capacity = capacity
        # How many were ever added; transition i is in row i % capacity.
        self._added = 0
        keeper = Frames if spec.observation.frames else Vectors
        self._observations = keeper(capacity, spec.observation.shape)
        self._action = np.empty((capacity, *spec.action.shape), np.int32 if spec.action.discrete else np.float32)
        self._reward = np.empty(capacity, np.float32)
        self._discount = np.empty(capacity, np.float32)

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def extend(self, transitions: Transitions) -> None:
        """Add transitions with one leading dimension, over the oldest where there is no room. They are copied."""
        begin = 0
        while begin < len(transitions):
            row = self._added % self._capacity
            count = min(len(transitions) - begin, self._capacity - row)
            rows, part = slice(row, row + count), slice(begin, begin + count)
            self._observations.write(rows, transitions.observation[part], transitions.next_observation[part])
            self._action[rows] = transitions.action[part]
            self._reward[rows] = transitions.reward[part]
            self._discount[rows] = transitions.discount[part]
            self._added += count
            begin += count

    def sample(self, updates: int, batch_size: int, rng: np.random.Generator) -> Transitions:
        """Transitions with leading dimensions (updates, batch_size), in contiguous arrays of their own."""
        assert len(self) > 0
        return self._take(rng.integers(0, len(self), (updates, batch_size)))

    def _take(self, rows: npt.NDArray[np.int64]) -> Transitions:
        observation, next_observation = self._observations.take(rows)
        return Transitions(
            observation,
            np.take(self._action, rows, axis=0),
            np.take(self._reward, rows),
            next_observation,
            np.take(self._discount, rows),
        )

    def state(self) -> State:
        """What is in it, for a checkpoint. Write it before more is added: large arrays are views."""
        n = len(self)
        state = {"added": np.array(self._added)} | prefixed("observations", self._observations.state(n))
        return state | {"action": self._action[:n], "reward": self._reward[:n], "discount": self._discount[:n]}

    def restore(self, state: State) -> None:
        """The inverse of `state`, into a new replay of the same capacity."""
        assert len(self) == 0
        self._added = int(state["added"])
        n = len(self)
        assert len(state["reward"]) == n, "the capacity is another"
        self._observations.restore(nested(state, "observations"))
        self._action[:n], self._reward[:n], self._discount[:n] = state["action"], state["reward"], state["discount"]
