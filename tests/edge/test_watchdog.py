import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant
from loops import GOOD, MS, run

from edge.loop import ControlLoop
from edge.policy import Policy
from edge.safety import Safety


@pytest.fixture
def arm() -> Policy:
    return Policy.load(DATA / "arm-int8.tflite")


@contextlib.contextmanager
def sigterm_let_through() -> Iterator[None]:
    """For plants that block SIGTERM: afterwards it is let through, and answered by nobody."""
    try:
        yield
    finally:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGTERM, before)


def test_a_call_that_takes_too_long_is_counted_when_it_comes_back(arm: Policy) -> None:
    clock = FakeClock(start_ns=0)
    plant = FakePlant([GOOD], lambda tick: clock.advance(6 * MS if tick == 1 else 0))
    report = run(arm, plant, clock, ticks=3, failsafe=[0.5, 0.5], max_block_s=0.005)
    assert report.failsafes == {"plant blocked": 1}


def test_a_plant_that_blocks_gets_the_failsafe_action_while_it_does(arm: Policy) -> None:
    # On the real clock: what is tested is that another thread acts while this one is stuck.
    written_in_time = threading.Event()

    class Blocking(FakePlant):
        def read(self) -> Any:
            if self.reads == 2:
                assert written_in_time.wait(10)
            return super().read()

        def write(self, action: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                np.testing.assert_array_equal(action, [0.5, 0.5])
                written_in_time.set()
            return super().write(action)

    plant = Blocking([GOOD])
    loop = ControlLoop(arm, plant, rate_hz=50, safety=Safety([0.5, 0.5], max_block_s=0.05))
    report = loop.run(duration_s=0.3)
    assert written_in_time.is_set()
    assert report.failsafes["plant blocked"] >= 1


class Stuck(FakePlant):
    """Its third read never comes back by itself."""

    def read(self) -> Any:
        if self.reads == 2:
            time.sleep(1000)
        return super().read()


def test_a_plant_that_never_comes_back_ends_the_loop_with_its_cause(arm: Policy) -> None:
    # On the real clock, like the signal that breaks the call off.
    plant = Stuck([GOOD])
    loop = ControlLoop(arm, plant, rate_hz=100, safety=Safety([0.5, 0.5], max_block_s=0.02, stop_after=3))
    report = loop.run()
    assert (report.ticks, report.stopped_by, report.exit_code) == (2, "plant blocked", 15)
    assert report.failsafes == {"plant blocked": 1}
    # Written by the watchdog while the read hung, and last of all.
    np.testing.assert_array_equal(plant.written[-2:], [[0.5, 0.5]] * 2)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("where", ["read", "last write"])
def test_what_cannot_be_broken_off_is_left_to_the_program(arm: Policy, where: str) -> None:
    dead = threading.Event()

    class Deaf(FakePlant):
        """Does not notice signals, like a driver that is stuck in the kernel."""

        def hang(self) -> None:
            # The signal is on its way to this thread all the while.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            assert dead.wait(10)

        def read(self) -> Any:
            if where == "read" and self.reads == 2:
                self.hang()
            return super().read()

        def write(self, action: Any) -> Any:
            last = len(self.written) == 3
            super().write(action)
            if where == "last write" and last and threading.current_thread() is threading.main_thread():
                self.hang()
            return action

    plant = Deaf([GOOD])
    safety = Safety([0.5, 0.5], max_block_s=0.02, stop_after=3)
    loop = ControlLoop(arm, plant, rate_hz=100, safety=safety, on_dead_plant=dead.set)
    with sigterm_let_through():
        loop.run(duration_s=0.03)
    assert dead.is_set()
    assert (loop.report().stopped_by, loop.report().exit_code) == ("plant blocked", 15)
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])


def test_a_plant_that_blocks_gets_what_the_loop_holds(arm: Policy) -> None:
    written_in_time = threading.Event()

    class Blocking(FakePlant):
        def read(self) -> Any:
            if self.reads == 2:
                assert written_in_time.wait(10)
            return super().read()

        def write(self, action: Any) -> Any:
            super().write(action)
            if threading.current_thread() is not threading.main_thread():
                written_in_time.set()
            return action

    plant = Blocking([GOOD])
    ControlLoop(arm, plant, rate_hz=50, safety=Safety("hold", max_block_s=0.05)).run(duration_s=0.06)
    # The third is the watchdog's, the fourth the loop's own; zero comes only at the end.
    np.testing.assert_array_equal(plant.written[:4], [arm.act(GOOD)] * 4)
    np.testing.assert_array_equal(plant.written[-1], [0.0, 0.0])


@pytest.mark.parametrize("fault", ["write hangs", "one lock for both"])
def test_a_plant_whose_write_blocks_too_cannot_hold_the_watchdog(arm: Policy, fault: str) -> None:
    dead, let_go = threading.Event(), threading.Event()

    class Stuck(FakePlant):
        lock = threading.Lock()

        def read(self) -> Any:
            if fault == "one lock for both" and self.reads == 2:
                with self.lock:
                    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
                    assert let_go.wait(10)
            return super().read()

        def write(self, action: Any) -> Any:
            if fault == "write hangs" and len(self.written) == 2:
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
                assert let_go.wait(10)
            with self.lock:
                return super().write(action)

    def on_dead_plant() -> None:
        dead.set()
        let_go.set()

    plant = Stuck([GOOD])
    safety = Safety([0.5, 0.5], max_block_s=0.02, stop_after=3)
    loop = ControlLoop(arm, plant, rate_hz=100, safety=safety, on_dead_plant=on_dead_plant)
    with sigterm_let_through():
        loop.run(duration_s=0.05)
    assert dead.is_set()
    assert (loop.report().stopped_by, loop.report().exit_code) == ("plant blocked", 15)
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])


def test_nothing_but_the_failsafe_action_comes_after_a_run_that_held_a_torque(arm: Policy) -> None:
    # The last write takes longer than a call may: what the watchdog then writes must not be what was held before.
    helped = threading.Event()

    class SlowAtTheEnd(FakePlant):
        def write(self, action: Any) -> Any:
            super().write(action)
            if threading.current_thread() is not threading.main_thread():
                helped.set()
            elif (np.asarray(action) == 0).all():
                assert helped.wait(10)
            return action

    plant = SlowAtTheEnd([GOOD])
    report = ControlLoop(arm, plant, rate_hz=50, safety=Safety("hold", max_block_s=0.05)).run(duration_s=0.06)
    assert report.failsafe_sent
    assert len(plant.written) == 5
    for action in plant.written[-2:]:
        np.testing.assert_array_equal(action, [0.0, 0.0])


def test_a_watchdog_without_a_thread_to_spare_does_not_end_the_run(
    arm: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if "help" in thread.name:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

    class Slow(FakePlant):
        def read(self) -> Any:
            if self.reads == 2:
                time.sleep(0.2)
            return super().read()

    report = ControlLoop(arm, Slow([GOOD]), rate_hz=50, safety=Safety("zero", max_block_s=0.02)).run(duration_s=0.3)
    assert report.failsafes["plant blocked"] >= 1
    assert report.stopped_by == "duration"
