import numpy as np
import pytest

from tfqrl.study.estimates import mean_relative_error, relative_error


def test_a_relative_error_is_what_is_lost_of_the_baselines_mean() -> None:
    one, other = np.array([90.0, 110.0]), np.array([80.0, 100.0])
    assert relative_error([(one, other)]).value == pytest.approx(0.1)
    # Seeds are taken together: (100 + 20) / 2 = 60 against (90 + 20) / 2 = 55.
    second = np.array([20.0, 20.0])
    assert relative_error([(one, other), (second, second)]).value == pytest.approx(5 / 60)
    # A loss is positive also where returns are negative.
    assert relative_error([(-one, -1.5 * one)]).value == pytest.approx(0.5)


def test_equal_returns_are_an_error_of_zero_for_certain() -> None:
    for returns in (np.array([1.0, 2.0, 3.0]), np.zeros(3)):
        error = relative_error([(returns, returns)])
        assert (error.value, error.low, error.high) == (0.0, 0.0, 0.0)


def test_intervals_of_single_trainings_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        before = generator.normal(100, 10, 40)
        error = relative_error([(before, before - generator.normal(5, 8, 40))])
        held += error.low <= 0.05 <= error.high
    # 95 % of 200 are 190, with a standard deviation of 3.1.
    assert 180 <= held <= 199


def test_intervals_over_seeds_hold_the_truth_though_seeds_differ() -> None:
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        pairs = []
        for _ in range(3):
            before = generator.normal(100, 5, 20)
            pairs.append((before, before - generator.normal(generator.normal(5, 4), 5, 20)))
        error = relative_error(pairs)
        held += error.low <= 0.05 <= error.high
    # With three seeds the interval leans on their spread alone, and is on the safe side.
    assert held >= 180


def test_a_mean_over_tasks_is_narrower_than_its_parts() -> None:
    generator = np.random.default_rng(3)
    tasks = []
    for _ in range(16):
        before = generator.normal(50, 5, 30)
        tasks.append([(before, before - generator.normal(1, 5, 30))])
    mean, parts = mean_relative_error(tasks), [relative_error(pairs) for pairs in tasks]
    assert mean.value == pytest.approx(np.mean([part.value for part in parts]))
    assert mean.high - mean.low < 0.5 * np.mean([part.high - part.low for part in parts])
