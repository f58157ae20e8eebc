"""The fault campaign: a table of faults, and what each is injected into. `tests/edge/test_faults.py` runs it.

Every fault befalls a real `ControlLoop` that drives a plant on a clock that the test moves. Where a fault can pass or
last, both are tried: it comes at tick 3 and either goes after tick 5 or stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant

from edge import report, ticklog
from edge.loop import ControlLoop
from edge.loop_report import LoopReport
from edge.policy import Policy
from edge.records import to_json
from edge.safety import Cause, Safety

MS = 1_000_000
GOOD = np.array([0.3, 1.05, 60.0])
FAILSAFE = np.array([0.5, 0.25], np.float32)
FIRST, LAST = 3, 5
STOP_AFTER = 5
GROUPS = ("sensor", "actuator", "clock", "file", "network", "meter", "process")


class Rig:
    """A loop that is about to be put together. A fault changes what it wants of it.

    Attributes:
      tick: index of the tick that the loop is in; -1 before the first.
      first, lasting: when the fault comes, and whether it then stays.
      plant: what the loop drives, through a recorder.
      rate_hz, options: of the `ControlLoop`; by default it keeps a log.
      safety: of its `Safety`.
      ticks: how many the loop is asked for; None: until something stops it.
      normal: the right action of ticks that observe something special.
      patch: undone after the fault.
      folder: an empty folder.
      thread_errors: exceptions that ended threads.
    """

    def __init__(self, lasting: bool, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.tick, self.first, self.lasting = -1, FIRST, lasting
        self.folder, self.patch = folder, patch
        self.policy = Policy.load(DATA / "arm-int8.tflite")
        self.clock = FakeClock()
        self.plant: Any = Device(self)
        self.rate_hz = 100.0
        self.options: dict[str, Any] = {"log": folder / "ticks.log"}
        self.safety: dict[str, Any] = {"failsafe": FAILSAFE, "stop_after": STOP_AFTER}
        self.ticks: int | None = 12
        self.normal: dict[int, Any] = {}
        self.thread_errors: list[Any] = []
        patch.setattr(threading, "excepthook", self.thread_errors.append)

    @property
    def faulty(self) -> bool:
        """Whether the fault is there on this tick."""
        return self.tick >= self.first and (self.lasting or self.tick <= LAST)

    def at_read(self, does: Callable[[], Any]) -> None:
        """On faulty ticks the plant's `read` gives what `does` gives, or raises what it raises."""
        self.plant.at_read = does

    def at_write(self, does: Callable[[Any], Any]) -> None:
        """On faulty ticks the plant's `write` does this."""
        self.plant.at_write = does


class Device(FakePlant):
    """A plant that works but for the faults."""

    def __init__(self, rig: Rig) -> None:
        super().__init__([GOOD])
        self.rig = rig
        self.at_read: Callable[[], Any] = lambda: GOOD
        self.at_write: Callable[[Any], Any] = lambda action: action

    def read(self) -> Any:
        good = super().read()
        return self.at_read() if self.rig.faulty else good

    def write(self, action: Any) -> Any:
        return self.at_write(action) if self.rig.faulty else action


class StampedDevice(Device):
    """Says when its sensors were read; on faulty ticks, what `at_stamp` says."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig)
        self.at_stamp: Callable[[], Any] = lambda: 0

    @property
    def observed_ns(self) -> Any:
        return self.at_stamp() if self.rig.faulty else self.rig.clock.now_ns()


class Recorder:
    """Stands between loop and plant and notes what was asked of the plant, tick by tick."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.plant = rig, rig.plant
        self.writes: list[list[Any]] = [[]]

    def reset(self) -> None:
        self.plant.reset()

    def read(self) -> Any:
        self.rig.tick += 1
        if self.rig.tick:
            self.writes.append([])
        return self.plant.read()

    def write(self, action: Any) -> Any:
        self.writes[-1].append(np.array(action))
        return self.plant.write(action)

    def __getattr__(self, name: str) -> Any:
        # For `observed_ns`, which only some plants have.
        return getattr(self.plant, name)


