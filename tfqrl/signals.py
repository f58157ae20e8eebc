"""Stopping a training without losing it."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """Training that was stopped by a signal, after it saved its checkpoint.

    Attributes:
      signal_number: which signal.
      cure: how to go on.
    """

    def __init__(self, signal_number: int, cure: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number
        self.cure = cure


class StopRequest:
    """Notes SIGINT and SIGTERM instead of dying of them, so that the training loop can end between two iterations.

    A second signal acts as if this were not here: whoever insists is obeyed at once.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal_number is not None

    def raise_if_requested(self, cure: str = "go on with --resume") -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number, cure)

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class StopFlag(StopRequest):
    """The same for who is not told by signals, but by another thread."""

    def __init__(self) -> None:
        super().__init__()
        self._flag = threading.Event()

    @property
    def requested(self) -> bool:
        """Whether `set` was called."""
        return self._flag.is_set()

    def set(self) -> None:
        """Ask to stop."""
        self._flag.set()

    def __enter__(self) -> StopFlag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to restore."""
