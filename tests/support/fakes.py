"""Stand-ins for the wall clock and for a plant, both scripted by the test."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent.parent / "data"


class FakeClock:
    """Moves only when told: by `advance`, and by sleeping, `overshoot_ns` too long."""

    def __init__(self, start_ns: int = 1_000, overshoot_ns: int = 0) -> None:
        self.time_ns = start_ns
        self.overshoot_ns = overshoot_ns

    def now_ns(self) -> int:
        return self.time_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        if deadline_ns > self.time_ns:
            self.time_ns = deadline_ns + self.overshoot_ns

    def advance(self, by_ns: int) -> None:
        self.time_ns += by_ns


class HurriedClock:
    """The real time, for plants that tell when they were read; but nobody waits for a deadline."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_until_ns(self, deadline_ns: int) -> None:
        pass


class FakePlant:
    """Reads scripted observations (the last one for ever) and records what is written.

    `work(tick)` is called within each read, to move the clock or to raise.
    """

    def __init__(self, observations: Sequence[Any], work: Callable[[int], None] = lambda tick: None) -> None:
        self.observations = [np.asarray(observation) for observation in observations]
        self.work = work
        self.reads = 0
        self.written: list[Any] = []

    def reset(self) -> None:
        self.reads = 0

    def read(self) -> Any:
        observation = self.observations[min(self.reads, len(self.observations) - 1)]
        self.reads += 1
        self.work(self.reads - 1)
        return observation

    def write(self, action: Any) -> Any:
        self.written.append(np.array(action))
        return action

    def __enter__(self) -> "FakePlant":
        return self

    def __exit__(self, *details: object) -> None:
        pass
