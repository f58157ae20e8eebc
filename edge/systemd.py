"""Telling systemd how a service goes (the protocol of sd_notify(3)): ready, alive, stopping."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from types import TracebackType

# Later than any clock: nobody waits for a sign of life.
_NEVER_NS = 2**63


class Systemd:
    """Sends to the socket that systemd names in NOTIFY_SOCKET; does nothing where it names none.

    Nothing waits: what the socket does not take at once is dropped. The loop compares its time with `due_ns`, and calls
    `alive` when that has come; a loop that is stuck therefore falls silent, and systemd kills and restarts it.

    Attributes:
      due_ns: when the next sign of life is due, on the loop's clock; never if systemd does not watch this process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from `environment`, the process's own if None."""
        environment = os.environ if environment is None else environment
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # Half of the limit, as systemd recommends, so that one late tick is not yet one too many.
        self._interval_ns = _watchdog_us(environment) * 1000 // 2
        self._socket: socket.socket | None = None
        self.due_ns = _NEVER_NS

    def ready(self, now_ns: int) -> None:
        """The loop begins. From now on it has to be `alive`."""
        self._send(b"READY=1")
        if self._socket is not None and self._interval_ns > 0:
            self.due_ns = now_ns + self._interval_ns

    def alive(self, now_ns: int) -> None:
        """A tick has ended; called when `due_ns` has come."""
        self._send(b"WATCHDOG=1")
        self.due_ns = now_ns + self._interval_ns

    def __enter__(self) -> Systemd:
        if self._address:
            # Whatever is wrong with the socket must not keep a plant from being driven.
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._send(b"STOPPING=1")
        self.due_ns = _NEVER_NS
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(message, self._address)


def _watchdog_us(environment: Mapping[str, str]) -> int:
    """The watchdog's limit; 0 if there is none, or it is meant for another process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) if text.isdecimal() else 0
