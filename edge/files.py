"""Writing files so that a reader sees the old file or the new one, never half of either."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from edge.errors import OutputError


def write_atomically(path: str | Path, data: bytes | Callable[[IO[bytes]], None], *, force: bool = True) -> None:
    """Write `data` to `path` by way of a temporary file in the same folder, which is created if missing.

    `data` may also be a function that writes into the open file what need not be in memory twice.

    Raises:
      OutputError: the folder or file cannot be written, the disk is full, or the file exists and `force` is false.
    """
    path = Path(path)
    if path.exists() and not force:
        raise OutputError(f"{path} exists already. Give another name, or --force to replace it.")
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def read_bounded(path: str | Path, max_bytes: int) -> bytes:
    """The contents of a regular file.

    Raises:
      OSError: it cannot be read, is larger than `max_bytes`, or is a device or pipe, which may never end.
    """
    status = Path(path).stat()
    if stat.S_ISREG(status.st_mode) and status.st_size > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes // 2**20} MiB")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return Path(path).read_bytes()


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member of an archive, in no more memory than it claims to need.

    Raises:
      Exception: it is damaged, encrypted, or not of the size that it claims; `zipfile` has a dozen kinds.
    """
    # `ZipFile.read` unpacks all that was packed, and then cuts it to the claimed size.
    with archive.open(info) as file:
        return file.read(info.file_size + 1)


def check_writable(path: str | Path) -> None:
    """See whether `path` could be written, before the work whose result it is to hold. Nothing is left of the trial.

    Raises:
      OutputError: it could not.
    """
    path = Path(path)
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        for folder in missing:
            # Somebody else may have put something there.
            with contextlib.suppress(OSError):
                folder.rmdir()


def _cannot_write(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"Cannot write {path}: {reason}. Check that the folder is writable and has room.")


def _umask() -> int:
    # The mask can only be read by setting it; mkstemp's 0600 would otherwise keep the file from other users.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
