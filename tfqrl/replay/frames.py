"""Where a replay keeps observations that are stacks of frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfqrl.runs import State

# Room for frames is doubled from the one number to the other, then added by the other.
_LEAST_ROOM, _MOST_ROOM = 1024, 16_384


class Frames:
    """Rows of a stack of frames and the one that followed it, in which equal frames are stored once.

    Consecutive stacks share all frames but one, and so do those n steps apart, of several environments in turn, across
    the end of an episode or not: frames are therefore found by what is in them. A row refers to them by number, and
    a frame whose last row is overwritten makes room for another. A million transitions of 84 x 84 pixels are some
    7.3 GB.
    """

    def __init__(self, capacity: int, shape: tuple[int, ...]) -> None:
        """Room for `capacity` rows of stacks of `shape`: height, width, frames; uint8."""
        *self._pixels, stack = shape
        # (capacity, observation or next one, place in the stack): numbers of frames, -1 where nothing was written yet.
        self._numbers = np.full((capacity, 2, stack), -1, np.int32)
        self._frames = np.empty((0, *self._pixels), np.uint8)
        self._references = np.zeros(0, np.int32)
        self._free: list[int] = []
        self._number_of: dict[int, int] = {}

    def write(self, rows: slice, observation: npt.NDArray[Any], next_observation: npt.NDArray[Any]) -> None:
        """Replace `rows`."""
        replaced = self._numbers[rows].ravel().tolist()
        for numbers, *stacks in zip(self._numbers[rows], observation, next_observation):
            for i, stack in enumerate(stacks):
                numbers[i] = [self._hold(frame) for frame in np.moveaxis(stack, -1, 0).copy()]
        for number in replaced:
            if number >= 0:
                self._release(number)

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Stacks and those that followed, (*rows.shape, *shape) uint8."""
        numbers = self._numbers[rows]
        return self._stacks(numbers[..., 0, :]), self._stacks(numbers[..., 1, :])

    def state(self, rows: int) -> State:
        """The first `rows` rows, and the frames that they refer to."""
        used = self._references > 0
        renumbered = np.cumsum(used, dtype=np.int32) - 1
        return {"frames": self._frames[used], "numbers": renumbered[self._numbers[:rows]]}

    def restore(self, state: State) -> None:
        """The inverse of `state`, into what nothing was written to."""
        numbers, frames = state["numbers"], state["frames"]
        self._numbers[: len(numbers)] = numbers
        self._frames = np.array(frames)
        self._references = np.bincount(numbers.ravel(), minlength=len(frames)).astype(np.int32)
        self._number_of = {hash(frame.tobytes()): number for number, frame in enumerate(self._frames)}

    def _stacks(self, numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        stacks = np.empty((*numbers.shape[:-1], *self._pixels, numbers.shape[-1]), np.uint8)
        for i in range(numbers.shape[-1]):
            stacks[..., i] = np.take(self._frames, numbers[..., i], axis=0)
        return stacks

    def _hold(self, frame: npt.NDArray[np.uint8]) -> int:
        data = frame.tobytes()
        key = hash(data)
        number = self._number_of.get(key)
        # Different frames may have the same hash, if hardly ever: then the older one is not found any more.
        if number is None or self._frames[number].tobytes() != data:
            if not self._free:
                self._make_room()
            number = self._number_of[key] = self._free.pop()
            self._frames[number] = frame
        self._references[number] += 1
        return number

    def _release(self, number: int) -> None:
        self._references[number] -= 1
        if self._references[number] == 0:
            self._free.append(number)
            key = hash(self._frames[number].tobytes())
            if self._number_of.get(key) == number:
                del self._number_of[key]

    def _make_room(self) -> None:
        before = len(self._frames)
        room = min(max(before, _LEAST_ROOM), _MOST_ROOM)
        # In place: glibc moves pages instead of copying, so that there are never two arrays of gigabytes. It leaves
        # views dangling, so none may be given out.
        self._frames.resize((before + room, *self._pixels), refcheck=False)
        self._references.resize(before + room, refcheck=False)
        self._free = list(range(before + room - 1, before - 1, -1))
