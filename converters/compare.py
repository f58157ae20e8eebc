"""A converted policy beside the float policy that it was made from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge.artifact import ActionSpec, Comparison, Returns

Array = npt.NDArray[np.generic]

# Actions for a batch of observations, (n, *observation.shape) -> (n, *action.shape).
Act = Callable[[Array], Array]


def compare_actions(expected: Array, actual: Array, spec: ActionSpec, returns: Returns | None) -> Comparison:
    """Compare the actions of two policies on the same observations, both (n, *action.shape)."""
    if spec.discrete:
        return Comparison(len(actual), None, None, float((expected == actual).mean()), returns)
    error = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    return Comparison(len(actual), float(error.max()), float(error.mean()), None, returns)


def compare_returns(float_returns: Array, converted_returns: Array, first_seed: int) -> Returns:
    """Compare episode returns that were seeded first_seed, first_seed + 1, ... for both policies, both (episodes,)."""
    difference = converted_returns.astype(np.float64) - float_returns.astype(np.float64)
    return Returns(
        episodes=len(difference),
        first_seed=first_seed,
        float_mean=float(float_returns.mean()),
        converted_mean=float(converted_returns.mean()),
        difference_mean=float(difference.mean()),
        difference_interval=bootstrap_interval(difference),
    )


def bootstrap_interval(values: Array, *, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean (Efron 1979) of (n,) values."""
    sample = np.asarray(values, np.float64)
    means = sample[np.random.default_rng(seed).integers(len(sample), size=(resamples, len(sample)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
