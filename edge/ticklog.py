"""A record of every tick, in a file of bounded size, written by a thread that the loop never waits for.

The file is one line of JSON (`Header`), padded to `HEADER_BYTES`, and then room for `capacity` records of equal size.
Record k lies at place k modulo capacity: when the file is full the newest ticks replace the oldest. Frames are recorded
as they are, so that a log of them can be replayed as any other; at 84x84x4 bytes it holds the last 2370 or so.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge.errors import OutputError, UserError
from edge.files import read_bounded
from edge.policy import Policy
from edge.records import from_plain, to_json

HEADER_BYTES = 4096
SCHEMA_VERSION = 2
DEFAULT_MAX_BYTES = 64 * 2**20

# Ticks that may wait to be written; at 1 kHz two seconds of a stalled disk. Frames, which would fill a small computer's
# memory, as many as fit; at 60 Hz and 84x84x4 bytes ten seconds.
RING_TICKS = 2048
MAX_RING_BYTES = 16 * 2**20
FLUSH_PERIOD_S = 0.1

# What `read` takes into memory.
MAX_READ_BYTES = 2**30


class LogError(UserError):
    """A file that is not a log of ticks."""


@dataclass(frozen=True)
class Header:
    """What a log says of itself.

    Attributes:
      schema_version: version of this layout.
      policy: name of the policy.
      flatbuffer_sha256: which model acted; None if it was a bare one.
      rate_hz: wanted rate.
      observation_shape: shape of `observation` in each record.
      action_shape: shape of `action` and `sent`.
      discrete: whether actions are choices.
      capacity: records that the file has room for.
      observation_dtype: dtype of `observation`: "uint8" for frames.
    """

    schema_version: int
    policy: str
    flatbuffer_sha256: str | None
    rate_hz: float
    observation_shape: tuple[int, ...]
    action_shape: tuple[int, ...]
    discrete: bool
    capacity: int
    observation_dtype: Literal["float32", "uint8"] = "float32"


def record_dtype(header: Header) -> np.dtype[Any]:
    """Layout of a record: tick number from 1 (0: never written), time, cause (0: none, else a `Cause`'s exit code)."""
    action = np.int64 if header.discrete else np.float32
    return np.dtype(
        [
            ("tick", "<u8"),
            ("time_ns", "<i8"),
            ("cause", "<u4"),
            ("missed", "<u4"),
            ("observation", header.observation_dtype, header.observation_shape),
            ("action", action, header.action_shape),
            ("sent", action, header.action_shape),
        ]
    )


class TickLog:
    """Writes ticks to a file. `record` copies into memory that is there already; a thread carries it to the disk.

    If the disk cannot keep up, ticks are dropped: they are counted, and their numbers are missing in the file. If it
    fails, recording ends and `error` says why. After a power cut the file lacks what the kernel had not written yet,
    which is up to half a minute unless mounted otherwise.
    """

    def __init__(
        self,
        path: str | Path,
        policy: Policy,
        *,
        rate_hz: float,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        """Create the file. An older log of the same name is kept as PATH.1: it may tell of a failure.

        Raises:
          OutputError: it cannot be written, or something that is no log has the name.
        """
        spec = policy.spec
        header = Header(
            SCHEMA_VERSION,
            # The header has a fixed size.
            policy.name[:200],
            policy.manifest.flatbuffer_sha256 if policy.manifest else None,
            rate_hz,
            spec.observation.shape,
            spec.action.shape,
            spec.action.discrete,
            capacity=1,
            observation_dtype=spec.observation.dtype,
        )
        self._dtype = record_dtype(header)
        capacity = max(1, (max_bytes - HEADER_BYTES) // self._dtype.itemsize)
        self.header = Header(**{**vars(header), "capacity": capacity})
        self._ring = np.zeros(max(1, min(RING_TICKS, MAX_RING_BYTES // self._dtype.itemsize)), self._dtype)
        self._written = self._recorded = 0
        self.dropped = 0
        self.error: str | None = None
        self._closing = threading.Event()
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if check_replaceable(Path(path)):
                os.replace(path, f"{path}.1")
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise OutputError(f"Cannot write the log {path}: {error.strerror}.") from error
        self._thread = threading.Thread(target=self._carry, name="ticklog", daemon=True)
        try:
            os.write(self._file, to_json(self.header, indent=None).encode().ljust(HEADER_BYTES))
            self._thread.start()
        except (OSError, RuntimeError) as error:
            os.close(self._file)
            raise OutputError(f"Cannot write the log {path}: {error}.") from error

    def record(self, time_ns: int, cause: int, missed: int, observation: Any, action: Any, sent: Any) -> None:
        """Note a tick; never waits.

        An observation or action that is None, or is not one, is recorded as NaN (0 for frames and choices).
        """
        if self._recorded - self._written >= len(self._ring):
            self.dropped += 1
            return
        slot = self._ring[self._recorded % len(self._ring)]
        slot["time_ns"], slot["cause"], slot["missed"] = time_ns, cause, missed
        nothing = 0 if self.header.discrete else np.nan
        for field, value, default in (
            ("observation", observation, 0 if self.header.observation_dtype == "uint8" else np.nan),
            ("action", action, nothing),
            ("sent", sent, nothing),
        ):
            try:
                slot[field] = default if value is None else value
            except Exception:
                # Plants may give anything, and the log must not be what stops the loop.
                slot[field] = default
        slot["tick"] = self._recorded + self.dropped + 1
        self._recorded += 1

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._closing.set()
        self._thread.join()
        try:
            if os.fstat(self._file).st_nlink == 0:
                self.error = self.error or "the log was removed while it was written"
            os.close(self._file)
        except OSError as error:
            self.error = self.error or f"the log may be incomplete: {error.strerror}"

    def _carry(self) -> None:
        while not self._closing.wait(FLUSH_PERIOD_S):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        if self.error is not None:
            self._written = self._recorded
            return
        try:
            while self._written < (end := self._recorded):
                place, slot = self._written % self.header.capacity, self._written % len(self._ring)
                n = min(end - self._written, len(self._ring) - slot, self.header.capacity - place)
                data = self._ring[slot : slot + n].tobytes()
                written_bytes = os.pwrite(self._file, data, HEADER_BYTES + place * self._dtype.itemsize)
                if written_bytes < len(data):
                    # A disk that is full takes a part first, and says so at the next attempt.
                    n = written_bytes // self._dtype.itemsize
                    if n == 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._written += n
        except OSError as error:
            self.error = f"the log ended early: {error.strerror}"


def check_replaceable(path: Path) -> bool:
    """Whether a log of this name is there already.

    Raises:
      OutputError: something else is, which is not ours to replace.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return False
    try:
        with path.open("rb") as file:
            _parse(file.read(HEADER_BYTES), path)
    except LogError as error:
        raise OutputError(f"{path} exists and is no log of ticks. Give another name for the log.") from error
    return True


@dataclass(frozen=True)
class Replay:
    """What replaying a log gave.

    Attributes:
      compared: ticks on which the policy acted.
      different: how many of their actions come out differently now.
      max_error: largest difference of any element (for choices: 1 if any differed, else 0).
    """

    compared: int
    different: int
    max_error: float


def replay(policy: Policy, header: Header, records: npt.NDArray[Any]) -> Replay:
    """Act again on every recorded observation that the policy acted on, and compare bit by bit.

    Raises:
      LogError: the log is of a policy of other shapes or types.
    """
    spec = policy.spec
    if (header.observation_shape, header.observation_dtype, header.action_shape, header.discrete) != (
        spec.observation.shape,
        spec.observation.dtype,
        spec.action.shape,
        spec.action.discrete,
    ):
        raise LogError(f"The log is of {header.policy}, whose observations or actions have another shape or type.")
    acted = records[records["cause"] == 0]
    different, max_error = 0, 0.0
    for record in acted:
        error = np.abs(np.asarray(policy.act(record["observation"]), np.float64) - record["action"])
        error = np.where(np.isnan(error), np.inf, error)
        different += bool((error != 0).any())
        max_error = max(max_error, float(error.max()))
    return Replay(len(acted), different, min(max_error, 1.0) if header.discrete else max_error)


def read(path: str | Path) -> tuple[Header, npt.NDArray[Any]]:
    """The header and the records of a log, oldest first. A log that was cut short gives what it has.

    Raises:
      LogError: it is not a log, or of a newer version.
    """
    try:
        data = read_bounded(path, MAX_READ_BYTES)
    except OSError as error:
        raise LogError(f"Cannot read {path}: {error.strerror}.") from error
    header = _parse(data[:HEADER_BYTES], path)
    dtype = record_dtype(header)
    body = data[HEADER_BYTES:]
    records = np.frombuffer(body[: len(body) // dtype.itemsize * dtype.itemsize], dtype)
    records = records[records["tick"] > 0]
    return header, records[np.argsort(records["tick"], kind="stable")]


def _parse(data: bytes, path: str | Path) -> Header:
    try:
        plain = json.loads(data)
        version = plain["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise LogError(f"{path} has log version {version}; this tfqrl reads up to {SCHEMA_VERSION}. Upgrade tfqrl.")
        header = from_plain(Header, plain, "log header")
        record_dtype(header)
    except (ValueError, KeyError, TypeError, RecursionError, UserError) as error:
        if isinstance(error, LogError):
            raise
        raise LogError(f"{path} is not a log of ticks: {error}") from error
    return header
