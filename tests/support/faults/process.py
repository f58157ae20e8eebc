"""Signals, exceptions where none should be, and a process that runs out of something."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from edge.loop_report import LoopReport
from edge.meters.estimate import CpuTimeEstimate
from edge.safety import Cause
from faults import FAULTS, FIRST, GOOD, Fault, Rig, fault


def kill(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def once(rig: Rig, does: Callable[[], Any]) -> Callable[..., Any]:
    """Does it in the first faulty tick, and lets through what it is given."""
    done: list[int] = []

    def call(value: Any = GOOD) -> Any:
        if rig.faulty and not done:
            done.append(rig.tick)
            does()
        return value

    return call


def in_read(rig: Rig, does: Callable[[], Any]) -> None:
    rig.at_read(once(rig, does))


def in_act(rig: Rig, does: Callable[[], Any]) -> None:
    act, call = rig.policy.act, once(rig, does)
    rig.patch.setattr(rig.policy, "act", lambda observation: act(call(observation)))


def in_write(rig: Rig, does: Callable[[], Any]) -> None:
    rig.at_write(once(rig, does))


def in_sleep(rig: Rig, does: Callable[[], Any]) -> None:
    sleep, call = rig.clock.sleep_until_ns, once(rig, does)
    rig.clock.sleep_until_ns = lambda deadline_ns: sleep(call(deadline_ns))  # type: ignore[method-assign]


def in_log(rig: Rig, does: Callable[[], Any]) -> None:
    rig.at_write(lambda action: action)
    from edge.ticklog import TickLog

    record, call = TickLog.record, once(rig, does)
    rig.patch.setattr(TickLog, "record", lambda log, *values: (call(), record(log, *values))[1])


PLACES = (
    ("while the plant is read", in_read),
    ("while the policy acts", in_act),
    ("while an action is written", in_write),
    ("between two ticks", in_sleep),
    ("while a tick is logged", in_log),
)


def ticks(n: int) -> Callable[[LoopReport, Rig], None]:
    def check(outcome: LoopReport, rig: Rig) -> None:
        assert outcome.ticks == n

    return check


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    for where, place in PLACES:
        FAULTS.append(
            Fault(
                "process",
                f"{number.name} comes {where}.",
                lambda rig, place=place, number=number: place(rig, lambda: kill(number)),  # type: ignore[misc]
                stopped_by=number.name,
                exit_code=128 + number,
                # One that comes in the sleep before tick 4 ends the loop after that tick.
                check=ticks(FIRST + 2 if place is in_sleep else FIRST + 1),
            )
        )
for where, place in PLACES[:3]:
    FAULTS.append(
        Fault(
            "process",
            f"SIGTERM comes three times {where}.",
            lambda rig, place=place: place(rig, lambda: kill(*[signal.SIGTERM] * 3)),  # type: ignore[misc]
            stopped_by="SIGTERM",
            exit_code=143,
            check=ticks(FIRST),
        )
    )


@fault("process", "SIGINT comes, then SIGTERM, while the last failsafe action is written.")
def _(rig: Rig) -> None:
    rig.first, rig.lasting = 11, True
    calls: list[Any] = []

    def write(action: Any) -> Any:
        calls.append(action)
        if len(calls) == 2:
            kill(signal.SIGINT, signal.SIGTERM)
        return action

    rig.at_write(write)


def resetting(error: Exception) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        def fail() -> None:
            raise error

        rig.plant.reset = fail

    return inject


RESET = {"bad": (), "counts": {Cause.PLANT_ERROR: 1}, "stopped_by": "plant error", "exit_code": 14}
FAULTS += [
    Fault("process", "The plant cannot be reset.", resetting(OSError("not homed")), says="OSError: not homed", **RESET),
    Fault("process", "The plant's reset runs out of memory.", resetting(MemoryError()), says="MemoryError", **RESET),
]


@fault("process", "Another thread of the process dies of an exception.")
def _(rig: Rig) -> None:
    def die() -> None:
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        assert [error.exc_type for error in rig.thread_errors] == [ZeroDivisionError]
        rig.thread_errors.clear()

    in_read(rig, die)


@fault("process", "No thread can be started for the meter.", says="no energy was measured: estimate is not read")
def _(rig: Rig) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "meter":
            raise RuntimeError("can't start new thread")
        start(thread)

    rig.options["meter"] = CpuTimeEstimate(1.0)
    rig.patch.setattr(threading.Thread, "start", fail)


# From here on what is wrong is the program: it must not go on, and nobody must take it for a fault of the plant.


def raising(place: Callable[..., None], error: BaseException) -> Callable[[Rig], None]:
    def inject(rig: Rig) -> None:
        def fail() -> None:
            raise error

        place(rig, fail)

    return inject


for name, place, error in (
    ("The interpreter fails while the policy acts.", in_act, RuntimeError("Node number 3 failed to invoke")),
    ("Memory runs out while the policy acts.", in_act, MemoryError()),
    ("A program that the plant runs wants to exit.", in_read, SystemExit(3)),
    ("A library of the plant raises KeyboardInterrupt.", in_write, KeyboardInterrupt()),
    ("The clock fails.", in_sleep, OSError("no such clock")),
    ("The log has a bug.", in_log, IndexError("list index out of range")),
):
    FAULTS.append(
        Fault(
            "process",
            name,
            raising(place, error),
            stopped_by=type(error).__name__,
            exit_code=1,
            raises=type(error),
        )
    )


@fault("process", "Memory runs out and stays out: the last failsafe action needs none.", raises=MemoryError,
       stopped_by="MemoryError", exit_code=1)  # fmt: skip
def _(rig: Rig) -> None:
    def fail(*arguments: Any) -> Any:
        raise MemoryError

    def run_out() -> None:
        rig.patch.setattr(np, "copy", fail)
        raise MemoryError

    in_act(rig, run_out)
