"""Compression that begins when a part of the training is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

from edge.errors import UsageError
from tfqrl.options import optional

# As QuaRL advises (Krishnan et al. 2022, arXiv 1910.01055): half of the training.
DELAY = 0.5

Self = TypeVar("Self", bound="Delayed")


@dataclass(frozen=True)
class Delayed:
    """What such methods have in common.

    Attributes:
      delay: part of the training that is done in float first, 0 to 1 (default: 0.5; none of it with --init-from, but
        where weights are pruned first).
    """

    delay: Annotated[float | None, optional("FRACTION")] = None

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.delay is not None and not 0 <= self.delay < 1:
            raise UsageError(f"--delay must be at least 0 and below 1, of the training; it was given {self.delay}.")

    def begins(self, progress: float) -> bool:
        """Whether it begins when this part of the training is done, 0..1, or has begun."""
        return progress >= (DELAY if self.delay is None else self.delay)

    def of_trained(self: Self) -> Self:
        """The same for a policy that is trained already: at once, if nothing else was asked for."""
        return replace(self, delay=0.0) if self.delay is None else self
