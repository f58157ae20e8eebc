from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from edge.errors import UnknownNameError
from edge.records import from_plain, to_json


@dataclass(frozen=True)
class Inner:
    values: tuple[float, ...]
    label: str | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner
    pair: tuple[int, str]
    kind: Literal["a", "b"] = "a"
    table: dict[str, Inner] | None = None


def test_nested_values_come_back_as_the_types_that_were_declared() -> None:
    plain = {"inner": {"values": [1, 2.5]}, "pair": [3, "x"], "table": {"k": {"values": [], "label": "z"}}}
    outer = from_plain(Outer, plain, "test")
    assert outer == Outer(Inner((1.0, 2.5)), (3, "x"), "a", {"k": Inner((), "z")})
    assert isinstance(outer.inner.values[0], float)


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(UnknownNameError, match=r"key of test\.inner 'vlaues'. Did you mean 'values'\?"):
        from_plain(Outer, {"inner": {"vlaues": []}, "pair": [1, "x"]}, "test")


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"pair": [1, "x"]}, "test lacks 'inner'"),
        ({"inner": {"values": ["1"]}, "pair": [1, "x"]}, r"test\.inner\.values\[0\] is '1'; expected float"),
        ({"inner": {"values": [True]}, "pair": [1, "x"]}, "is True; expected float"),
        ({"inner": {"values": []}, "pair": [1]}, r"test\.pair must have 2 values"),
        ({"inner": {"values": []}, "pair": [1, "x"], "kind": "c"}, r"test\.kind is 'c'; expected 'a' or 'b'\."),
        ({"inner": {"values": None}, "pair": [1, "x"]}, r"test\.inner\.values is None"),
        ({"inner": [], "pair": [1, "x"]}, r"test\.inner must be an object"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(plain: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(Outer, plain, "test")


def test_infinity_is_not_a_number_that_json_has() -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        to_json(Inner((float("inf"),)))


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
bounds = st.lists(st.none() | finite, max_size=4).map(tuple)


@given(bounds, bounds, st.none() | st.integers(1, 9), st.none() | finite, st.none() | finite)
def test_a_spec_survives_json(low, high, n, rate, clip) -> None:
    import json

    normalizer = None if clip is None else Normalizer((1.0,), (2.0,), clip)
    spec = PolicySpec(ObservationSpec((3,), low, high), ActionSpec((2, 1), low, high, n), rate, normalizer)
    assert from_plain(PolicySpec, json.loads(to_json(spec)), "spec") == spec