@dataclass(frozen=True)
class Fault:
    """A fault, and what has to come of it.

    Attributes:
      group: one of `GROUPS`.
      name: what happens, as a sentence.
      inject: puts it into a rig.
      cause: what the failsafe ticks are counted as; None if control must not be disturbed.
      bad: ticks that must be answered with the failsafe action; None: those on which the fault is there.
      counts: failsafe ticks by cause, where they are not all of the same one or not one for each bad tick.
      stopped_by, exit_code: how the run must end; None: by its duration or, if the fault lasts, for its cause.
      raises: what must come out of `run`, for faults of the program itself; only after the failsafe action.
      says: must be part of the report that is printed.
      check: further expectations.
    """

    group: str
    name: str
    inject: Callable[[Rig], None]
    cause: Cause | None = None
    bad: Sequence[int] | None = None
    counts: dict[Cause, int] | None = None
    stopped_by: str | None = None
    exit_code: int = 0
    raises: type[BaseException] | None = None
    says: str = ""
    check: Callable[[LoopReport, Rig], None] = field(default=lambda report, rig: None)

    @property
    def may_last(self) -> bool:
        """Whether it is tried both ways."""
        return self.cause is not None and self.bad is None


FAULTS: list[Fault] = []


def fault(group: str, name: str, cause: Cause | None = None, **expected: Any) -> Callable[..., None]:
    """Enters the function below it into the table, as what injects the fault."""

    def enter(inject: Callable[[Rig], None]) -> None:
        FAULTS.append(Fault(group, name, inject, cause, **expected))

    return enter


def happen(fault: Fault, rig: Rig) -> None:
    """Let the fault befall a loop and check everything that has to come of it."""
    normal = rig.policy.act(GOOD)
    assert not np.array_equal(normal, FAILSAFE)
    fault.inject(rig)
    plant = Recorder(rig)
    safety = Safety(**rig.safety)
    loop = ControlLoop(rig.policy, plant, rate_hz=rig.rate_hz, clock=rig.clock, safety=safety, **rig.options)
    duration_s = None if rig.ticks is None else rig.ticks / rig.rate_hz
    with rig.plant:
        if fault.raises is None:
            loop.run(duration_s=duration_s)
        else:
            with pytest.raises(fault.raises):
                loop.run(duration_s=duration_s)
    outcome = loop.report()

    np.testing.assert_array_equal(plant.writes[-1][-1], FAILSAFE, err_msg="the last action of all")
    bad = _bad_ticks(fault, rig)
    for tick, writes in enumerate(plant.writes):
        if tick in bad:
            np.testing.assert_array_equal(writes[-1], FAILSAFE, err_msg=f"tick {tick}")
        elif tick < len(plant.writes) - 1:
            np.testing.assert_array_equal(writes, [rig.normal.get(tick, normal)], err_msg=f"tick {tick}")
    counts = ({fault.cause: len(bad)} if fault.cause else {}) if fault.counts is None else fault.counts
    assert outcome.failsafes == {cause.text: count for cause, count in counts.items()}
    expected = ("duration", 0)
    if fault.stopped_by is not None:
        expected = (fault.stopped_by, fault.exit_code)
    elif fault.may_last and rig.lasting:
        assert fault.cause is not None
        expected = (fault.cause.text, fault.cause.exit_code)
    assert (outcome.stopped_by, outcome.exit_code) == expected
    # Whatever happened, it can be told: in print and in a file.
    text = report.loop_text(outcome)
    text.encode()
    to_json(outcome)
    assert fault.says in text
    if (log := rig.options.get("log")) is not None and outcome.log_error is None and fault.raises is None:
        _, records = ticklog.read(log)
        assert len(records) == outcome.ticks
        assert np.flatnonzero(records["cause"]).tolist() == list(bad)
    fault.check(outcome, rig)
    assert [error.exc_type.__name__ for error in rig.thread_errors] == []


def _bad_ticks(fault: Fault, rig: Rig) -> Sequence[int]:
    if fault.bad is not None or fault.cause is None:
        return fault.bad or ()
    return range(FIRST, FIRST + STOP_AFTER) if rig.lasting else range(FIRST, LAST + 1)


# The tables enter themselves.
from faults import actuator, clock, file, meter, network, process, sensor, serial_line  # noqa: E402, F401
