"""What a control loop drives."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

import numpy.typing as npt

from edge.artifact import ObservationSpec
from edge.errors import UsageError, UserError


class PlantStoppedError(UserError):
    """The plant will not move again before it is reset, as after an emergency stop.

    The loop answers it like any error of a plant, and ends: there is nothing to wait for.
    """


def refuse_frames(spec: ObservationSpec, plant: str) -> None:
    """For plants that carry a few numbers, each of which may take any value.

    Raises:
      UsageError: the policy observes camera frames.
    """
    if spec.frames:
        raise UsageError(
            f"The policy observes camera frames, {'x'.join(map(str, spec.shape))} bytes, and the plant {plant} gives "
            "numbers. Write a plant that gives frames, --plant module:Class: see docs/plants.md."
        )


class Plant(Protocol):
    """A robot, a simulation, or anything else with sensors and actuators.

    Whoever opens it as a context manager gives it to a loop, which resets it once and then calls `read` and `write` in
    turn, once per tick. The last call is always a `write` of the failsafe action.

    A plant may have an attribute `observed_ns`: the monotonic time, in nanoseconds, at which the sensors were read
    whose observation `read` returned last. The loop then refuses observations that are too old or go back in time.

    A plant may have a method `counts`, which returns what it counted (lost messages and the like), by name; it is for
    the report of a run.

    Where the loop is told to watch for calls that block, `write` may be called from another thread while `read` or
    `write` hangs.
    """

    def reset(self) -> None:
        """Bring the plant to where control can begin."""
        ...

    def read(self) -> npt.NDArray[Any]:
        """The latest observation, of the policy's `observation.shape`, in the plant's own units; frames as uint8."""
        ...

    def write(self, action: Any) -> Any:
        """Send an action to the actuators; returns what was really sent, after any limit of the plant's own.

        `action` is an array of the policy's `action.shape`, which is the plant's to keep; for a discrete policy an int.
        """
        ...

    def __enter__(self) -> Plant:
        """Open devices."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close devices; called however the loop ended."""
        ...
