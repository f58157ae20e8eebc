from typing import Any

import numpy as np
import pytest

from converters.sources.spec import policy_spec
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError


def test_what_is_said_of_a_policy_becomes_its_spec() -> None:
    vector = ObservationSpec((3,), (None,) * 3, (None,) * 3)
    assert policy_spec((3,), 2, low=(-1.0, None), high=2.0, control_rate_hz=50.0) == PolicySpec(
        vector, ActionSpec((2,), (-1.0, None), (2.0, 2.0)), 50.0, None
    )
    assert policy_spec((3,), 4, discrete=True) == PolicySpec(vector, ActionSpec((), (), (), 4), None, None)
    frames = ObservationSpec((84, 84, 4), (), (), "uint8")
    assert policy_spec((84, 84, 4), 6, discrete=True, frames=True).observation == frames


def test_bounds_are_rounded_to_what_the_policy_computes_in() -> None:
    assert policy_spec((3,), 1, low=-0.4, high=0.4).action.high == (float(np.float32(0.4)),)
    with pytest.raises(UsageError, match="upper bound is not finite"):
        policy_spec((3,), 1, high=1e300)


@pytest.mark.parametrize(
    ("observation", "actions", "options", "message"),
    [
        ((), 2, {}, r"\[\] is no shape"),
        ((0,), 2, {}, r"\[0\] is no shape"),
        ((10**9, 10**9), 2, {}, "is no shape"),
        ((84,), 2, {"frames": True}, "height, a width and channels"),
        ((3,), 0, {}, "not 0"),
        ((3,), 2, {"low": (1.0, 2.0, 3.0)}, "3 lower bounds were given for 2"),
        ((3,), 2, {"low": 1.0, "high": (2.0, 1.0)}, "Action element 1 goes from 1.0 to 1.0"),
        ((3,), 2, {"high": float("nan")}, "upper bound is not finite"),
    ],
)
def test_what_cannot_be_is_refused(
    observation: tuple[int, ...], actions: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        policy_spec(observation, actions, **options)
