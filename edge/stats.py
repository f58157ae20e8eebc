"""Summaries of measured times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Percentiles:
    """A sample of times in microseconds.

    Attributes:
      n: sample size. Percentiles that the sample is too small for (p99.9 of fewer than 1000) lean on the maximum.
    """

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float

    @classmethod
    def of_ns(cls, times_ns: npt.NDArray[Any]) -> Percentiles | None:
        """Summarise times in nanoseconds; None if there are none."""
        if len(times_ns) == 0:
            return None
        times_us = np.asarray(times_ns, np.float64) / 1e3
        p50, p90, p99, p99_9 = (float(p) for p in np.percentile(times_us, [50, 90, 99, 99.9]))
        return cls(len(times_us), float(times_us.mean()), p50, p90, p99, p99_9, float(times_us.max()))


@dataclass(frozen=True)
class Histogram:
    """Counts of times: equal bins from the smallest to the 99.9th percentile, and one more up to the largest.

    Attributes:
      edges_us: bin edges in microseconds, one more than counts.
      counts: samples in each bin.
    """

    edges_us: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of_ns(cls, times_ns: npt.NDArray[Any], bins: int = 60) -> Histogram:
        """Bin times in nanoseconds."""
        if len(times_ns) == 0:
            return cls((0.0, 0.0), (0,))
        times_us = np.asarray(times_ns, np.float64) / 1e3
        low, p99_9, high = float(times_us.min()), float(np.percentile(times_us, 99.9)), float(times_us.max())
        edges = np.append(np.linspace(low, p99_9, bins + 1), high)
        counts, _ = np.histogram(times_us, edges)
        return cls(tuple(float(e) for e in edges), tuple(int(c) for c in counts))
