"""A plant in memory, for measuring the loop and the policy alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy.typing as npt


class MemoryPlant:
    """A plant whose sensors and actuators cost nothing: it gives the same observations round and round."""

    def __init__(self, observations: Iterable[npt.NDArray[Any]]) -> None:
        """Give `observations`, of which there must be some."""
        self._observations = itertools.cycle(observations)

    def reset(self) -> None:
        """See `Plant`."""

    def read(self) -> npt.NDArray[Any]:
        """See `Plant`."""
        return next(self._observations)

    def write(self, action: Any) -> Any:
        """See `Plant`."""
        return action

    def __enter__(self) -> MemoryPlant:
        """See `Plant`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See `Plant`."""
