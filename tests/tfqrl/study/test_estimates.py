import numpy as np
import pytest

from tfqrl.study.estimates import Pairs, mean_relative_error, relative_error


def error_of(pairs: Pairs) -> float:
    error = relative_error(pairs)
    assert error is not None
    return error.value


def held(errors: list[tuple[float, float]], truth: float) -> int:
    return sum(low <= truth <= high for low, high in errors)


def test_a_relative_error_is_what_is_lost_of_the_baselines_mean() -> None:
    one, other = np.array([90.0, 110.0]), np.array([80.0, 100.0])
    assert error_of([(one, other)]) == pytest.approx(0.1)
    # Seeds are taken together: (100 + 20) / 2 = 60 against (90 + 20) / 2 = 55.
    second = np.array([20.0, 20.0])
    assert error_of([(one, other), (second, second)]) == pytest.approx(5 / 60)
    # A loss is positive also where returns are negative.
    assert error_of([(-one, -1.5 * one)]) == pytest.approx(0.5)


def test_equal_returns_are_an_error_of_zero_for_certain() -> None:
    error = relative_error([(np.array([1.0, 2.0, 3.0]),) * 2])
    assert error is not None
    assert (error.value, error.deviation) == (0.0, 0.0)
    assert (error.estimate.low, error.estimate.high) == (0.0, 0.0)


def test_nothing_is_a_part_of_zero() -> None:
    assert relative_error([(np.zeros(3), np.ones(3))]) is None


def test_of_what_may_be_zero_there_is_no_part() -> None:
    # 194, -101 and -100: a mean of -2.
    seeds = [(np.full(4, value), np.full(4, value - 1)) for value in (194.0, -101.0, -100.0)]
    assert relative_error(seeds) is None
    assert relative_error(seeds[:1]) is not None


def test_a_loss_in_proportion_has_no_noise_though_returns_have() -> None:
    returns = np.array([50.0, 150.0, 100.0, -20.0])
    for sign in (1.0, -1.0):
        error = relative_error([(sign * returns, 0.9 * sign * returns)])
        assert error is not None
        assert error.value == pytest.approx(0.1 * sign)
        assert error.deviation == pytest.approx(0.0, abs=1e-12)


def test_intervals_of_single_trainings_hold_the_truth_as_often_as_they_say() -> None:
    generator, found = np.random.default_rng(1), []
    for _ in range(400):
        before = generator.normal(100, 10, 40)
        error = relative_error([(before, before - generator.normal(5, 8, 40))])
        assert error is not None
        found.append((error.estimate.low, error.estimate.high))
    # 95 % of 400 are 380, with a standard deviation of 4.4.
    assert 366 <= held(found, 0.05) <= 394


def test_intervals_over_seeds_and_of_means_over_tasks_do_too() -> None:
    generator, single, mean = np.random.default_rng(2), [], []
    for _ in range(300):
        errors = []
        for _ in range(6):
            pairs = []
            for _ in range(3):
                before = generator.normal(100, 5, 20)
                pairs.append((before, before - generator.normal(generator.normal(5, 4), 5, 20)))
            error = relative_error(pairs)
            assert error is not None
            errors.append(error)
        single.append((errors[0].estimate.low, errors[0].estimate.high))
        estimate = mean_relative_error(errors).estimate
        mean.append((estimate.low, estimate.high))
    # 95 % of 300 are 285, with a standard deviation of 3.8.
    assert 273 <= held(single, 0.05) <= 297
    assert 273 <= held(mean, 0.05) <= 297
    widths = [np.mean([high - low for low, high in found]) for found in (single, mean)]
    assert widths[1] < 0.5 * widths[0]
