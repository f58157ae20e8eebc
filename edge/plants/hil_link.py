"""The connection of hardware in the loop: ZeroMQ with CURVE, which encrypts, and by which both ends know each other."""

from __future__ import annotations

import secrets
import select
import threading
import time
from pathlib import Path
from typing import Any

from edge.errors import UsageError, UserError
from edge.plants.hil_messages import MAX_MESSAGE_BYTES

# Messages that wait to be sent or read, on each side. Ten would do; a network that hangs for a moment may leave more.
QUEUE = 64
# How long closing may take so that what was written last still leaves.
LINGER_MS = 500
# A frame of CURVE is 33 bytes longer than what is in it.
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + 64
# ZeroMQ hands the readiness of its descriptor to whoever asks first: another thread's write may take it away.
POLL_S = 0.02

SERVER, CLIENT = "server", "client"


class HilError(UserError):
    """The other end is not there or is silent; or keys are missing."""


def import_zmq() -> Any:
    """The module `zmq`.

    Raises:
      HilError: it is not installed, or was built without CURVE.
    """
    try:
        import zmq
    except ImportError as error:
        raise HilError("Hardware in the loop needs pyzmq: `pip install 'tfqrl[hil]'`.") from error
    if not zmq.has("curve"):
        raise HilError("The ZeroMQ here was built without CURVE. Install the wheel: `pip install 'tfqrl[hil]'`.")
    return zmq


def public_file(keys: Path, name: str) -> Path:
    """Where the public key of `name` lies."""
    return keys / f"{name}.key"


def secret_file(keys: Path, name: str) -> Path:
    """Where both keys of `name` lie."""
    return keys / f"{name}.key_secret"


def read_key(path: Path) -> tuple[bytes, bytes | None]:
    """The public and, if it is there, the secret key of a file as `tfqrl hil-keys` writes it.

    Raises:
      HilError: it cannot be read or holds no key.
    """
    import_zmq()
    from zmq.auth import load_certificate
    from zmq.utils import z85

    try:
        public, secret = load_certificate(path)
        lengths = [len(z85.decode(key)) for key in (public, secret) if key is not None]
    except OSError as error:
        raise HilError(
            f"There is no key {path} that can be read. Make keys with `tfqrl hil-keys {path.parent}` on the "
            "workstation, and copy to the device what it says."
        ) from error
    except Exception as error:  # the library raises several kinds for a text that is no key
        raise HilError(f"{path} holds no CURVE key: {error}") from error
    if any(length != 32 for length in lengths):
        raise HilError(f"{path} holds no CURVE key: one has 32 bytes.")
    return public, secret


def read_key_pair(path: Path) -> tuple[bytes, bytes]:
    """The public and the secret key of a file.

    Raises:
      HilError: it lacks one.
    """
    public, secret = read_key(path)
    if secret is None:
        raise HilError(f"{path} holds no secret key. Copy the file that `tfqrl hil-keys` wrote under this name.")
    return public, secret


def limit(socket: Any) -> None:
    """Bound what a socket may hold and how long it may take to close."""
    socket.maxmsgsize = MAX_FRAME_BYTES
    socket.sndhwm = socket.rcvhwm = QUEUE
    socket.linger = LINGER_MS


class Link:
    """The client's end. Calls from several threads are safe."""

    def __init__(self, address: str, keys: Path) -> None:
        """Begin to connect, with the keys `server.key` and `client.key_secret` of the folder `keys`.

        Raises:
          HilError: pyzmq or the keys are missing.
          UsageError: `address` is none.
        """
        self._zmq = import_zmq()
        server_public, _ = read_key(public_file(keys, SERVER))
        public, secret = read_key_pair(secret_file(keys, CLIENT))
        # A ZeroMQ socket must not be used by two threads at once, and the loop's watchdog may write while `receive`
        # waits.
        self._lock = threading.Lock()
        self._context = self._zmq.Context()
        self._socket = self._context.socket(self._zmq.DEALER)
        limit(self._socket)
        self._socket.curve_serverkey = server_public
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        # By this name the server knows it again when the connection broke. It must not begin with a zero.
        self._socket.routing_id = b"c" + secrets.token_bytes(16)
        self._refusals = self._socket.get_monitor_socket(self._zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        try:
            self._socket.connect(address)
        except self._zmq.ZMQError as error:
            self.close()
            raise UsageError(
                f"{address!r} is no address to connect to ({error}). One is tcp://HOST:PORT, as `tfqrl hil-serve` "
                "prints it."
            ) from error
        self._ready = select.poll()
        self._ready.register(self._socket.fd, select.POLLIN)

    def send(self, data: bytes) -> bool:
        """Hand over a message without waiting; returns whether there was room for it."""
        with self._lock:
            try:
                self._socket.send(data, self._zmq.NOBLOCK)
            except self._zmq.Again:
                return False
        return True

    def receive(self, until_s: float) -> list[bytes]:
        """What has arrived; waits for it until the monotonic time `until_s`. Empty if nothing came."""
        while True:
            with self._lock:
                arrived = self._arrived()
            remaining_s = until_s - time.monotonic()
            if arrived or remaining_s <= 0:
                return arrived
            self._ready.poll(1e3 * min(POLL_S, remaining_s))

    def refused(self) -> bool:
        """Whether the other end has refused our key so far."""
        with self._lock:
            return bool(self._refusals.poll(0))

    def close(self) -> None:
        """Let what was sent out, for at most LINGER_MS, and close."""
        with self._lock:
            self._socket.disable_monitor()
            self._refusals.close()
            self._socket.close()
        self._context.term()

    def _arrived(self) -> list[bytes]:
        arrived: list[bytes] = []
        # Bounded, so that a server that never stops talking cannot hold the loop.
        while len(arrived) < QUEUE:
            try:
                parts = self._socket.recv_multipart(self._zmq.NOBLOCK)
            except self._zmq.ZMQError:
                break
            # Several parts are no message of ours; joined they are none either, and are counted as such.
            arrived.append(parts[0] if len(parts) == 1 else b"")
        return arrived
