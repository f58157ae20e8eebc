"""Energy from a sensor that tells only power."""

from __future__ import annotations

import time
from collections.abc import Callable


class PowerIntegral:
    """Integrates a power reading over time by the trapezoid rule.

    What happens between two calls is not seen, so the meter has to be called often: `edge.meters.sampler` does.
    """

    def __init__(self, read_w: Callable[[], float], clock_s: Callable[[], float] = time.monotonic) -> None:
        """Read `read_w`, which gives watts, now and at each `energy_j`."""
        self._read_w, self._clock_s = read_w, clock_s
        self._total_j = 0.0
        self._last_s, self._last_w = clock_s(), read_w()

    def energy_j(self) -> float:
        """Joules since the beginning. Raises what the reading raises; the energy until then is not lost."""
        now_s, now_w = self._clock_s(), self._read_w()
        self._total_j += (now_s - self._last_s) * (now_w + self._last_w) / 2
        self._last_s, self._last_w = now_s, now_w
        return self._total_j
