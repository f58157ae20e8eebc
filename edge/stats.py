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


RESAMPLES = 1000

# Student's t, 97.5 %, for samples of 2 to 10; for larger ones the first terms of its expansion in 1 / (n - 1) will do.
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_Z_975 = 1.960


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    Attributes:
      value: the figure.
      low, high: ends of the interval.
    """

    value: float
    low: float
    high: float


def mean_estimate(values: npt.NDArray[Any]) -> Estimate:
    """The mean of a few independent values, with a bootstrap interval that holds for small samples too.

    The bare percentile bootstrap is too narrow there: it divides by n where n - 1 would be right, and takes the spread
    for known. Both are put right by widening it.

    Args:
      values: (n,), at least 2.
    """
    n = len(values)
    generator = np.random.default_rng(0)
    mean = float(np.mean(values))
    means = np.asarray(values)[generator.integers(0, n, (RESAMPLES, n))].mean(axis=1)
    low, high = np.percentile(means - mean, [2.5, 97.5]) * np.sqrt(n / (n - 1)) * _t_975(n - 1) / _Z_975
    return Estimate(mean, mean + float(low), mean + float(high))


def _t_975(freedom: int) -> float:
    return _T_975[freedom - 1] if freedom <= len(_T_975) else _Z_975 + 2.372 / freedom + 2.82 / freedom**2


@dataclass(frozen=True)
class Latency:
    """A sample of times in microseconds that was taken in several sessions.

    Attributes:
      percentiles: of all of it.
      p50, p90, p99, p99_9: mean over the sessions of each one's own percentile, with intervals by bootstrap over
        sessions.
      histogram: the distribution of all of it.
    """

    percentiles: Percentiles
    p50: Estimate
    p90: Estimate
    p99: Estimate
    p99_9: Estimate
    histogram: Histogram

    @classmethod
    def of_ns(cls, sessions_ns: npt.NDArray[Any], step_ns: int = 0) -> Latency:
        """Summarise times in nanoseconds, (sessions, calls in each), of which there must be some.

        Sessions may agree to the last digit only because the clock does not count finer; so the intervals are widened
        by its step, `step_ns`.
        """
        percentiles = Percentiles.of_ns(sessions_ns.reshape(-1))
        assert percentiles is not None
        by_session = np.percentile(sessions_ns / 1e3, [50, 90, 99, 99.9], axis=1)
        p50, p90, p99, p99_9 = (_widened(mean_estimate(values), step_ns / 1e3) for values in by_session)
        return cls(percentiles, p50, p90, p99, p99_9, Histogram.of_ns(sessions_ns.reshape(-1)))


def _widened(estimate: Estimate, by: float) -> Estimate:
    return Estimate(estimate.value, max(0.0, estimate.low - by), estimate.high + by)
