"""Noticing that a call of the plant does not come back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from edge.clock import Clock
from edge.errors import UserError


class Watchdog:
    """Acts, from threads of its own, when a call that was announced takes longer than it may.

    What helps first is done in a thread by itself, for it may block as the call does. The later stages must not block.
    """

    def __init__(
        self,
        clock: Clock,
        limit_ns: int,
        first: Callable[[], None],
        later: Sequence[tuple[int, Callable[[], None]]] = (),
    ) -> None:
        """Watch calls.

        Args:
          clock: the loop's.
          limit_ns: how long a call may take.
          first: what to do, once for each call, when it has taken longer.
          later: how long, in rising order, and what to do then.
        """
        self._clock, self._limit_ns, self._first = clock, limit_ns, first
        self._stages = [(limit_ns, self._start_first), *later]
        self._lock = threading.Lock()
        self._began_ns: int | None = None
        self._stage = 0
        self._helper: threading.Thread | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def begin(self) -> None:
        """A call of the plant begins."""
        with self._lock:
            self._began_ns, self._stage = self._clock.now_ns(), 0

    def end(self) -> bool:
        """It has come back; returns whether it took longer than it may, or anything was done about it.

        What was done first is given as long again to end, so that it does not come after what the loop does next.
        """
        with self._lock:
            assert self._began_ns is not None
            late = self._stage > 0 or self._clock.now_ns() - self._began_ns > self._limit_ns
            self._began_ns = None
        self.settle()
        return late

    def settle(self) -> bool:
        """Give what was done first time to end, as long as a call may take; returns whether there was anything."""
        helper = self._helper
        if helper is None:
            return False
        helper.join(self._limit_ns * 1e-9)
        if not helper.is_alive():
            self._helper = None
        return True

    def check(self) -> None:
        """Do what is due, each stage once for each call."""
        while True:
            with self._lock:
                if self._began_ns is None or self._stage == len(self._stages):
                    return
                after_ns, act = self._stages[self._stage]
                if self._clock.now_ns() - self._began_ns <= after_ns:
                    return
                self._stage += 1
                # Still locked, so that it cannot come after `end`.
                act()

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

    def _start_first(self) -> None:
        # One at a time: what a stuck one waits for would hold the next one too.
        if self._helper is not None and self._helper.is_alive():
            return
        helper = threading.Thread(target=self._first, name="watchdog's help", daemon=True)
        # Without a thread to spare the later stages are what is left.
        with contextlib.suppress(RuntimeError):
            helper.start()
            self._helper = helper

    def _watch(self) -> None:
        while not self._closing.wait(self._limit_ns * 1e-9 / 4):
            self.check()
