from dataclasses import astuple

import numpy as np
import pytest

from edge.stats import Histogram, Percentiles


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
