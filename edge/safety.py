"""What a control loop does not let through: bad observations, and actions that ask too much of a motor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import FloatArray, ObservationSpec, PolicySpec
from edge.errors import UnknownNameError, UsageError


class Cause(Enum):
    """Why the failsafe action was written. The number is the exit code if the loop stops for it."""

    NON_FINITE = ("non-finite observation", 10)
    OUT_OF_RANGE = ("observation out of range", 11)
    STALE = ("stale observation", 12)
    BACKWARDS = ("observation time going backwards", 13)
    PLANT_ERROR = ("plant error", 14)
    PLANT_BLOCKED = ("plant blocked", 15)
    MISSED = ("missed deadlines", 16)
    BAD_ACTION = ("non-finite action", 17)
    PLANT_STOPPED = ("plant stopped", 18)

    @property
    def text(self) -> str:
        """For reports."""
        return self.value[0]

    @property
    def exit_code(self) -> int:
        """Of a command whose loop stopped for this."""
        return self.value[1]


# Longer is a mistyped number.
MAX_LIMIT_S = 86_400.0


@dataclass(frozen=True)
class Safety:
    """When the failsafe action takes the place of the policy's.

    Attributes:
      failsafe: "hold" (the last good action again; before there is one, and at the end, zero or the bound next to it),
        "zero", or an action. For a policy that makes choices, zero is choice 0.
      range_margin: how far an observation may lie beyond the manifest's bounds, as a fraction of their distance (of
        their magnitude where there is only one); None does not look.
      max_age_s: how old an observation may be, if the plant says when it was made; None does not look.
      max_block_s: how long one call of the plant may take; None does not look.
      max_missed: periods that may be missed in a row, from tick to tick; None does not look.
      stop_after: failsafe ticks in a row after which the loop stops; None goes on for ever.
    """

    failsafe: str | npt.ArrayLike = "hold"
    range_margin: float | None = 0.1
    max_age_s: float | None = None
    max_block_s: float | None = None
    max_missed: int | None = None
    stop_after: int | None = 100

    def __post_init__(self) -> None:
        """Refuse limits that could never be kept."""
        for name in ("max_age_s", "max_block_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MAX_LIMIT_S:
                raise UsageError(
                    f"{name} must be above 0 s and at most a day, or left out for no limit; it was given {value:g}."
                )
        for name in ("max_missed", "stop_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1; it was given {value}.")
        if self.range_margin is not None and not 0 <= self.range_margin < math.inf:
            raise UsageError(f"range_margin must be a number of at least 0; it was given {self.range_margin:g}.")


@dataclass(frozen=True)
class ActionLimits:
    """How a continuous action may change, besides staying within its bounds.

    Attributes:
      slew_per_s: largest change of an element per second, in its own units; None does not limit.
      low_pass_hz: cut-off frequency of a first-order low-pass filter; None does not filter.
    """

    slew_per_s: float | None = None
    low_pass_hz: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that would stop everything."""
        for name in ("slew_per_s", "low_pass_hz"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} must be a number above 0; it was given {value:g}.")


class NonFiniteActionError(Exception):
    """The policy gave NaN or infinity, which bounds do not hold back."""


class RangeCheck:
    """Whether observations lie within the manifest's bounds, with a margin.

    Attributes:
      trivial: there are no bounds, as for frames; nothing is to be checked.
    """

    def __init__(self, spec: ObservationSpec, margin: float) -> None:
        """Check against the bounds of `spec`, widened by `margin`."""
        pairs = [_widened(low, high, margin) for low, high in zip(spec.low, spec.high)]
        self.trivial = not any(math.isfinite(bound) for pair in pairs for bound in pair)
        if self.trivial:
            return
        self._low = np.array([low for low, _ in pairs], np.float32).reshape(spec.shape)
        self._high = np.array([high for _, high in pairs], np.float32).reshape(spec.shape)
        self._outside = np.zeros(spec.shape, np.bool_)

    def passes(self, observation: npt.NDArray[Any]) -> bool:
        """Whether every element lies within its bounds. NaN does: finding it is the policy's part."""
        if np.less(observation, self._low, out=self._outside).any():
            return False
        return not np.greater(observation, self._high, out=self._outside).any()


