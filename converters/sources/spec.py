"""The spec of a policy whose file does not hold one, from what its user says of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError

# Beyond these it is a slip of the keyboard.
MAX_OBSERVATION = 4_000_000
MAX_ACTIONS = 10_000

Bounds = float | None | Sequence[float | None]


def policy_spec(
    observation: Sequence[int],
    actions: int,
    *,
    low: Bounds = -1.0,
    high: Bounds = 1.0,
    discrete: bool = False,
    frames: bool = False,
    control_rate_hz: float | None = None,
) -> PolicySpec:
    """A spec without a normaliser.

    Args:
      observation: shape of one observation; frames are (height, width, channels).
      actions: number of elements of a continuous action, or of choices.
      low: lower bound of the action, one for all elements or one for each, None where there is none; not used for
        choices.
      high: upper bound.
      discrete: whether the action is the index of a choice.
      frames: whether observations are bytes, 0 to 255.
      control_rate_hz: the rate that the policy was trained for, if it is known.

    Raises:
      UsageError: numbers that cannot be.
    """
    shape = tuple(observation)
    if not shape or any(size < 1 for size in shape) or math.prod(shape) > MAX_OBSERVATION:
        raise UsageError(
            f"{list(shape)} is no shape of an observation; give sizes of at least 1, such as 17 or 84 84 4."
        )
    if frames and len(shape) != 3:
        raise UsageError(f"Frames have a height, a width and channels; {list(shape)} was given.")
    if not 1 <= actions <= MAX_ACTIONS:
        raise UsageError(f"A policy has 1 to {MAX_ACTIONS} action elements or choices, not {actions}.")
    if control_rate_hz is not None and not 0 < control_rate_hz < math.inf:
        raise UsageError(f"{control_rate_hz:g} Hz is no rate of control; give one above 0, or none.")
    unknown = () if frames else (None,) * math.prod(shape)
    seen = ObservationSpec(shape, unknown, unknown, "uint8" if frames else "float32")
    if discrete:
        return PolicySpec(seen, ActionSpec((), (), (), actions), control_rate_hz, None)
    lows, highs = _each(low, actions, "lower"), _each(high, actions, "upper")
    for i, (least, most) in enumerate(zip(lows, highs)):
        if least is not None and most is not None and not least < most:
            raise UsageError(f"Action element {i} goes from {least} to {most}; its upper bound must be the larger.")
    return PolicySpec(seen, ActionSpec((actions,), lows, highs), control_rate_hz, None)


def _each(bounds: Bounds, actions: int, which: str) -> tuple[float | None, ...]:
    given = tuple(bounds) if isinstance(bounds, Sequence) else (bounds,)
    if len(given) == 1:
        given *= actions
    if len(given) != actions:
        raise UsageError(
            f"{len(given)} {which} bounds were given for {actions} action elements; give one, or {actions}."
        )
    # Policies compute in float32, and environments keep their bounds in it.
    with np.errstate(over="ignore"):
        given = tuple(None if value is None else float(np.float32(value)) for value in given)
    if any(value is not None and not math.isfinite(value) for value in given):
        raise UsageError(f"A {which} bound is not finite; give none where the action is unbounded.")
    return given
