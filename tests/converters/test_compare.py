from dataclasses import replace

import numpy as np
import pytest

from converters.compare import compare_actions, compare_returns, equivalence, rejection
from converters.recipe import RECIPES, Recipe
from edge.artifact import ActionSpec, Comparison, Returns
from edge.errors import UsageError


def test_action_errors_by_hand() -> None:
    spec = ActionSpec((2,), (-1.0, 0.0), (1.0, 8.0))
    comparison = compare_actions(np.array([[0.0, 1.0], [0.5, 0.5]]), np.array([[0.1, 1.0], [0.5, 0.2]]), spec, None)
    assert comparison.max_action_error == pytest.approx(0.3)
    assert comparison.mean_action_error == pytest.approx(0.1)
    # 0.1 of 1 and 0.3 of 4, over four actions.
    assert comparison.relative_action_error == pytest.approx((0.1 + 0.075) / 4)
    assert comparison.agreement is None


def test_an_action_without_bounds_is_measured_in_its_own_unit() -> None:
    bounded, half_range, middle = ActionSpec((3,), (-2.0, None, 0.0), (2.0, 5.0, None)).scaling
    np.testing.assert_array_equal(bounded, [True, False, False])
    np.testing.assert_array_equal(half_range, [2.0, 1.0, 1.0])
    np.testing.assert_array_equal(middle, [0.0, 0.0, 0.0])


def test_choices_are_compared_by_agreement() -> None:
    comparison = compare_actions(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0]), ActionSpec((), (), (), 4), None)
    assert (comparison.agreement, comparison.max_action_error) == (0.75, None)
    assert comparison.relative_action_error is None


def test_pairs_that_all_differ_alike_leave_no_doubt() -> None:
    returns = compare_returns(np.arange(10.0), np.arange(10.0) - 3.0, first_seed=5, margin=3.5)
    assert returns.difference_mean == -3.0
    assert returns.difference_interval == (-3.0, -3.0)
    assert (returns.float_mean, returns.converted_mean) == (4.5, 1.5)
    assert (returns.margin, returns.verdict) == (3.5, "equivalent")
    assert compare_returns(np.arange(10.0), np.arange(10.0) - 3.0, first_seed=5, margin=2.5).verdict == "worse"
    assert compare_returns(np.arange(10.0), np.arange(10.0) + 3.0, first_seed=5, margin=2.5).verdict == "better"


def test_without_a_margin_there_is_no_verdict() -> None:
    returns = compare_returns(np.arange(10.0), np.arange(10.0), first_seed=5)
    assert (returns.margin, returns.verdict) == (None, None)


# The mean of 1, 2, 3 is 2, its standard error 1 / sqrt(3), Student's t (95 %, 2 degrees of freedom) 2.919986: the 90 %
# interval is 2 +- 1.685854.
@pytest.mark.parametrize(
    ("margin", "gain", "loss"),
    [(3.69, "equivalent", "equivalent"), (3.68, "undecided", "undecided"), (2.0, "undecided", "undecided"),
     (0.32, "undecided", "undecided"), (0.31, "better", "worse")],
)  # fmt: skip
@pytest.mark.parametrize("sign", [1, -1])
def test_the_verdict_is_where_the_90_percent_interval_lies(margin: float, gain: str, loss: str, sign: int) -> None:
    found, interval = equivalence(sign * np.array([1.0, 2.0, 3.0]), margin)
    assert found == (gain if sign > 0 else loss)
    assert interval == pytest.approx(sorted((sign * 0.314146, sign * 3.685854)), abs=1e-6)


def test_the_textbook_t_test_decides_alike() -> None:
    # Both one-sided p-values by scipy's own test, on both sides of 5 %.
    from scipy.stats import ttest_1samp

    rng, verdicts = np.random.default_rng(0), set()
    for _ in range(200):
        difference = rng.normal(rng.uniform(-1.0, 1.0), 1.0, 12)
        above = ttest_1samp(difference, -1.0, alternative="greater").pvalue
        below = ttest_1samp(difference, 1.0, alternative="less").pvalue
        verdict, _ = equivalence(difference, 1.0)
        verdicts.add(verdict)
        assert (verdict == "equivalent") == (max(above, below) <= 0.05)
    assert {"equivalent", "undecided"} <= verdicts


