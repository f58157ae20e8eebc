from dataclasses import astuple

import numpy as np
import pytest

from edge.stats import Histogram, Latency, Percentiles, mean_estimate


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


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_of_few_values_hold_the_truth_in_95_of_100_cases(n: int) -> None:
    rng = np.random.default_rng(n)
    estimates = [mean_estimate(rng.normal(size=n)) for _ in range(2000)]
    covered = np.mean([estimate.low < 0 < estimate.high for estimate in estimates])
    # Three standard errors of this simulation on either side. The bare bootstrap gives 75, 86 and 91 %.
    assert covered == pytest.approx(0.95, abs=0.015)
    assert np.mean([estimate.low > 0 for estimate in estimates]) == pytest.approx(0.025, abs=0.011)


@pytest.mark.parametrize(("n", "t"), [(4, 3.182), (10, 2.262), (12, 2.201), (200, 1.972)])
def test_the_interval_is_as_wide_as_students(n: int, t: float) -> None:
    values = np.linspace(-1, 1, n)
    estimate = mean_estimate(values)
    assert estimate.value == pytest.approx(0.0, abs=1e-12)
    assert estimate.high - estimate.low == pytest.approx(2 * t * values.std(ddof=1) / np.sqrt(n), rel=0.1)


def test_latency_has_intervals_over_sessions() -> None:
    rng = np.random.default_rng(0)
    levels_ns = np.array([10_000, 11_000, 12_000, 10_500, 11_500])
    sessions_ns = levels_ns[:, np.newaxis] + rng.integers(0, 100, (5, 2000))
    latency = Latency.of_ns(sessions_ns)
    assert latency.percentiles.n == 10_000
    assert latency.p50.value == pytest.approx(11.05, abs=0.01)
    # 10,000 calls, but five sessions: t of 4 degrees of freedom, 2.776, x 0.79 us / sqrt(5).
    assert latency.p50.high - latency.p50.low == pytest.approx(
        2 * 2.776 * levels_ns.std(ddof=1) / 5**0.5 / 1e3, rel=0.1
    )
    assert latency.p99_9.value <= latency.percentiles.max


def test_sessions_that_agree_to_the_clocks_last_digit_are_known_to_a_step_of_it_only() -> None:
    latency = Latency.of_ns(np.full((5, 100), 1000), step_ns=10)
    assert (latency.p50.low, latency.p50.value, latency.p50.high) == pytest.approx((0.99, 1.0, 1.01))
    assert Latency.of_ns(np.full((5, 100), 3), step_ns=10).p50.low == 0.0
