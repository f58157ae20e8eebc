import numpy as np
import pytest

from converters.compare import bootstrap_interval, compare_actions, compare_returns
from edge.artifact import ActionSpec


def test_action_errors_by_hand() -> None:
    spec = ActionSpec((2,), (-1.0, -1.0), (1.0, 1.0))
    comparison = compare_actions(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([[0.1, 1.0], [0.5, 0.2]]), spec, None)
    assert comparison.max_action_error == pytest.approx(0.3)
    assert comparison.mean_action_error == pytest.approx(0.1)
    assert comparison.agreement is None


def test_choices_are_compared_by_agreement() -> None:
    comparison = compare_actions(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0]), ActionSpec((), (), (), 4), None)
    assert (comparison.agreement, comparison.max_action_error) == (0.75, None)


def test_pairs_that_all_differ_alike_leave_no_doubt() -> None:
    returns = compare_returns(np.arange(10.0), np.arange(10.0) - 3.0, first_seed=5)
    assert returns.difference_mean == -3.0
    assert returns.difference_interval == (-3.0, -3.0)
    assert (returns.float_mean, returns.converted_mean) == (4.5, 1.5)


def test_the_bootstrap_interval_agrees_with_theory() -> None:
    # The mean of n normal values has deviation 1 / sqrt(n), so the interval is about 2 x 1.96 / sqrt(n) wide.
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    assert low < values.mean() < high
    assert bootstrap_interval(values) == (low, high), "the same data give the same interval"


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.exponential(size=60), resamples=500)
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99