def test_policies_at_the_margin_are_called_equivalent_in_one_case_of_twenty() -> None:
    rng = np.random.default_rng(1)
    called = sum(equivalence(rng.normal(1.0, 1.0, 20), 1.0)[0] == "equivalent" for _ in range(2000))
    assert 0.035 <= called / 2000 <= 0.065


def test_equal_returns_are_equivalent_by_any_margin_even_none_at_all() -> None:
    returns = compare_returns(np.zeros(5), np.zeros(5), first_seed=0, margin=0.0)
    assert (returns.verdict, returns.difference_interval) == ("equivalent", (0.0, 0.0))


def test_one_episode_is_no_comparison() -> None:
    with pytest.raises(UsageError, match="over 2 paired episodes or more; there were 1"):
        compare_returns(np.zeros(1), np.zeros(1), first_seed=0)


def returns_of(difference: float, low: float, high: float) -> Returns:
    return Returns(20, 0, -200.0, -200.0 + difference, difference, (low, high))


def compared(error: float | None = None, agreement: float | None = None, returns: Returns | None = None) -> Comparison:
    return Comparison(100, error, error, agreement, returns, error)


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_tolerates_is_not_rejected(name: str) -> None:
    tolerance = RECIPES[name].tolerance
    # A loss of up to 2 % of -200 lies within the interval.
    assert rejection(compared(tolerance.action_error, None, returns_of(-20.0, -37.0, -3.9)), RECIPES[name]) is None
    assert rejection(compared(None, tolerance.agreement), RECIPES[name]) is None


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    ("comparison", "broken"),
    [
        (compared(0.5), "its actions differ from those of the float policy by 50.00% of half their range on average"),
        (compared(float("nan")), "by nan%"),
        (compared(None, 0.5), "it makes the float policy's choice on 50.00% of the observations"),
        (compared(0.0, None, returns_of(-20.0, -30.0, -11.0)), "differs from the float policy's -200.0 by -20.0"),
    ],
)
def test_a_broken_tolerance_is_named(name: str, comparison: Comparison, broken: str) -> None:
    sentence = rejection(comparison, RECIPES[name])
    assert sentence is not None
    assert sentence.startswith(f"The conversion to {name} is rejected: ")
    assert broken in sentence


def test_a_gain_is_never_rejected() -> None:
    assert rejection(compared(0.0, None, returns_of(90.0, 80.0, 99.0)), RECIPES["int8"]) is None


@pytest.mark.parametrize(
    ("recipe", "cures", "others"),
    [
        (RECIPES["float32"], ["please report this"], ["--"]),
        (RECIPES["float16"], ["--recipe float32"], ["--calibration"]),
        (RECIPES["dynamic-int8"], ["--float-layers"], ["--calibration", "--weight-scales", "8-bit weights"]),
        (replace(RECIPES["dynamic-int8"], per_channel=False), ["--weight-scales per-channel"], []),
        (RECIPES["int8"], ["--weight-scales", "--calibration percentile or mse", "int16x8", "training"], []),
        (replace(RECIPES["int8"], calibration="mse"), ["--calibration min-max or percentile"], []),
        (RECIPES["int8-full"], ["--recipe int8,", "--calibration"], ["--float-layers", "--weight-scales"]),
        (RECIPES["int4"], ["8-bit weights (--recipe int8)", "training with quantised weights"], ["--calibration"]),
    ],
)
def test_only_cures_that_the_recipe_has_are_offered(recipe: Recipe, cures: list[str], others: list[str]) -> None:
    sentence = rejection(compared(1.0), recipe)
    assert sentence is not None
    for cure in cures:
        assert cure in sentence
    for other in others:
        assert other not in sentence
