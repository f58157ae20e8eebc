"""Messages of hardware in the loop: what `edge.plants.hil` and the simulation at the other end say to each other.

    offset  size  what
    0       2     "HL"
    2       1     version of this layout, 1
    3       1     kind, see below
    4       4     episode: how many have ended since the reset
    8       8     sequence: number that the sender gave this message; counts up by one
    16      8     answers: in an observation, the number of the newest action or reset that had been received
    24      8     time: when that action or reset was sent, in nanoseconds of the client's own monotonic clock
    32      8     return of the episode that ended last, float64
    40      8 n   n float64 values, at most 4096

All little-endian; whole numbers unsigned, but for the time. Fields that a kind has no use for are 0. From the client:
'H' hello; 'R' reset; 'A' action (a choice is one value); 'B' bye. From the server: 'W' welcome (see `Terms`); 'T'
taken, another client is being served; 'O' observation. Each message is a ZeroMQ message of one part.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAGIC, VERSION = b"HL", 1
HEADER = struct.Struct("<2sBcIQQqd")
MAX_VALUES = 4096
MAX_MESSAGE_BYTES = HEADER.size + 8 * MAX_VALUES

HELLO, RESET, ACTION, BYE = b"H", b"R", b"A", b"B"
WELCOME, TAKEN, OBSERVATION = b"W", b"T", b"O"
KINDS = frozenset((HELLO, RESET, ACTION, BYE, WELCOME, TAKEN, OBSERVATION))

NO_VALUES = np.zeros(0, np.float64)


class MessageError(ValueError):
    """Bytes that are no message of this version. They are dropped and counted."""


@dataclass(frozen=True)
class Message:
    """One message; the fields are explained with the layout above.

    Attributes:
      kind: one of `KINDS`.
      sequence: 0..2^64-1.
      episode: 0..2^32-1.
      answers: 0..2^64-1.
      time_ns: client's monotonic time.
      last_return: of the episode that ended last.
      values: float64, one dimension.
    """

    kind: bytes
    sequence: int = 0
    episode: int = 0
    answers: int = 0
    time_ns: int = 0
    last_return: float = 0.0
    values: npt.NDArray[np.float64] = field(default_factory=lambda: NO_VALUES)


@dataclass(frozen=True)
class Terms:
    """What a server offers; the values of a 'W': seed, rate, n, number of observation dimensions, all dimensions.

    Attributes:
      observation_shape: of its environment.
      action_shape: of its environment; () for a choice.
      n: number of choices; None for a continuous action. 0 in the message.
      seed: of its environment, below 2^53.
      realtime_hz: steps per second; None if the simulation steps with each action instead. 0 in the message.
    """

    observation_shape: tuple[int, ...]
    action_shape: tuple[int, ...]
    n: int | None
    seed: int
    realtime_hz: float | None

    def values(self) -> npt.NDArray[np.float64]:
        """For a message."""
        head = (self.seed, self.realtime_hz or 0.0, self.n or 0, len(self.observation_shape))
        return np.array([*head, *self.observation_shape, *self.action_shape], np.float64)

    @classmethod
    def from_values(cls, values: npt.NDArray[np.float64]) -> Terms:
        """From a message.

        Raises:
          MessageError: the values are no terms.
        """
        numbers = values.tolist()
        if len(numbers) < 4 or not all(0 <= number < 2**53 for number in numbers):
            raise MessageError("no terms")
        seed, rate, n, dimensions, *shapes = numbers
        if any(number % 1 for number in (seed, n, dimensions, *shapes)) or dimensions > len(shapes):
            raise MessageError("no terms")
        shape, split = tuple(map(int, shapes)), int(dimensions)
        return cls(shape[:split], shape[split:], int(n) or None, int(seed), rate or None)


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    assert message.kind in KINDS
    assert message.values.size <= MAX_VALUES
    head = HEADER.pack(
        MAGIC,
        VERSION,
        message.kind,
        message.episode,
        message.sequence,
        message.answers,
        message.time_ns,
        message.last_return,
    )
    return head + message.values.astype("<f8", copy=False).tobytes()


def decode(data: bytes) -> Message:
    """The message that the bytes are.

    Raises:
      MessageError: they are none; nothing else is raised, whatever they are.
    """
    if len(data) < HEADER.size or len(data) > MAX_MESSAGE_BYTES or (len(data) - HEADER.size) % 8:
        raise MessageError(f"no message has {len(data)} bytes")
    magic, version, kind, episode, sequence, answers, time_ns, last_return = HEADER.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION) or kind not in KINDS:
        raise MessageError("no message of this version")
    # A copy in the machine's byte order: it does not depend on the message's buffer, and can be written to.
    values = np.frombuffer(data, "<f8", offset=HEADER.size).astype(np.float64)
    return Message(kind, sequence, episode, answers, time_ns, last_return, values)
