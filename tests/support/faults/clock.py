"""Clocks that jump, stand still, run late or disagree, and ticks that take too long."""

from __future__ import annotations

import os
import signal
from typing import Any

from fakes import FakeClock

from edge.loop_report import LoopReport
from edge.safety import Cause
from faults import FAULTS, FIRST, GOOD, MS, Fault, Rig, StampedDevice, fault
from faults.sensor import stamping

HOUR_NS = 3600 * 1000 * MS


def stop_at(rig: Rig, tick: int) -> None:
    if rig.tick == tick:
        os.kill(os.getpid(), signal.SIGTERM)


def skipped_an_hour(outcome: LoopReport, rig: Rig) -> None:
    assert outcome.missed_periods == 360_000
    assert outcome.ticks == 12


@fault("clock", "The clock jumps an hour ahead: what was due is skipped, not made up for.", stopped_by="SIGTERM",
       exit_code=143, check=skipped_an_hour)  # fmt: skip
def _(rig: Rig) -> None:
    rig.lasting, rig.ticks = True, None

    def read() -> Any:
        if rig.tick == FIRST:
            rig.clock.advance(HOUR_NS)
        stop_at(rig, 11)
        return GOOD

    rig.at_read(read)


@fault("clock", "The clock jumps an hour back.", check=lambda outcome, rig: _all_ticks(outcome))
def _(rig: Rig) -> None:
    def read() -> Any:
        if rig.tick == FIRST:
            rig.clock.advance(-HOUR_NS)
        return GOOD

    rig.at_read(read)


@fault("clock", "The clock jumps an hour back, and the sensors' times with it.", Cause.BACKWARDS, bad=(3,))
def _(rig: Rig) -> None:
    rig.plant = StampedDevice(rig)
    rig.plant.at_stamp = rig.clock.now_ns

    def read() -> Any:
        if rig.tick == FIRST:
            rig.clock.advance(-HOUR_NS)
        return GOOD

    rig.at_read(read)


class StoppedClock(FakeClock):
    def sleep_until_ns(self, deadline_ns: int) -> None:
        pass


@fault("clock", "The clock stands still: the run ends after its ticks all the same.",
       check=lambda outcome, rig: _all_ticks(outcome))  # fmt: skip
def _(rig: Rig) -> None:
    rig.clock = StoppedClock()


def woken_late(outcome: LoopReport, rig: Rig) -> None:
    _all_ticks(outcome)
    assert outcome.wake_latency_us is not None
    assert outcome.wake_latency_us.max == 4000


@fault("clock", "The kernel wakes the loop late on every tick, though within the period.", check=woken_late)
def _(rig: Rig) -> None:
    rig.clock = FakeClock(overshoot_ns=4 * MS)


@fault("clock", "The kernel wakes the loop a period late on every tick.", Cause.MISSED, bad=range(3, 8),
       stopped_by="missed deadlines", exit_code=16)  # fmt: skip
def _(rig: Rig) -> None:
    rig.clock, rig.ticks, rig.safety["max_missed"] = FakeClock(overshoot_ns=15 * MS), None, 2


def slow_at(rig: Rig, *ticks: int) -> None:
    rig.lasting, rig.ticks, rig.safety["max_missed"] = True, 30, 2

    def read() -> Any:
        if rig.tick in ticks:
            rig.clock.advance(15 * MS)
        return GOOD

    rig.at_read(read)


@fault("clock", "Deadlines are missed in bursts.", Cause.MISSED, bad=(5, 10))
def _(rig: Rig) -> None:
    slow_at(rig, 3, 4, 8, 9)


@fault("clock", "Deadlines are missed now and then, never as many in a row as would count.")
def _(rig: Rig) -> None:
    slow_at(rig, 3, 5, 7, 9, 11)


FAULTS += [
    Fault(
        "clock",
        "A sensor's clock is an hour ahead.",
        stamping(lambda rig: rig.clock.now_ns() + HOUR_NS),
        Cause.BACKWARDS,
    ),
    Fault("clock", "A sensor's clock starts again at 0.", stamping(lambda rig: 0), Cause.BACKWARDS),
]


def _all_ticks(outcome: LoopReport) -> None:
    assert (outcome.ticks, outcome.missed_periods) == (12, 0)
