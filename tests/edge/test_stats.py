from dataclasses import astuple

import numpy as np
import pytest

from edge.stats import Histogram, Latency, Percentiles, bootstrap


def test_percentiles_of_a_known_sample() -> None:
    times = Percentiles.of_ns(np.arange(0, 1_001_000, 1000))
    assert times is not None
    expected = Percentiles(n=1001, mean=500.0, p50=500.0, p90=900.0, p99=990.0, p99_9=999.0, max=1000.0)
    assert astuple(times) == pytest.approx(astuple(expected))


def test_no_sample_has_no_percentiles() -> None:
    assert Percentiles.of_ns(np.array([])) is None


def test_a_histogram_counts_every_sample_once() -> None:
    rng = np.random.default_rng(0)
    times_ns = rng.lognormal(8, 2, 5000).astype(np.int64)
    histogram = Histogram.of_ns(times_ns)
    assert sum(histogram.counts) == 5000
    assert histogram.edges_us[0] == times_ns.min() / 1e3
    assert histogram.edges_us[-1] == times_ns.max() / 1e3


def test_a_histogram_of_one_value_or_none_is_still_one() -> None:
    assert sum(Histogram.of_ns(np.array([7, 7, 7])).counts) == 3
    assert sum(Histogram.of_ns(np.array([0])).counts) == 1
    assert sum(Histogram.of_ns(np.array([])).counts) == 0


def test_one_slow_call_does_not_stretch_the_bins() -> None:
    times_ns = np.append(np.linspace(1000, 2000, 2000), 1e9)
    histogram = Histogram.of_ns(times_ns)
    assert histogram.edges_us[-2] < 2.1
    assert histogram.counts[-1] == 2


def test_the_bootstrap_draws_whole_blocks() -> None:
    # Within a block all values are equal: 10 blocks carry the information of 10 values, not of 10,000.
    rng = np.random.default_rng(0)
    levels = rng.normal(size=10)
    blocks = np.repeat(levels[:, np.newaxis], 1000, axis=1)
    (mean,) = bootstrap(blocks, lambda sample: np.array([sample.mean()]))
    assert mean.value == pytest.approx(levels.mean())
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * levels.std() / np.sqrt(10), rel=0.15)


def test_latency_has_intervals_around_its_percentiles() -> None:
    rounds_ns = np.random.default_rng(0).integers(1000, 2000, (20, 50))
    latency = Latency.of_ns(rounds_ns)
    assert latency.percentiles.n == 1000
    assert latency.p50.low <= latency.p50.value == latency.percentiles.p50 <= latency.p50.high
    assert latency.p99_9.high <= latency.percentiles.max
