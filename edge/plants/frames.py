"""Frames on a serial line: what `edge.plants.serial` and the device at the other end say to each other.

    offset  size  what
    0       2     0xA5 0x5A, where a frame may begin
    2       1     kind: 'O' observation, 'A' action, 'R' reset
    3       2     n, length of the payload in bytes, little-endian, at most 1024
    5       n     payload
    5 + n   2     CRC-16/XMODEM (polynomial 0x1021, initial 0) of kind, length and payload, little-endian

Payloads, little-endian: 'O' and 'A' are a sequence number (uint16, wraps) and float32 values; a choice is sent as one
float32. 'R' is a sequence number alone. Noise between frames is skipped; a frame whose CRC is wrong is dropped, and the
search for the next goes on inside it, for its length may have been the damaged part.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edge.artifact import FloatArray

SYNC = b"\xa5\x5a"
HEADER = struct.Struct("<2scH")
MAX_PAYLOAD_BYTES = 1024
MAX_VALUES = (MAX_PAYLOAD_BYTES - 2) // 4
OBSERVATION, ACTION, RESET = b"O", b"A", b"R"


@dataclass(frozen=True)
class Frame:
    """A frame that arrived whole.

    Attributes:
      kind: OBSERVATION, ACTION or RESET.
      sequence: number that its sender gave it, 0..65535.
      values: float32 values.
    """

    kind: bytes
    sequence: int
    values: FloatArray


def encode(kind: bytes, sequence: int, values: FloatArray | None = None) -> bytes:
    """The bytes of a frame."""
    payload = struct.pack("<H", sequence % 65536)
    if values is not None:
        payload += np.asarray(values, "<f4").tobytes()
    assert len(payload) <= MAX_PAYLOAD_BYTES
    body = HEADER.pack(SYNC, kind, len(payload)) + payload
    return body + struct.pack("<H", binascii.crc_hqx(body[2:], 0))


class Decoder:
    """Finds frames in a stream of bytes, given in pieces of any size.

    Attributes:
      skipped_bytes: bytes that belonged to no frame.
      bad_frames: candidates with a wrong CRC, length, kind or payload.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.skipped_bytes = 0
        self.bad_frames = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in bytes; gives each frame that they complete. Keeps less than one frame of them in memory."""
        self._buffer += data
        while True:
            start = self._buffer.find(SYNC)
            if start < 0:
                # The last byte may be the first of a sync.
                keep = 1 if self._buffer.endswith(SYNC[:1]) else 0
                self._skip(len(self._buffer) - keep)
                return
            self._skip(start)
            if len(self._buffer) < HEADER.size:
                return
            _, kind, length = HEADER.unpack_from(self._buffer)
            if kind not in (OBSERVATION, ACTION, RESET) or not 2 <= length <= MAX_PAYLOAD_BYTES or length % 4 != 2:
                self._reject()
                continue
            end = HEADER.size + length
            if len(self._buffer) < end + 2:
                return
            (crc,) = struct.unpack_from("<H", self._buffer, end)
            if crc != binascii.crc_hqx(bytes(self._buffer[2:end]), 0):
                self._reject()
                continue
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[: end + 2]
            yield Frame(
                kind, int.from_bytes(payload[:2], "little"), np.frombuffer(payload[2:], "<f4").astype(np.float32)
            )

    def _skip(self, n: int) -> None:
        self.skipped_bytes += n
        del self._buffer[:n]

    def _reject(self) -> None:
        self.bad_frames += 1
        self._skip(1)
