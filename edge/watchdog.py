"""Noticing that a call of the plant does not come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from edge.clock import Clock
from edge.errors import UserError


class Watchdog:
    """Acts, from a thread of its own, when a call that was announced takes longer than it may.

    The loop brackets each call of the plant with `begin` and `end`, which set one attribute each: nothing is locked
    or woken on the way.
    """

    def __init__(self, clock: Clock, stages: Sequence[tuple[int, Callable[[], None]]]) -> None:
        """Watch calls; `stages` are nanoseconds in rising order, and what to do once a call has taken longer."""
        self._clock, self._stages = clock, stages
        self._limit_ns = stages[0][0]
        self._began_ns: int | None = None
        self._seen_ns: int | None = None
        self._stage = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def begin(self) -> None:
        """A call of the plant begins."""
        self._began_ns = self._clock.now_ns()

    def end(self) -> bool:
        """It has come back; returns whether it took longer than the first stage allows."""
        began_ns, self._began_ns = self._began_ns, None
        return began_ns is not None and self._clock.now_ns() - began_ns > self._limit_ns

    def check(self) -> None:
        """Do what is due, each stage once for each call."""
        began_ns = self._began_ns
        if began_ns is None:
            return
        if began_ns != self._seen_ns:
            self._seen_ns, self._stage = began_ns, 0
        taken_ns = self._clock.now_ns() - began_ns
        while self._stage < len(self._stages) and taken_ns > self._stages[self._stage][0]:
            self._stage += 1
            self._stages[self._stage - 1][1]()

    def __enter__(self) -> Watchdog:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise UserError(
                f"The watchdog over the plant cannot be started ({error}), and the loop does not run without it. "
                "Stop other processes of this user, or give no --max-block."
            ) from error
        return self

    def __exit__(self, *details: object) -> None:
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closing.wait(self._limit_ns * 1e-9 / 4):
            self.check()
