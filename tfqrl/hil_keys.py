"""Keys of hardware in the loop: making them, and knowing those that may come in."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edge.errors import OutputError, UsageError
from edge.plants.hil_link import CLIENT, SERVER, HilError, import_zmq, public_file, read_key, secret_file


def make_keys(folder: Path, *, force: bool = False) -> list[Path]:
    """Make key pairs for a server and a client; returns the four files. The secret ones are for their owner only.

    Raises:
      UsageError: some are there already and `force` is false.
      OutputError: they cannot be written.
      HilError: pyzmq is not installed.
    """
    import_zmq()
    from zmq.auth import create_certificates

    files = [place(folder, name) for name in (SERVER, CLIENT) for place in (public_file, secret_file)]
    if not force and (there := [str(path) for path in files if path.exists()]):
        raise UsageError(
            f"There are keys already: {', '.join(there)}. Devices with those would no longer be let in. Give another "
            "folder, or --force to replace them."
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # In a folder that only its owner can enter, so that a secret key is never readable, not for a moment.
        with tempfile.TemporaryDirectory(dir=folder) as private:
            for name in (SERVER, CLIENT):
                for path in map(Path, create_certificates(private, name)):
                    path.chmod(0o600 if path.suffix == ".key_secret" else 0o644)
                    path.replace(folder / path.name)
    except OSError as error:
        raise OutputError(f"Cannot write keys to {folder}: {error.strerror or error}.") from error
    return files


# Whoever can connect can knock; what is printed of it must not fill a disk.
SAY_EVERY_S = 1.0


class KnownKeys:
    """Lets in the public keys that lie in a folder, but for the server's own.

    Attributes:
      unknown: how often somebody without one of them tried.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Read the keys; `say` gets a line when one was refused, at most every SAY_EVERY_S.

        Raises:
          HilError: there is none, or one cannot be read.
        """
        files = [path for path in sorted(folder.glob("*.key")) if path != public_file(folder, SERVER)]
        if not files:
            raise HilError(f"{folder} has no client's public key. Make keys with `tfqrl hil-keys {folder}`.")
        self._keys = {read_key(path)[0] for path in files}
        self._folder, self._say, self._said_s = folder, say, -SAY_EVERY_S
        self.unknown = 0

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether `key` is known; called by the authenticator, in its thread."""
        known = key in self._keys
        self.unknown += not known
        if not known and (now_s := time.monotonic()) - self._said_s >= SAY_EVERY_S:
            self._said_s = now_s
            self._say(
                f"refused a client with the public key {key.decode('ascii', 'replace')}, which is in no .key file of "
                f"{self._folder}"
            )
        return known
