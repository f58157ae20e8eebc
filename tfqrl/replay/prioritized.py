"""Replay in which transitions come up the more often, the further off their values were."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from tfqrl.replay.sum_tree import SumTree
from tfqrl.replay.transitions import Transitions
from tfqrl.replay.uniform import UniformReplay
from tfqrl.runs import State

# Added to errors, so that a transition without one comes up again some time.
_EPSILON = 1e-6


class PrioritizedReplay(UniformReplay):
    """Proportional prioritised replay (Schaul et al. 2015, arXiv 1511.05952, algorithm 1)."""

    def __init__(self, capacity: int, spec: PolicySpec, alpha: float, beta: float) -> None:
        """Room for `capacity` transitions of a policy with `spec`.

        `alpha`, 0..1, is how much priorities matter: at 0 sampling is uniform. `beta`, 0..1, is how far weights make up
        for that: at 1 wholly. The paper lets it rise to 1; here it stays, as in Rainbow's later implementations.
        """
        super().__init__(capacity, spec)
        assert 0 <= alpha <= 1
        assert 0 <= beta <= 1
        self._alpha, self._beta = alpha, beta
        # Priorities are kept raised to alpha. New transitions get the largest there ever was, but not until it is
        # needed: the tree takes many at once at hardly more than the price of one.
        self._priorities = SumTree(capacity)
        self._largest = 1.0
        self._prioritized = 0

    def sample(self, updates: int, batch_size: int, rng: np.random.Generator) -> Transitions:
        """Transitions with leading dimensions (updates, batch_size), with `weight` and `index`.

        Each batch is stratified: one transition from each of `batch_size` equal parts of the sum of priorities. Its
        largest weight is 1.

        Args:
          updates: batches.
          batch_size: transitions in each.
          rng: what draws them.
        """
        assert len(self) > 0
        self._prioritize_new()
        strata = np.arange(batch_size) + rng.random((updates, batch_size))
        rows = self._priorities.find(strata * (self._priorities.total / batch_size))
        transitions = self._take(rows)
        priority = self._priorities[rows]
        # (size * probability) ** -beta over its largest: size and sum of priorities cancel.
        transitions.weight = np.float32((priority.min(axis=1, keepdims=True) / priority) ** self._beta)
        newest = self._added - 1
        transitions.index = newest - (newest - rows) % self._capacity
        return transitions

    def update_priorities(self, index: npt.NDArray[np.int64], td_error: npt.NDArray[np.float32]) -> None:
        """Set the priorities of what was sampled by how far off its values were.

        Args:
          index: (...) of the sample. Transitions that were overwritten since are passed over.
          td_error: (...) temporal-difference errors, finite, of either sign. Where an index comes up several times the
            last one counts.
        """
        assert np.isfinite(td_error).all()
        self._prioritize_new()
        priority = (np.abs(np.asarray(td_error, np.float64)) + _EPSILON) ** self._alpha
        kept = index >= self._added - self._capacity
        if kept.any():
            self._priorities[index[kept] % self._capacity] = priority[kept]
            self._largest = max(self._largest, float(priority[kept].max()))

    def state(self) -> State:
        """What `UniformReplay.state` gives, and the priorities."""
        self._prioritize_new()
        priorities = {"priority": self._priorities[: len(self)], "largest_priority": np.array(self._largest)}
        return super().state() | priorities

    def restore(self, state: State) -> None:
        """The inverse of `state`, into a new replay of the same capacity."""
        super().restore(state)
        self._largest = float(state["largest_priority"])
        self._priorities[np.arange(len(self))] = state["priority"]
        self._prioritized = self._added

    def _prioritize_new(self) -> None:
        new = np.arange(max(self._prioritized, self._added - self._capacity), self._added)
        self._priorities[new % self._capacity] = self._largest
        self._prioritized = self._added
