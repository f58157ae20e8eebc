"""Counts that outlive the process that counts."""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path

_BYTES = 8


class Counter:
    """A number in a file that is mapped to memory: counting costs a store, and a kill loses nothing.

    It outlives its process, not its machine: on another one, counting begins at what that machine's file says, or 0.
    """

    def __init__(self, path: str | Path) -> None:
        """Go on with what the file says; from 0 if there is none."""
        self._path = Path(path)
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(bytes(_BYTES))
        with self._path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _BYTES)
        self._view = memoryview(self._memory).cast("q")

    @property
    def value(self) -> int:
        """The number."""
        return self._view[0]

    def add(self, n: int = 1) -> None:
        """Add to it."""
        self._view[0] += n

    def remove(self) -> None:
        """Let go of the file, and remove it, and its folder if it was the last."""
        self._view.release()
        self._memory.close()
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()
