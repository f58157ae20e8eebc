"""Relative errors, with intervals over seeds and paired episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from edge.stats import Estimate

Array = npt.NDArray[Any]

# The returns of two policies on the same episodes, (episodes,) each, for each seed of the training.
Pairs = Sequence[tuple[Array, Array]]


@dataclass(frozen=True)
class RelativeError:
    """How much of one policy's return another one loses.

    Attributes:
      value: the part.
      deviation: its standard error.
      freedom: the degrees of freedom that the standard error was estimated with.
    """

    value: float
    deviation: float
    freedom: float

    @property
    def estimate(self) -> Estimate:
        """With its 95 % interval, by Student's t."""
        half = float(stats.t.ppf(0.975, self.freedom)) * self.deviation
        return Estimate(self.value, self.value - half, self.value + half)


def relative_error(pairs: Pairs) -> RelativeError | None:
    """How much of the first policies' return the second ones lose: (A - B) / |A|, of means over seeds and episodes.

    QuaRL's relative error (Krishnan et al. 2022, arXiv 1910.01055), with all seeds taken together, so that one which
    learnt little does not decide. Its standard error is that of a ratio of means (the delta method), over seeds, whose
    means hold the noise of their episodes too; with one seed it is over paired episodes, and says nothing of other
    trainings.

    Returns:
      The error; None if of the first policies' returns those above and below 0 take more than half of each other
      away: a part of what is left means nothing.
    """
    if len(pairs) > 1:
        before, after = (np.array([np.mean(pair[i]) for pair in pairs], np.float64) for i in range(2))
    else:
        before, after = (np.asarray(values, np.float64) for values in pairs[0])
    whole = float(before.mean())
    if abs(whole) <= max(0.5 * float(np.abs(before).mean()), 1e-9):
        return None
    value = (whole - float(after.mean())) / abs(whole)
    # What each adds to the error, to first order.
    parts = (before - after - value * math.copysign(1.0, whole) * before) / abs(whole)
    return RelativeError(value, float(parts.std(ddof=1)) / math.sqrt(len(parts)), len(parts) - 1)


def mean_relative_error(errors: Sequence[RelativeError]) -> RelativeError:
    """The mean of the relative errors of several tasks, with the degrees of freedom of Welch and Satterthwaite."""
    n = len(errors)
    variances = np.array([error.deviation**2 for error in errors])
    total = float(variances.sum())
    inverse = float(sum(variance**2 / error.freedom for variance, error in zip(variances, errors)))
    freedom = total**2 / inverse if inverse > 0 else 1.0
    return RelativeError(float(np.mean([error.value for error in errors])), math.sqrt(total) / n, freedom)
