"""Noticing that a call of the plant does not come back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge.clock import Clock
from edge.errors import UserError


class Watchdog:
    """Calls `bite` once, from a thread of its own, when a call that was announced takes longer than its limit.

    The loop brackets each call of the plant with `begin` and `end`, which set one attribute each: nothing is locked
    or woken on the way.
    """

    def __init__(self, clock: Clock, limit_ns: int, bite: Callable[[], None]) -> None:
        """Watch for calls longer than `limit_ns`."""
        self._clock, self._limit_ns, self._bite = clock, limit_ns, bite
        self._began_ns: int | None = None
        self._bitten: int | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def begin(self) -> None:
        """A call of the plant begins."""
        self._began_ns = self._clock.now_ns()

    def end(self) -> bool:
        """It has come back; returns whether it took longer than the limit."""
        began_ns, self._began_ns = self._began_ns, None
        return began_ns is not None and self._clock.now_ns() - began_ns > self._limit_ns

    def check(self) -> None:
        """Bite if a call is overdue, once for each call."""
        began_ns = self._began_ns
        if began_ns is None or began_ns == self._bitten:
            return
        if self._clock.now_ns() - began_ns > self._limit_ns:
            self._bitten = began_ns
            self._bite()

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
