"""Reading ZIP archives that may be hostile, into memory that is bounded beforehand."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from converters.sources import ImportPolicyError, shown
from edge.files import read_bounded, read_member

# Of all members together, unpacked. The largest model with the Nature CNN and its optimisers has about 100 MiB.
MAX_BYTES = 512 * 2**20
MAX_ENTRIES = 1000
_ENTRY = b"PK\x01\x02"


def contents(path: str | Path, max_bytes: int) -> bytes:
    """The bytes of a file.

    Raises:
      ImportPolicyError: it cannot be read, or is larger than `max_bytes`.
    """
    try:
        return read_bounded(path, max_bytes)
    except OSError as error:
        raise ImportPolicyError(f"Cannot read {path}: {error.strerror or error}.") from error


class Archive:
    """A ZIP archive in memory. Nothing is ever unpacked to disk, so names of members cannot lead anywhere.

    Attributes:
      names: its members.
    """

    def __init__(self, data: bytes, where: str) -> None:
        """Look at what is in `data`; `where` names it in error messages.

        Raises:
          ImportPolicyError: it is no archive, has too many members, two of the same name, or ones too large.
        """
        # Before `zipfile` makes an object of each. (Weights may look like an entry too, but not that often.)
        if data.count(_ENTRY) > MAX_ENTRIES:
            raise ImportPolicyError(f"{where} has more than {MAX_ENTRIES} members: refused.")
        self._where = where
        try:
            self._file = zipfile.ZipFile(io.BytesIO(data))
            infos = self._file.infolist()
        except Exception as error:
            # On damaged archives `zipfile` raises a dozen kinds of exception.
            raise ImportPolicyError(f"{where} is no ZIP archive, or a damaged one: {error}.") from error
        self.names = [info.filename for info in infos]
        if len(set(self.names)) < len(infos):
            raise ImportPolicyError(f"{where} has two members of the same name: refused.")
        claimed = sum(info.file_size for info in infos)
        if claimed > MAX_BYTES:
            raise ImportPolicyError(
                f"{where} claims to unpack to {claimed / 2**20:.0f} MiB; up to {MAX_BYTES // 2**20} are read: refused."
            )

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """The bytes of one member.

        Raises:
          ImportPolicyError: it is missing, damaged, encrypted, or claims more than `max_bytes`.
        """
        if name not in self.names:
            raise ImportPolicyError(f"{self._where} lacks {shown(name)}: it is not what Stable-Baselines3 saves.")
        try:
            info = self._file.getinfo(name)
            if info.file_size > max_bytes:
                raise ImportPolicyError(f"{shown(name)} in {self._where} claims {info.file_size} bytes: refused.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ImportPolicyError(f"{shown(name)} in {self._where} is compressed in a way that is not supported.")
            return read_member(self._file, info)
        except ImportPolicyError:
            raise
        except Exception as error:
            raise ImportPolicyError(f"{shown(name)} in {self._where} cannot be read: {error}.") from error
