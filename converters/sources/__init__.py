"""Policies that were trained elsewhere, as Keras networks with a spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tf_keras as keras

from edge.artifact import PolicySpec
from edge.errors import UserError


class ImportPolicyError(UserError):
    """A file that cannot be imported: damaged, hostile, or of a kind that is not supported."""


@dataclass(frozen=True)
class ForeignPolicy:
    """A policy from elsewhere, in the form in which `converters.convert` takes one.

    Attributes:
      network: Dense, Conv2D, Flatten and Activation layers in a row; maps what the spec's normaliser (or, for frames,
        the division by 255) gives to actions in [-1, 1] or to one logit a choice.
      spec: what it reads and gives, in the units of its environment.
      origin: what it was, for the run's configuration and the manifest: format, algorithm, versions; plain values.
    """

    network: keras.Sequential
    spec: PolicySpec
    origin: dict[str, Any]


def shown(value: object, most: int = 60) -> str:
    """A value from a file as it may be printed: short, and without control characters.

    Of what is neither text nor a number only the type is said: a list may hold the same list over and over.
    """
    if isinstance(value, str):
        return value if value.isprintable() and len(value) <= most else repr(value[:most])
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)[:most]
    return f"a {type(value).__name__}"
