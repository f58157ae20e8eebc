"""Where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Seconds by what they were spent on.
Spans = dict[str, float]


class Stopwatch:
    """Adds up what each part of a loop takes; one reading of the clock a part.

    >>> watch = Stopwatch("work", "wait")
    >>> for item in items:  # doctest: +SKIP
    ...     work(item)
    ...     watch.lap("work")
    ...     wait()
    ...     watch.lap("wait")
    """

    def __init__(self, *names: str, now_s: Callable[[], float] = time.perf_counter) -> None:
        """Count from now on; `names` are there, with 0, before their first lap."""
        self.spans: Spans = dict.fromkeys(names, 0.0)
        self._now_s = now_s
        self._last_s = now_s()

    def usage(self) -> Usage:
        """Until now; of the processor, what this process has used since it began."""
        return Usage(dict(self.spans), time.process_time())

    def lap(self, name: str) -> None:
        """What has passed since the last lap was spent on `name`."""
        now_s = self._now_s()
        self.spans[name] += now_s - self._last_s
        self._last_s = now_s


@dataclass(frozen=True)
class Usage:
    """What a process has used.

    Attributes:
      spans: seconds by what they were spent on.
      cpu_s: processor time, in seconds.
    """

    spans: Spans = field(default_factory=dict)
    cpu_s: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        names = list(dict.fromkeys([*self.spans, *other.spans]))
        spans = {name: self.spans.get(name, 0.0) + other.spans.get(name, 0.0) for name in names}
        return Usage(spans, self.cpu_s + other.cpu_s)


def shares(spans: Mapping[str, float]) -> dict[str, float]:
    """The part of each of all of them, 0..1; zeros if nothing was counted."""
    total = sum(spans.values())
    return {name: span / total if total else 0.0 for name, span in spans.items()}
