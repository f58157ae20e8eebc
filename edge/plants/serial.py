"""A device on a serial line, speaking the frames of `edge.plants.frames`."""

from __future__ import annotations

import contextlib
import errno
import time
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from edge.errors import UsageError, UserError
from edge.plants import refuse_frames
from edge.plants.frames import ACTION, MAX_VALUES, OBSERVATION, RESET, Decoder, encode

# An Arduino begins anew when the port is opened. What it had sent before still comes out of the adapter for a moment;
# then its boot loader listens, 2 s at most, to which a frame must not be sent.
SETTLE_S = 0.1
BOOT_S = 5.0


class SerialError(UserError):
    """The line cannot be opened, is gone, or is silent."""


class SilentError(SerialError):
    """No whole observation came in time."""


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
        """Name the line; it is opened when the plant is entered.

        Raises:
          UsageError: the policy observes or does more than a frame can hold, or observes camera frames.
        """
        refuse_frames(spec.observation, "serial")
        self._port, self._baud, self._timeout_s = port, baud, timeout_s
        self._observation_shape = spec.observation.shape
        self._observation_size = int(np.prod(spec.observation.shape, dtype=int))
        action_size = int(np.prod(spec.action.shape, dtype=int))
        if max(self._observation_size, action_size) > MAX_VALUES:
            raise UsageError(
                f"A frame on a serial line holds {MAX_VALUES} values; the policy takes {self._observation_size} and "
                f"gives {action_size}. Use another --plant."
            )
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
        """Wait until the device sends observations, and ask it to bring itself to where control can begin.

        Raises:
          SerialError: no whole observation comes within BOOT_S.
        """
        settled_s = time.monotonic() + SETTLE_S
        while time.monotonic() < settled_s:
            self._receive()
        try:
            self._newest(BOOT_S)
        except SilentError as error:
            raise SilentError(
                f"{error} Check that this is the right --port, that the device sends observations of "
                f"{self._observation_size} values by itself, and that its speed is {self._baud} baud."
            ) from error
        self._send(encode(RESET, self._next_sequence()))

    def read(self) -> npt.NDArray[Any]:
        """See `Plant`. Raises `SilentError` if no whole observation comes in time."""
        return self._newest(self._timeout_s)

    def _newest(self, timeout_s: float) -> npt.NDArray[Any]:
        deadline_s = time.monotonic() + timeout_s
        newest = None
        while True:
            waiting = self._receive()
            for frame in self.decoder.feed(waiting):
                if frame.kind == OBSERVATION and frame.values.size == self._observation_size:
                    if self._is_new(frame.sequence):
                        newest = frame.values
                elif frame.kind == OBSERVATION:
                    self.decoder.bad_frames += 1
            if newest is not None:
                self.observed_ns = time.monotonic_ns()
                return newest.reshape(self._observation_shape)
            if time.monotonic() >= deadline_s:
                raise SilentError(f"{self._port} sent no whole observation for {timeout_s:g} s.")

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
            # takes nothing cannot hold the loop. Exclusive, because the actions of two loops would take turns.
            self._line = serial.Serial(
                self._port, self._baud, timeout=0.002, write_timeout=self._timeout_s, exclusive=True
            )
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) == errno.EAGAIN:
                raise SerialError(f"Another program uses {self._port}. End it first.") from error
            raise SerialError(f"Cannot open {self._port}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the last bytes out, for as long as `read` waits, and close the line."""
        line, self._line = self._line, None
        deadline_s = time.monotonic() + self._timeout_s
        try:
            # A line that is gone raises termios.error here, which is no OSError; the loop has told of it already.
            with contextlib.suppress(Exception):
                # Not by flush: for a device that takes nothing it waits without an end, and closing for half a minute.
                while line.out_waiting and time.monotonic() < deadline_s:
                    time.sleep(0.001)
                if line.out_waiting:
                    line.reset_output_buffer()
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
