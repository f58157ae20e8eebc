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