class ActionLimiter:
    """Clamps actions to their bounds and limits how they change, in place."""

    def __init__(self, spec: PolicySpec, limits: ActionLimits, period_s: float) -> None:
        """Limit continuous actions of `spec`, given once every `period_s`.

        Raises:
          UsageError: limits of change for a policy that makes choices.
        """
        self._discrete = spec.action.discrete
        if self._discrete:
            if limits != ActionLimits():
                raise UsageError("Slew and low-pass limits are for continuous actions; this policy makes choices.")
            return
        self._low, self._high = action_bounds(spec)
        self._step = None if limits.slew_per_s is None else np.float32(limits.slew_per_s * period_s)
        # The exact discretisation of a first-order filter whose input is held for a period.
        self._gain = (
            None
            if limits.low_pass_hz is None
            else np.float32(1 - math.exp(-2 * math.pi * limits.low_pass_hz * period_s))
        )
        self._last = np.zeros_like(self._low)
        self._floor, self._ceiling = np.empty_like(self._low), np.empty_like(self._low)
        self._finite = np.empty(self._low.shape, np.bool_)

    def __call__(self, action: Any) -> Any:
        """The action that may be sent, in the same array. Changes count from what was `sent` last.

        Raises:
          NonFiniteActionError: it is not a number.
        """
        if self._discrete:
            return action
        if not np.isfinite(action, out=self._finite).all():
            raise NonFiniteActionError
        if self._gain is not None:
            # action = last + gain (action - last)
            np.subtract(action, self._last, out=action)
            np.multiply(action, self._gain, out=action)
            np.add(action, self._last, out=action)
        if self._step is not None:
            np.subtract(self._last, self._step, out=self._floor)
            np.add(self._last, self._step, out=self._ceiling)
            np.minimum(np.maximum(action, self._floor, out=action), self._ceiling, out=action)
        np.minimum(np.maximum(action, self._low, out=action), self._high, out=action)
        return action

    def sent(self, action: Any) -> None:
        """Note what was sent, from which the next change is counted: after a failsafe action, that one."""
        if not self._discrete:
            np.copyto(self._last, action)


def action_bounds(spec: PolicySpec) -> tuple[FloatArray, FloatArray]:
    """The bounds of a continuous action, infinite where there are none."""
    low = np.array([-np.inf if bound is None else bound for bound in spec.action.low], np.float32)
    high = np.array([np.inf if bound is None else bound for bound in spec.action.high], np.float32)
    return low.reshape(spec.action.shape), high.reshape(spec.action.shape)


def failsafe_action(spec: PolicySpec, failsafe: str | npt.ArrayLike) -> Any:
    """The failsafe action as the plant will get it; for "hold", what is held before there was a good action.

    Raises:
      UsageError: it is not an action of this policy.
    """
    action_spec = spec.action
    held = isinstance(failsafe, str) and failsafe == "hold"
    if isinstance(failsafe, str):
        if failsafe not in ("hold", "zero"):
            raise UnknownNameError("failsafe", failsafe, ("hold", "zero"))
        failsafe = np.zeros(action_spec.shape)
    action = np.asarray(failsafe, np.float32)
    if action.size != math.prod(action_spec.shape) or not np.isfinite(action).all():
        raise UsageError(
            f"The failsafe action must be {math.prod(action_spec.shape)} finite number(s), like the policy's actions; "
            f"it was given {np.asarray(failsafe).tolist()}."
        )
    action = action.reshape(action_spec.shape)
    if action_spec.n is not None:
        if action != int(action) or not 0 <= action < action_spec.n:
            raise UsageError(
                f"The failsafe action must be one of 0..{action_spec.n - 1}; it was given {float(action):g}."
            )
        return int(action)
    low, high = action_bounds(spec)
    clipped = np.clip(action, low, high)
    if not held and (clipped != action).any():
        # Not clipped in silence: whoever mistypes what keeps a machine safe has to know it.
        raise UsageError(
            f"The failsafe action must lie within the policy's bounds, {low.tolist()} to {high.tolist()}; "
            f"it was given {action.tolist()}."
        )
    return clipped


def _widened(low: float | None, high: float | None, margin: float) -> tuple[float, float]:
    if low is not None and high is not None:
        slack = margin * (high - low)
    else:
        slack = margin * max(abs(low or 0.0), abs(high or 0.0))
    return (-math.inf if low is None else low - slack, math.inf if high is None else high + slack)
