"""Replay in which every transition is as likely as any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from tfqrl.replay.transitions import Transitions
from tfqrl.runs import State


class UniformReplay:
    """The last `capacity` transitions (Lin 1992; Mnih et al. 2015), sampled uniformly with replacement.

    Memory is taken as it fills. Each field is an array of its own: to read all from one array of rows is faster only
    if they need not be split into arrays of their own afterwards, which TensorFlow would do otherwise (32 x 256 of
    300,000 transitions of HalfCheetah: five takes 0.5 ms; one take 0.2 ms, and 1.1 ms to split it).
    """

    def __init__(self, capacity: int, spec: PolicySpec) -> None:
        """Room for `capacity` transitions of a policy with `spec`."""
        assert capacity >= 1
        self._capacity = capacity
        # All transitions ever added; number i lies in row i % capacity.
        self._added = 0
        observation = (capacity, *spec.observation.shape)
        self._observation = np.empty(observation, spec.observation.dtype)
        self._next_observation = np.empty(observation, spec.observation.dtype)
        self._action = np.empty((capacity, *spec.action.shape), np.int32 if spec.action.discrete else np.float32)
        self._reward = np.empty(capacity, np.float32)
        self._discount = np.empty(capacity, np.float32)

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def extend(self, transitions: Transitions) -> None:
        """Add transitions with one leading dimension, over the oldest where there is no room."""
        begin = 0
        while begin < len(transitions):
            row = self._added % self._capacity
            end = min(len(transitions), begin + self._capacity - row)
            rows, part = slice(row, row + end - begin), slice(begin, end)
            self._observation[rows] = transitions.observation[part]
            self._action[rows] = transitions.action[part]
            self._reward[rows] = transitions.reward[part]
            self._next_observation[rows] = transitions.next_observation[part]
            self._discount[rows] = transitions.discount[part]
            self._added += end - begin
            begin = end

    def sample(self, updates: int, batch_size: int, rng: np.random.Generator) -> Transitions:
        """Transitions with leading dimensions (updates, batch_size), in contiguous arrays of their own."""
        assert len(self)
        return self._take(rng.integers(0, len(self), (updates, batch_size)))

    def _take(self, rows: npt.NDArray[np.int64]) -> Transitions:
        return Transitions(
            np.take(self._observation, rows, axis=0),
            np.take(self._action, rows, axis=0),
            np.take(self._reward, rows),
            np.take(self._next_observation, rows, axis=0),
            np.take(self._discount, rows),
        )
