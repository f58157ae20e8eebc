"""Time as an argument, so that loops can be tested without waiting."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock that can be waited on."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes backwards."""
        ...

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Return at `deadline_ns` or as soon after it as possible; at once if it has passed."""
        ...


class MonotonicClock:
    """The system's monotonic clock."""

    def now_ns(self) -> int:
        """See `Clock`."""
        return time.monotonic_ns()

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """See `Clock`."""
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns > 0:
            time.sleep(remaining_ns * 1e-9)
