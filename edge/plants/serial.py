"""A device on a serial line, speaking the frames of `edge.plants.frames`."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from edge.errors import UserError
from edge.plants.frames import ACTION, OBSERVATION, RESET, Decoder, encode


class SerialError(UserError):
    """The line cannot be opened, is gone, or is silent."""


class SerialPlant:
    """Sends actions and gives the newest observation that has arrived.

    The device sends observations at its own pace. `read` takes what has come since the last call and returns the
    newest; if nothing has, it waits until `timeout_s` and then raises, which the loop answers with its failsafe action.

    Attributes:
      observed_ns: monotonic time at which the observation that `read` last returned arrived.
      decoder: counts of damaged frames and skipped bytes.
      repeated: frames whose sequence number was that of the one before, which are dropped.
      lost: sequence numbers that never came.
    """

    def __init__(self, port: str, spec: PolicySpec, *, baud: int = 115_200, timeout_s: float = 0.1) -> None:
        """Name the line; it is opened when the plant is entered."""
        self._port, self._baud, self._timeout_s = port, baud, timeout_s
        self._observation_shape = spec.observation.shape
        self._line: Any = None
        self._sequence = 0
        self._last_sequence: int | None = None
        self.decoder = Decoder()
        self.repeated = self.lost = 0
        self.observed_ns = 0

    def counts(self) -> dict[str, int]:
        """The counts, by name."""
        return {
            "lost": self.lost,
            "repeated": self.repeated,
            "bad_frames": self.decoder.bad_frames,
            "skipped_bytes": self.decoder.skipped_bytes,
        }

    def reset(self) -> None:
        """Ask the device to bring itself to where control can begin."""
        self._send(encode(RESET, self._next_sequence()))

    def read(self) -> npt.NDArray[Any]:
        """See `Plant`. Raises `SerialError` if no whole observation comes in time."""
        deadline_s = time.monotonic() + self._timeout_s
        newest = None
        while True:
            waiting = self._receive()
            for frame in self.decoder.feed(waiting):
                if frame.kind == OBSERVATION and frame.values.size == np.prod(self._observation_shape, dtype=int):
                    if self._is_new(frame.sequence):
                        newest = frame.values
                elif frame.kind == OBSERVATION:
                    self.decoder.bad_frames += 1
            if newest is not None:
                self.observed_ns = time.monotonic_ns()
                return newest.reshape(self._observation_shape)
            if time.monotonic() >= deadline_s:
                raise SerialError(f"{self._port} sent no whole observation for {self._timeout_s:g} s.")

    def write(self, action: Any) -> Any:
        """See `Plant`."""
        self._send(encode(ACTION, self._next_sequence(), np.asarray(action, np.float32).reshape(-1)))
        return action

    def __enter__(self) -> SerialPlant:
        """Open the line.

        Raises:
          SerialError: it cannot be opened, or pyserial is not installed.
        """
        try:
            import serial
        except ImportError as error:
            raise SerialError("The plant `serial` needs pyserial: `pip install 'tfqrl[serial]'`.") from error
        try:
            # A short timeout of its own, so that waiting does not spin; and one for writing, so that a device that
            # takes nothing cannot hold the loop.
            self._line = serial.Serial(self._port, self._baud, timeout=0.002, write_timeout=self._timeout_s)
        except (OSError, ValueError) as error:
            raise SerialError(f"Cannot open {self._port}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the last bytes out and close the line."""
        line, self._line = self._line, None
        try:
            # A line that is gone raises termios.error here, which is no OSError; the loop has told of it already.
            with contextlib.suppress(Exception):
                line.flush()
        finally:
            line.close()

    def _is_new(self, sequence: int) -> bool:
        if self._last_sequence is not None:
            step = (sequence - self._last_sequence) % 65536
            if step == 0:
                self.repeated += 1
                return False
            # A large step is a device that began again, not sixty thousand lost frames.
            self.lost += step - 1 if step < 1000 else 0
        self._last_sequence = sequence
        return True

    def _next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) % 65536
        return self._sequence

    def _receive(self) -> bytes:
        try:
            return bytes(self._line.read(max(1, self._line.in_waiting)))
        except (OSError, TypeError) as error:
            raise SerialError(f"{self._port} is gone: {error}") from error

    def _send(self, data: bytes) -> None:
        try:
            self._line.write(data)
        except (OSError, TypeError) as error:
            raise SerialError(f"{self._port} does not take what is sent: {error}") from error
