import os
import signal
from typing import Any

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant
from loops import GOOD, run

from edge.loop import ControlLoop
from edge.plants import PlantStoppedError
from edge.policy import Policy
from edge.safety import Safety
from edge.signals import Stopped, StopSignals


@pytest.fixture
def arm() -> Policy:
    return Policy.load(DATA / "arm-int8.tflite")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_loop_after_its_tick(arm: Policy, number: signal.Signals) -> None:
    plant = FakePlant([GOOD], lambda tick: os.kill(os.getpid(), number) if tick == 2 else None)
    report = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), safety=Safety([0.5, 0.5])).run()
    assert (report.ticks, report.stopped_by, report.exit_code) == (3, number.name, 128 + number)
    assert len(plant.written) == 4
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "handlers are given back"


def test_a_second_signal_breaks_off_a_tick_that_is_stuck(arm: Policy) -> None:
    def stuck(tick: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the second signal should have ended this")

    plant = FakePlant([GOOD], stuck)
    report = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), safety=Safety([0.5, 0.5])).run()
    assert (report.ticks, report.stopped_by, report.exit_code) == (0, "SIGTERM", 143)
    np.testing.assert_array_equal(plant.written, [[0.5, 0.5]])


def test_signals_break_off_until_the_last_write_comes_next() -> None:
    stop = StopSignals()
    stop.handle(signal.SIGTERM, None)
    for _ in range(3):  # a plant may swallow some
        with pytest.raises(Stopped):
            stop.handle(signal.SIGINT, None)
    stop.closed = True
    stop.handle(signal.SIGINT, None)
    assert stop.number == signal.SIGTERM


def test_signals_do_not_interrupt_the_last_write(arm: Policy) -> None:
    class Slow(FakePlant):
        def write(self, action: Any) -> Any:
            if len(self.written) == 1:  # the failsafe action
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
            return super().write(action)

    plant = Slow([GOOD])
    report = run(arm, plant, FakeClock(), ticks=1, failsafe=[0.5, 0.5])
    assert report.stopped_by == "duration"
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])


def test_signals_that_came_before_the_run_keep_the_plant_from_moving(arm: Policy) -> None:
    stop = StopSignals()
    stop.handle(signal.SIGTERM, None)
    plant = FakePlant([GOOD])
    loop = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), safety=Safety([0.5, 0.5]))
    report = loop.run(stop=stop)
    assert (report.ticks, report.stopped_by, report.exit_code) == (0, "SIGTERM", 143)
    # It was not touched, so that there is nothing to take back.
    assert plant.written == []
    assert report.failsafe_sent is None


def test_a_cause_says_more_than_a_signal_that_had_come_before(arm: Policy) -> None:
    def work(tick: int) -> None:
        if tick == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            raise PlantStoppedError("emergency stop")

    report = run(arm, FakePlant([GOOD], work), FakeClock(), ticks=10)
    assert (report.stopped_by, report.exit_code) == ("plant stopped", 18)
