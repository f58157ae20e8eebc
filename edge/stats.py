"""Summaries of measured times."""

from __future__ import annotations

from collections.abc import Callable
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


def bootstrap(
    blocks: npt.NDArray[Any], statistic: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> tuple[Estimate, ...]:
    """Figures of a sample that was taken in blocks, with their intervals.

    Neighbours are not independent (a slow moment is slow for many), so whole blocks are drawn, with replacement.

    Args:
      blocks: (blocks, samples in each).
      statistic: from a flat sample to a vector of figures.
    """
    generator = np.random.default_rng(0)
    values = np.atleast_1d(statistic(blocks.reshape(-1)))
    drawn = np.stack(
        [
            np.atleast_1d(statistic(blocks[generator.integers(0, len(blocks), len(blocks))].reshape(-1)))
            for _ in range(RESAMPLES)
        ]
    )
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return tuple(Estimate(float(v), float(a), float(b)) for v, a, b in zip(values, low, high))


@dataclass(frozen=True)
class Latency:
    """A sample of times in microseconds that was taken in rounds.

    Attributes:
      percentiles: of all of it.
      p50, p90, p99, p99_9: with intervals, by bootstrap over rounds.
      histogram: the distribution.
    """

    percentiles: Percentiles
    p50: Estimate
    p90: Estimate
    p99: Estimate
    p99_9: Estimate
    histogram: Histogram

    @classmethod
    def of_ns(cls, rounds_ns: npt.NDArray[Any]) -> Latency:
        """Summarise times in nanoseconds, (rounds, calls in each), of which there must be some."""
        percentiles = Percentiles.of_ns(rounds_ns.reshape(-1))
        assert percentiles is not None
        p50, p90, p99, p99_9 = bootstrap(rounds_ns / 1e3, lambda sample: np.percentile(sample, [50, 90, 99, 99.9]))
        return cls(percentiles, p50, p90, p99, p99_9, Histogram.of_ns(rounds_ns.reshape(-1)))
