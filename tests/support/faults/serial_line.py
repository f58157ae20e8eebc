"""What goes wrong on a serial line, with a device underneath that the test plays."""

from __future__ import annotations

import termios
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import FakeClock

from edge.loop_report import LoopReport
from edge.plants.frames import ACTION, OBSERVATION, RESET, Decoder, encode
from edge.plants.serial import SerialPlant
from edge.safety import Cause
from faults import FAILSAFE, FAULTS, FIRST, GOOD, Fault, Rig, fault

serial = pytest.importorskip("serial", reason="needs pyserial: pip install pyserial")


class Line:
    """Stands in for `serial.Serial`. The device sends `frames(tick)` in each tick, and its cable may be pulled.

    Until it is reset it sends observations all the time.
    """

    def __init__(self, rig: Rig, frames: Callable[[int], bytes]) -> None:
        self.rig, self.frames = rig, frames
        self.pulled = lambda: False
        self.stuck = lambda: False
        self.actions: list[Any] = []
        self._reset = False
        self._decoder = Decoder()
        self._tick, self._waiting = -1, b""

    @property
    def in_waiting(self) -> int:
        if self.pulled():
            raise OSError(5, "Input/output error")
        if not self._reset:
            self._waiting = observation(0)
        elif self._tick != self.rig.tick:
            self._tick = self.rig.tick
            self._waiting += self.frames(self._tick)
        return len(self._waiting)

    def read(self, n: int) -> bytes:
        data, self._waiting = self._waiting[:n], self._waiting[n:]
        return data

    def write(self, data: bytes) -> int:
        if self.pulled():
            raise serial.SerialException("write failed: [Errno 5] Input/output error")
        if self.stuck():
            raise serial.SerialTimeoutException("Write timeout")
        for frame in self._decoder.feed(data):
            self._reset = self._reset or frame.kind == RESET
            self.actions += [frame.values] if frame.kind == ACTION else []
        return len(data)

    @property
    def out_waiting(self) -> int:
        if self.pulled():
            raise termios.error(5, "Input/output error")
        return 0

    def close(self) -> None:
        pass


def observation(sequence: int, values: Any = GOOD) -> bytes:
    return encode(OBSERVATION, sequence % 65536, np.asarray(values, np.float32))


def connect(rig: Rig, faulty: Callable[[int], bytes]) -> Line:
    """Put a device on a line under the loop that sends `faulty(tick)` on faulty ticks."""
    line = Line(rig, lambda tick: faulty(tick) if rig.faulty else observation(tick + 1))
    rig.patch.setattr(serial, "Serial", lambda *arguments, **options: line)
    rig.patch.setattr("edge.plants.serial.SETTLE_S", 0.0)
    rig.plant = SerialPlant("/dev/ttyFAKE", rig.policy.spec, timeout_s=0.005)
    rig.plant.line = line
    # Ahead of the real one, by which the plant stamps its observations.
    rig.clock = FakeClock(time.monotonic_ns() + 10**15)
    return line


def device_stands_still(outcome: LoopReport, rig: Rig) -> None:
    np.testing.assert_array_equal(rig.plant.line.actions[-1], FAILSAFE, err_msg="what the device got last")


def with_crc_flipped(frame: bytes) -> bytes:
    return frame[:-1] + bytes([frame[-1] ^ 1])


NOISE = np.random.default_rng(0).integers(0, 256, 500, np.uint8).tobytes()
SENDS: tuple[tuple[str, Callable[[int], bytes], Cause], ...] = (
    ("A device on a serial line falls silent.", lambda tick: b"", Cause.PLANT_ERROR),
    ("There is nothing but noise on a serial line.", lambda tick: NOISE, Cause.PLANT_ERROR),
    ("A serial line cuts every frame in half.", lambda tick: observation(tick + 1)[:9], Cause.PLANT_ERROR),
    (
        "A serial line flips a bit in every frame.",
        lambda tick: with_crc_flipped(observation(tick + 1)),
        Cause.PLANT_ERROR,
    ),
    ("A device sends its last frame again and again.", lambda tick: observation(FIRST), Cause.PLANT_ERROR),
    ("Another kind of device is on the line.", lambda tick: observation(tick + 1, np.zeros(5)), Cause.PLANT_ERROR),
    (
        "A serial line gives back what is sent on it.",
        lambda tick: encode(ACTION, tick, np.zeros(3, np.float32)),
        Cause.PLANT_ERROR,
    ),
    (
        "A frame claims a length that no frame has.",
        lambda tick: b"\xa5\x5aO\xff\xff" + bytes(20),
        Cause.PLANT_ERROR,
    ),
    (
        "A device sends NaN in a frame that is whole.",
        lambda tick: observation(tick + 1, [0, np.nan, 0]),
        Cause.NON_FINITE,
    ),
)
for name, sends, cause in SENDS:
    FAULTS.append(
        Fault(
            "sensor",
            name,
            lambda rig, sends=sends: connect(rig, sends) and None,  # type: ignore[misc, func-returns-value]
            cause,
            check=device_stands_still,
        )
    )


@fault("sensor", "A device starts again and counts its frames from 0: that is no fault.", check=device_stands_still)
def _(rig: Rig) -> None:
    rig.lasting = True
    connect(rig, lambda tick: observation(tick - FIRST))


@fault("sensor", "Frames get lost on a serial line: that is no fault.", check=device_stands_still)
def _(rig: Rig) -> None:
    rig.lasting = True
    connect(rig, lambda tick: observation(7 * tick))


@fault("actuator", "A device on a serial line takes nothing for three ticks.", Cause.PLANT_ERROR, bad=(3, 4, 5),
       says="does not take what is sent", check=device_stands_still)  # fmt: skip
def _(rig: Rig) -> None:
    line = connect(rig, lambda tick: observation(tick + 1))
    line.stuck = lambda: rig.faulty


@fault("actuator", "The cable of a serial line is pulled out and put back.", Cause.PLANT_ERROR, bad=(3, 4, 5),
       says="is gone", check=device_stands_still)  # fmt: skip
def _(rig: Rig) -> None:
    line = connect(rig, lambda tick: observation(tick + 1))
    line.pulled = lambda: rig.faulty


@fault("actuator", "The cable of a serial line is pulled out for good.", bad=range(3, 8),
       counts={Cause.PLANT_ERROR: 6}, stopped_by="plant error", exit_code=14)  # fmt: skip
def _(rig: Rig) -> None:
    rig.lasting = True
    line = connect(rig, lambda tick: observation(tick + 1))
    line.pulled = lambda: rig.faulty


@fault("actuator", "The cable of a serial line is not in when the loop begins.", bad=(),
       counts={Cause.PLANT_ERROR: 2}, stopped_by="plant error", exit_code=14)  # fmt: skip
def _(rig: Rig) -> None:
    line = connect(rig, lambda tick: observation(tick + 1))
    line.pulled = lambda: True
