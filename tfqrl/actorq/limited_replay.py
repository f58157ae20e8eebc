"""A replay that actors fill and a learner reads, at a fixed ratio of the one to the other."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from tfqrl.replay import Transitions, UniformReplay
from tfqrl.runs import State


class LimitedReplay:
    """Makes actors and learner wait for each other, so that each transition is learnt from equally often on average.

    What is learnt from a number of steps then does not depend on how fast either side is (Cassirer et al. 2021, arXiv
    2102.04736, section 3.4). Either side may be ahead by about one call of updates, which is what lets them work at the
    same time. All methods may be called from several threads.
    """

    def __init__(
        self, replay: UniformReplay, *, samples_per_insert: float, samples_per_call: int, learning_starts: int
    ) -> None:
        """Limit `replay`.

        Args:
          replay: may hold something already.
          samples_per_insert: the ratio.
          samples_per_call: how many are read at a time.
          learning_starts: reading begins with so many transitions; those until then do not count for the ratio.
        """
        self.replay = replay
        self._ratio, self._per_call, self._learning_starts = samples_per_insert, samples_per_call, learning_starts
        self._changed = threading.Condition()
        self._open = True
        # Since reading began.
        self._inserted: int | None = None
        self._sampled = 0

    def insert(self, transitions: Transitions) -> None:
        """Add transitions, with one leading dimension."""
        with self._changed:
            self.replay.extend(transitions)
            if self._inserted is not None:
                self._inserted += len(transitions)
            elif len(self.replay) >= self._learning_starts:
                self._inserted = 0
            self._changed.notify_all()

    def wait_for_reader(self, timeout_s: float) -> bool:
        """Wait while there is more to read than one call; whether that is over."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open or self._due() < 2 * self._per_call, timeout_s)

    def wait_for_writers(self, timeout_s: float) -> bool:
        """Wait until there is enough for a call; whether there is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or self._due() >= self._per_call, timeout_s)
            return self._due() >= self._per_call

    def sample(self, updates: int, batch_size: int, rng: np.random.Generator) -> Transitions:
        """As `UniformReplay.sample`."""
        with self._changed:
            self._sampled += updates * batch_size
            self._changed.notify_all()
            return self.replay.sample(updates, batch_size, rng)

    def update_priorities(self, index: npt.NDArray[np.int64], errors: npt.NDArray[np.float32]) -> None:
        """As `PrioritizedReplay.update_priorities`, for a replay that is one."""
        with self._changed:
            self.replay.update_priorities(index, errors)  # type: ignore[attr-defined]

    def state(self) -> State:
        """What is in it, for a checkpoint: a copy, because actors go on."""
        with self._changed:
            state = self.replay.state().items()
            return {name: array if array.base is None else array.copy() for name, array in state}

    def release(self) -> None:
        """Let nobody wait from now on."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def _due(self) -> float:
        return 0.0 if self._inserted is None else self._ratio * self._inserted - self._sampled
