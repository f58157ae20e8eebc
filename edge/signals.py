"""SIGINT, SIGTERM and SIGHUP as something that a loop can clean up after."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SIGHUP is what a lost ssh session sends.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal after the first breaks off what is done. Not an `Exception`, which a careless `except` would swallow."""


class StopSignals:
    """What signals have come.

    Attributes:
      number: the first one; None as long as there was none.
      closed: no signal interrupts any more: the last write to the plant comes next.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.closed = False
        self._thread: int | None = None
        self._breaking_off = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal, which the loop looks for once a tick: no write is cut in half. Raise at the others.

        Raises:
          Stopped: this is not the first one, and not `closed` yet. Whoever insists has a plant that is stuck.
        """
        if self.number is None and not self._breaking_off:
            self.number = number
        elif not self.closed:
            raise Stopped

    def break_off(self) -> None:
        """From another thread: raise `Stopped` in the one that handles signals, out of a call that blocks.

        A system call returns early for a signal. What is stuck without one, or blocks signals, is not reached.
        """
        if self._thread is not None:
            self._breaking_off = True
            signal.pthread_kill(self._thread, signal.SIGTERM)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Handle signals until the end. In threads other than the main one, to which Python gives signals, do nothing."""
    stop = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    stop._thread = threading.get_ident()
    before = {number: signal.signal(number, stop.handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
