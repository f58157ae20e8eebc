"""Relative errors, with intervals over seeds and paired episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.stats import Estimate, widening

Array = npt.NDArray[Any]

# The returns of two policies on the same episodes, (episodes,) each, for each seed of the training.
Pairs = Sequence[tuple[Array, Array]]

RESAMPLES = 2000


def relative_error(pairs: Pairs) -> Estimate:
    """How much of the first policies' return the second ones lose: (A - B) / |A|, of means over seeds and episodes.

    QuaRL's relative error (Krishnan et al. 2022, arXiv 1910.01055), with all seeds taken together, so that one which
    learnt little does not decide. The interval is by bootstrap over seeds and, within each, over its
    paired episodes, made wider where they are few; with one seed it is over episodes alone.
    """
    return _estimate(_error(pairs), _resampled(pairs))


def mean_relative_error(tasks: Sequence[Pairs]) -> Estimate:
    """The mean of the relative errors of several tasks."""
    values = [_error(pairs) for pairs in tasks]
    return _estimate(float(np.mean(values)), np.mean([_resampled(pairs) for pairs in tasks], axis=0))


def _error(pairs: Pairs) -> float:
    before, after = (float(np.mean([np.mean(pair[i]) for pair in pairs])) for i in range(2))
    return 0.0 if before == after else (before - after) / max(abs(before), 1e-9)


def _resampled(pairs: Pairs) -> Array:
    """Relative errors of RESAMPLES such samples, (RESAMPLES,)."""
    generator = np.random.default_rng(0)
    # (seeds, RESAMPLES): for each seed, means of as many episodes as there are, drawn with repetition.
    before, after = np.stack([_means(generator, *pair) for pair in pairs], axis=1)
    drawn = generator.integers(0, len(pairs), (RESAMPLES, len(pairs)))
    rows = np.arange(RESAMPLES)[:, None]
    before, after = before.T[rows, drawn].mean(axis=1), after.T[rows, drawn].mean(axis=1)
    errors = np.where(before == after, 0.0, (before - after) / np.maximum(np.abs(before), 1e-9))
    units = len(pairs) if len(pairs) > 1 else len(pairs[0][0])
    value = _error(pairs)
    return value + (errors - value) * widening(units)


def _means(generator: np.random.Generator, before: Array, after: Array) -> Array:
    """(2, RESAMPLES)."""
    drawn = generator.integers(0, len(before), (RESAMPLES, len(before)))
    return np.stack([np.asarray(before)[drawn].mean(axis=1), np.asarray(after)[drawn].mean(axis=1)])


def _estimate(value: float, resampled: Array) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
