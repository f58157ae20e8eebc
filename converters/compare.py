"""A converted policy beside the float policy that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from converters.recipe import Recipe
from edge.artifact import ActionSpec, Comparison, Returns
from edge.errors import UsageError
from edge.stats import mean_estimate

Array = npt.NDArray[Any]

# Actions for a batch of observations, (n, *observation.shape) -> (n, *action.shape).
Act = Callable[[Array], Array]

Verdict = Literal["equivalent", "better", "worse", "undecided"]


def compare_actions(expected: Array, actual: Array, spec: ActionSpec, returns: Returns | None) -> Comparison:
    """Compare the actions of two policies on the same observations, both (n, *action.shape)."""
    if spec.discrete:
        return Comparison(len(actual), None, None, float((expected == actual).mean()), returns)
    error = np.abs(expected.astype(np.float64) - actual.astype(np.float64)).reshape(len(actual), -1)
    relative = float((error / spec.scaling[1]).mean())
    return Comparison(len(actual), float(error.max()), float(error.mean()), None, returns, relative)


def compare_returns(
    float_returns: Array, converted_returns: Array, first_seed: int, margin: float | None = None
) -> Returns:
    """Compare episode returns that were seeded first_seed, first_seed + 1, ... for both policies, both (episodes,).

    With a `margin`, also say whether they are equivalent.

    Raises:
      UsageError: fewer than 2 episodes.
    """
    if len(float_returns) < 2:
        raise UsageError(f"Returns are compared over 2 paired episodes or more; there were {len(float_returns)}.")
    difference = converted_returns.astype(np.float64) - float_returns.astype(np.float64)
    estimate = mean_estimate(difference)
    return Returns(
        episodes=len(difference),
        first_seed=first_seed,
        float_mean=float(float_returns.mean()),
        converted_mean=float(converted_returns.mean()),
        difference_mean=estimate.value,
        difference_interval=(estimate.low, estimate.high),
        margin=margin,
        verdict=None if margin is None else equivalence(difference, margin)[0],
    )


def equivalence(difference: Array, margin: float) -> tuple[Verdict, tuple[float, float]]:
    """Whether the mean of paired differences lies within +-margin, by two one-sided t-tests at 5 %.

    Both tests reject exactly where the 90 % interval of the mean lies within the margin: the procedure of Schuirmann
    (1987), as Lakens (2017) describes it. That two policies were not shown to differ would prove nothing: with few
    episodes nothing is.

    Args:
      difference: (n,), n at least 2.
      margin: at least 0, chosen before the differences were seen.

    Returns:
      "equivalent" if the interval lies within the margin, "better" or "worse" if it lies wholly above or below it,
      "undecided" otherwise, which more episodes may change; and the 90 % interval.
    """
    n, mean = len(difference), float(difference.mean())
    half_width = float(stats.t.ppf(0.95, n - 1) * difference.std(ddof=1) / np.sqrt(n))
    low, high = mean - half_width, mean + half_width
    if -margin <= low and high <= margin:
        return "equivalent", (low, high)
    if low > margin:
        return "better", (low, high)
    if high < -margin:
        return "worse", (low, high)
    return "undecided", (low, high)


def rejection(comparison: Comparison, recipe: Recipe) -> str | None:
    """The sentences that say which tolerance of its recipe a conversion broke, and what may cure it; None if none."""
    tolerance, error, same = recipe.tolerance, comparison.relative_action_error, comparison.agreement
    # `not <=` rather than `>`: a NaN is no success.
    if error is not None and not error <= tolerance.action_error:
        broken = (
            f"its actions differ from those of the float policy by {error:.2%} of half their range on average, "
            f"and {tolerance.action_error:.2%} is allowed"
        )
    elif same is not None and not same >= tolerance.agreement:
        broken = (
            f"it makes the float policy's choice on {same:.2%} of the observations, and {tolerance.agreement:.2%} is "
            "the least allowed"
        )
    elif (returns := comparison.returns) is not None and not (
        returns.difference_interval[1] >= -tolerance.return_loss * abs(returns.float_mean)
    ):
        low, high = returns.difference_interval
        broken = (
            f"its return differs from the float policy's {returns.float_mean:.1f} by {returns.difference_mean:+.1f} "
            f"(95 % interval [{low:+.1f}, {high:+.1f}]), and a loss of {tolerance.return_loss:.0%} is allowed"
        )
    else:
        return None
    return f"The conversion to {recipe.name} is rejected: {broken}. {_cure(recipe)}"


def _cure(recipe: Recipe) -> str:
    if recipe.weight_bits == 32:
        return "A conversion to float32 should change nothing: please report this, with the network."
    if recipe.weight_bits == 16:
        return "What may cure it: --recipe float32, if weights lie beyond what 16-bit floats can hold."
    cures = []
    if recipe.calibrated:
        others = [kind for kind in ("min-max", "percentile", "mse") if kind != recipe.calibration]
        cures.append(f"--calibration {' or '.join(others)}")
    if recipe.weight_bits <= 8 and not recipe.per_channel and not recipe.integer_io:
        cures.append("--weight-scales per-channel (for ai-edge-litert only)")
    if recipe.integer_io:
        cures.append("--recipe int8, whose input and output are floats")
    else:
        cures.append("--float-layers for the first or the last layer")
    if recipe.weight_bits < 8:
        cures.append("8-bit weights (--recipe int8)")
    elif recipe.name == "int8":
        cures.append("--recipe int16x8")
    return f"What may cure it: {'; '.join(cures)}; or training with quantised weights."
