"""Dataclasses to JSON and back, checked: the manifest, run configurations and reports all go through here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import types
import typing
from typing import Any, TypeVar

from edge.errors import UnknownNameError

T = TypeVar("T")


def to_json(record: Any, *, indent: int | None = 1) -> str:
    """A dataclass (or a tree of plain values) as JSON; refuses NaN and infinity, which JSON does not have."""
    plain = dataclasses.asdict(record) if dataclasses.is_dataclass(record) else record  # type: ignore[arg-type]
    return json.dumps(plain, indent=indent, allow_nan=False)


def from_plain(kind: type[T], plain: Any, where: str) -> T:
    """Build a dataclass (with nested ones) from JSON values, checking keys and types.

    Raises:
      UnknownNameError: a key that the dataclass lacks.
      ValueError: a key is missing, or a value has another type.
    """
    if not isinstance(plain, dict):
        raise ValueError(f"{where} must be an object.")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in plain:
        if key not in fields:
            raise UnknownNameError(f"key of {where}", key, fields)
    values = {}
    for name, field in fields.items():
        if name in plain:
            values[name] = _value_from_plain(hints[name], plain[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{where} lacks {name!r}.")
    return kind(**values)


def _is_tagged(kind: Any, plain: Any) -> bool:
    """Whether `plain` has, in each field that a dataclass has one value for, that value: which of several it is."""
    if not (dataclasses.is_dataclass(kind) and isinstance(plain, dict)):
        return False
    literals = {n: typing.get_args(h) for n, h in typing.get_type_hints(kind).items() if len(typing.get_args(h)) == 1}
    return bool(literals) and all(plain.get(name) in values for name, values in literals.items())


def _value_from_plain(hint: Any, plain: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast("type[Any]", hint), plain, where)
    if origin in (typing.Union, types.UnionType):
        if plain is None and type(None) in arguments:
            return None
        kinds = [a for a in arguments if a is not type(None)]
        return _value_from_plain(next((kind for kind in kinds if _is_tagged(kind, plain)), kinds[0]), plain, where)
    if origin is tuple and isinstance(plain, (list, tuple)):
        hints = [arguments[0]] * len(plain) if arguments[-1] is Ellipsis else list(arguments)
        if len(hints) != len(plain):
            raise ValueError(f"{where} must have {len(hints)} values.")
        return tuple(_value_from_plain(h, p, f"{where}[{i}]") for i, (h, p) in enumerate(zip(hints, plain)))
    if origin is dict and isinstance(plain, dict):
        return {key: _value_from_plain(arguments[1], value, f"{where}.{key}") for key, value in plain.items()}
    if origin is typing.Literal and plain in arguments:
        return plain
    if hint is Any:
        return plain
    if hint is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
        # An integer beyond the floats is as useless here as infinity.
        with contextlib.suppress(OverflowError):
            if math.isfinite(number := float(plain)):
                return number
    if hint in (str, bool, int) and type(plain) is hint:
        return plain
    expected = " or ".join(map(repr, arguments)) if origin is typing.Literal else getattr(hint, "__name__", hint)
    raise ValueError(f"{where} is {plain!r}; expected {expected}.")
