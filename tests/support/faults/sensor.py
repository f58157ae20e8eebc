"""Sensors that break, lie, freeze or fall silent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.safety import Cause
from faults import FAILSAFE, FAULTS, FIRST, GOOD, MS, Fault, Rig, StampedDevice, fault


def reading(value: Any) -> Callable[[Rig], None]:
    return lambda rig: rig.at_read(lambda: value)


def raising(error: BaseException) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        def fail() -> None:
            raise error

        rig.at_read(fail)

    return inject


def instead(position: int, value: float) -> np.ndarray:
    observation = GOOD.copy()
    observation[position] = value
    return observation


for position, word in enumerate(("first", "second", "third")):
    for value, what in ((np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "minus infinity")):
        name = f"The {word} sensor gives {what}."
        FAULTS.append(Fault("sensor", name, reading(instead(position, value)), Cause.NON_FINITE))


class DriverError(Exception):
    """An exception of a driver's own."""


class Mute(Exception):
    """An exception that cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


READINGS: tuple[tuple[str, Any, Cause], ...] = (
    ("All sensors give NaN.", np.full(3, np.nan), Cause.NON_FINITE),
    ("A sensor gives a number beyond float32.", instead(0, 1e300), Cause.NON_FINITE),
    ("A sensor with bounds gives 1e38.", instead(2, 1e38), Cause.OUT_OF_RANGE),
    ("A sensor is above its bound by just more than the margin.", instead(2, 110.001), Cause.OUT_OF_RANGE),
    ("A sensor is below its bound by just more than the margin.", instead(2, -10.001), Cause.OUT_OF_RANGE),
    ("An observation is too long.", np.zeros(4), Cause.PLANT_ERROR),
    ("An observation is too short.", np.zeros(2), Cause.PLANT_ERROR),
    ("An observation is empty.", np.zeros(0), Cause.PLANT_ERROR),
    ("An observation has a dimension too many.", np.zeros((1, 3)), Cause.PLANT_ERROR),
    ("An observation is None.", None, Cause.PLANT_ERROR),
    ("An observation is a list.", [0.3, 1.05, 60.0], Cause.PLANT_ERROR),
    ("An observation is a single number.", 0.3, Cause.PLANT_ERROR),
    ("An observation is a dictionary.", {"angle": 0.3}, Cause.PLANT_ERROR),
    ("An observation is text in an array.", np.array(["0.3", "1.05", "60"]), Cause.PLANT_ERROR),
    ("An observation is complex.", GOOD.astype(complex), Cause.PLANT_ERROR),
    ("An observation is made of Python objects.", np.array([0.3, None, 60.0], object), Cause.PLANT_ERROR),
    ("An observation is made of dates.", np.zeros(3, "M8[s]"), Cause.PLANT_ERROR),
)
FAULTS.extend(Fault("sensor", name, reading(value), cause) for name, value, cause in READINGS)

EXCEPTIONS: tuple[tuple[str, BaseException, str], ...] = (
    ("Reading fails with a bus error.", OSError(121, "Remote I/O error"), "Remote I/O error"),
    ("Reading times out.", TimeoutError("no answer"), "no answer"),
    ("Reading finds garbage where a number should be.", ValueError("invalid literal"), "invalid literal"),
    ("Reading misses a key in a device's answer.", KeyError("angle"), "KeyError: 'angle'"),
    ("Reading divides by zero.", ZeroDivisionError("division by zero"), "division by zero"),
    ("Reading runs out of memory.", MemoryError(), "MemoryError"),
    ("Reading recurses too deeply.", RecursionError("maximum recursion depth"), "RecursionError"),
    ("Reading raises an exception of the driver's own.", DriverError("E17"), "E17"),
    ("Reading raises an exception that cannot be printed.", Mute(), "Mute"),
    ("Reading raises an exception whose text no terminal prints.", OSError("\udcff"), "\\udcff"),
)
FAULTS.extend(Fault("sensor", name, raising(e), Cause.PLANT_ERROR, says=says) for name, e, says in EXCEPTIONS)


@fault("sensor", "Sensors are at the very edge of bounds and margin, or give denormal numbers: that is no fault.")
def _(rig: Rig) -> None:
    rig.lasting, rig.ticks = True, 8
    edges = (
        instead(2, 110.0),
        instead(2, -10.0),
        np.array([5e-324, -1e-45, 1e-310]),
        GOOD.astype(np.float16),
        GOOD.astype(np.int32),
    )
    rig.normal = {FIRST + i: rig.policy.act(edge) for i, edge in enumerate(edges)}
    rig.at_read(lambda: edges[rig.tick - FIRST])


@fault("sensor", "Good and bad observations alternate.", Cause.NON_FINITE, bad=(3, 5, 7, 9, 11))
def _(rig: Rig) -> None:
    rig.lasting = True
    rig.at_read(lambda: instead(0, np.nan) if rig.tick % 2 else GOOD)


DROPOUTS = [tick for tick in range(5, 19) if tick % 5 != 4]


@fault(
    "sensor", "Sensors drop out again and again, each time just too short to stop for.", Cause.NON_FINITE, bad=DROPOUTS
)
def _(rig: Rig) -> None:
    rig.lasting, rig.ticks = True, 20
    rig.at_read(lambda: instead(0, np.nan) if rig.tick in DROPOUTS else GOOD)


@fault(
    "sensor",
    "One kind of fault follows another without a good tick between them.",
    bad=range(3, 8),
    counts={Cause.NON_FINITE: 2, Cause.OUT_OF_RANGE: 2, Cause.PLANT_ERROR: 1},
    stopped_by="plant error",
    exit_code=14,
)
def _(rig: Rig) -> None:
    values = [instead(0, np.nan), instead(1, np.inf), instead(2, 200.0), instead(2, -50.0), None]
    rig.lasting = True
    rig.at_read(lambda: values[rig.tick - FIRST])


@fault(
    "sensor",
    "The sensors give nothing good from the first tick on.",
    Cause.NON_FINITE,
    bad=range(5),
    stopped_by="non-finite observation",
    exit_code=10,
)
def _(rig: Rig) -> None:
    rig.first, rig.lasting = 0, True
    rig.at_read(lambda: instead(1, np.nan))


@fault("sensor", "Reading takes longer than allowed.", Cause.PLANT_BLOCKED)
def _(rig: Rig) -> None:
    # The watchdog's thread looks once a second of real time: here it is the loop itself that notices.
    rig.rate_hz, rig.safety["max_block_s"] = 0.1, 4.0

    def read() -> Any:
        rig.clock.advance(5000 * MS)
        return GOOD

    rig.at_read(read)


@fault("sensor", "Reading hangs until the watchdog writes the failsafe action.", Cause.PLANT_BLOCKED, bad=(3,))
def _(rig: Rig) -> None:
    rig.rate_hz, rig.safety["max_block_s"] = 0.1, 0.02
    written = threading.Event()

    def read() -> Any:
        if rig.tick == FIRST:
            rig.clock.advance(1000 * MS)
            assert written.wait(10)
        return GOOD

    def write(action: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            np.testing.assert_array_equal(action, FAILSAFE)
            written.set()
        return action

    rig.at_read(read)
    rig.at_write(write)


def stamping(stamp: Callable[[Rig], Any]) -> Callable[[Rig], None]:
    """A sensor that says this of when it was read; observations may be 5 ms old."""

    def inject(rig: Rig) -> None:
        rig.plant = StampedDevice(rig)
        rig.plant.at_stamp = lambda: stamp(rig)
        rig.safety["max_age_s"] = 0.005

    return inject


def fail_to_stamp(rig: Rig) -> None:
    raise OSError("no clock on the bus")


STAMPS: tuple[tuple[str, Callable[[Rig], Any], Cause], ...] = (
    (
        "A sensor freezes: its last observation comes again, with its time.",
        lambda rig: 1000 + (FIRST - 1) * 10 * MS,
        Cause.STALE,
    ),
    ("Observations arrive too late.", lambda rig: rig.clock.now_ns() - 6 * MS, Cause.STALE),
    ("The time of an observation is missing.", lambda rig: None, Cause.PLANT_ERROR),
    ("The time of an observation is NaN.", lambda rig: float("nan"), Cause.PLANT_ERROR),
    ("The time of an observation is text.", lambda rig: "noon", Cause.PLANT_ERROR),
    ("Asking for the time of an observation fails.", fail_to_stamp, Cause.PLANT_ERROR),
)
FAULTS.extend(Fault("sensor", name, stamping(stamp), cause) for name, stamp, cause in STAMPS)


@fault("sensor", "Observations are almost too old: that is no fault.")
def _(rig: Rig) -> None:
    stamping(lambda rig: rig.clock.now_ns() - 5 * MS)(rig)
