from typing import Any

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant

from edge.errors import ObservationShapeError, UnknownNameError, UsageError
from edge.loop import ControlLoop
from edge.policy import Policy

MS = 1_000_000
GOOD = np.array([0.3, 1.05, 60.0])
BAD = np.array([0.3, np.nan, 60.0])


@pytest.fixture
def arm() -> Policy:
    return Policy.load(DATA / "arm-int8.tflite")


def run(arm: Policy, plant: FakePlant, clock: FakeClock, *, ticks: int = 10, rate_hz: float = 100.0, **options: Any):
    loop = ControlLoop(arm, plant, rate_hz=rate_hz, clock=clock, **options)
    return loop.run(duration_s=ticks / rate_hz)


def test_ticks_fall_on_a_grid_whatever_each_takes(arm: Policy) -> None:
    clock, woken = FakeClock(), []

    def work(tick: int) -> None:
        woken.append(clock.now_ns())
        clock.advance((tick % 3) * 3 * MS)

    report = run(arm, FakePlant([GOOD], work), clock)
    assert np.diff(woken).tolist() == [10 * MS] * 9
    assert (report.ticks, report.missed_periods) == (10, 0)
    assert report.period_us is not None
    assert (report.period_us.p50, report.period_us.max) == (10_000, 10_000)
    assert report.work_us is not None
    assert (report.work_us.p50, report.work_us.max) == (3_000, 6_000)


def test_waking_late_does_not_drift(arm: Policy) -> None:
    clock, woken = FakeClock(start_ns=0, overshoot_ns=MS), []
    report = run(arm, FakePlant([GOOD], lambda tick: woken.append(clock.now_ns())), clock, ticks=5)
    assert woken == [0, 11 * MS, 21 * MS, 31 * MS, 41 * MS]
    assert report.wake_latency_us is not None
    assert report.wake_latency_us.max == 1_000


def test_missed_periods_are_skipped_in_phase_and_counted(arm: Policy) -> None:
    clock, woken = FakeClock(start_ns=0), []

    def work(tick: int) -> None:
        woken.append(clock.now_ns())
        if tick == 1:
            clock.advance(34 * MS)

    report = run(arm, FakePlant([GOOD], work), clock)
    # The tick due at 10 ms ends at 44 ms: those due at 20, 30 and 40 ms are gone, the next is at 50 ms.
    assert woken == [0, 10 * MS, 50 * MS, 60 * MS, 70 * MS, 80 * MS, 90 * MS]
    assert (report.ticks, report.missed_periods) == (7, 3)


def test_a_tick_that_ends_exactly_on_the_next_deadline_leaves_it_to_be_skipped(arm: Policy) -> None:
    clock = FakeClock(start_ns=0)
    report = run(arm, FakePlant([GOOD], lambda tick: clock.advance(10 * MS if tick == 0 else 0)), clock, ticks=4)
    assert (report.ticks, report.missed_periods) == (3, 1)


@pytest.mark.parametrize(
    ("failsafe", "expected"), [("zero", [0.0, 0.0]), ([1.5, 0.25], [1.5, 0.25]), ([9.0, -9.0], [2.0, 0.0])]
)
def test_an_observation_with_nan_brings_the_failsafe_action(arm: Policy, failsafe: Any, expected: list[float]) -> None:
    plant = FakePlant([GOOD, BAD, GOOD])
    report = run(arm, plant, FakeClock(), ticks=3, failsafe=failsafe)
    np.testing.assert_allclose(plant.written[1], expected)
    np.testing.assert_array_equal(plant.written[0], plant.written[2])
    assert report.failsafes == {"non-finite observation": 1}


def test_hold_writes_the_last_good_action_and_zero_before_there_is_one(arm: Policy) -> None:
    plant = FakePlant([BAD, GOOD, BAD, BAD])
    report = run(arm, plant, FakeClock(), ticks=4)
    np.testing.assert_array_equal(plant.written[0], [0.0, 0.0])
    np.testing.assert_array_equal(plant.written[1], arm.act(GOOD))
    np.testing.assert_array_equal(plant.written[2], plant.written[1])
    np.testing.assert_array_equal(plant.written[3], plant.written[1])
    np.testing.assert_array_equal(plant.written[4], [0.0, 0.0], err_msg="a torque must not be held for ever")
    assert report.failsafes == {"non-finite observation": 3}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_however_the_loop_ends_the_failsafe_action_is_the_last_one_written(
    arm: Policy, error: type[BaseException]
) -> None:
    def work(tick: int) -> None:
        if tick == 3:
            raise error

    plant = FakePlant([GOOD], work)
    loop = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), failsafe=[0.5, 0.5])
    with pytest.raises(error):
        loop.run()
    assert len(plant.written) == 4
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])
    assert loop.report().ticks == 3


def test_the_failsafe_action_also_ends_a_run_that_went_well(arm: Policy) -> None:
    plant = FakePlant([GOOD])
    run(arm, plant, FakeClock(), ticks=3, failsafe=[0.5, 0.5])
    assert len(plant.written) == 4
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])


def test_an_observation_of_another_shape_stops_the_loop_in_the_failsafe_state(arm: Policy) -> None:
    plant = FakePlant([GOOD, np.zeros(5)])
    with pytest.raises(ObservationShapeError):
        run(arm, plant, FakeClock(), failsafe="zero")
    np.testing.assert_array_equal(plant.written[-1], [0.0, 0.0])


def test_actions_are_clamped_to_the_bounds(arm: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm, "act", lambda observation: np.array([7.0, -7.0], np.float32))
    plant = FakePlant([GOOD])
    run(arm, plant, FakeClock(), ticks=1)
    np.testing.assert_array_equal(plant.written[0], [2.0, 0.0])


@pytest.mark.parametrize("action", [[np.nan, 0.5], [0.1, np.inf]])
def test_an_action_that_is_not_finite_never_reaches_the_plant(
    arm: Policy, monkeypatch: pytest.MonkeyPatch, action: list[float]
) -> None:
    monkeypatch.setattr(arm, "act", lambda observation: np.array(action, np.float32))
    plant = FakePlant([GOOD])
    report = run(arm, plant, FakeClock(), ticks=2, failsafe=[0.5, 0.5])
    np.testing.assert_array_equal(plant.written, [[0.5, 0.5]] * 3)
    assert report.failsafes == {"non-finite action": 2}


def test_a_plant_may_change_the_array_that_it_is_given(arm: Policy) -> None:
    class Scaling(FakePlant):
        def write(self, action: Any) -> Any:
            super().write(action)
            action *= 100
            return action

    plant = Scaling([GOOD, BAD, BAD])
    run(arm, plant, FakeClock(), ticks=3)
    np.testing.assert_array_equal(plant.written[1], plant.written[0])
    np.testing.assert_array_equal(plant.written[2], plant.written[0])
    np.testing.assert_array_equal(plant.written[3], [0.0, 0.0])


def test_a_stopped_loop_ends_after_its_tick(arm: Policy) -> None:
    plant = FakePlant([GOOD], lambda tick: loop.stop("SIGTERM") if tick == 2 else None)
    loop = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), failsafe=[0.5, 0.5])
    report = loop.run()
    assert (report.ticks, report.stopped_by) == (3, "SIGTERM")
    assert len(plant.written) == 4
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])


def test_periods_after_the_end_are_not_missed(arm: Policy) -> None:
    clock = FakeClock(start_ns=0)
    report = run(arm, FakePlant([GOOD], lambda tick: clock.advance(55 * MS if tick == 3 else 0)), clock, ticks=5)
    assert (report.ticks, report.missed_periods) == (4, 1)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_duration_that_is_none_is_refused(arm: Policy, duration_s: float) -> None:
    with pytest.raises(UsageError, match="duration"):
        ControlLoop(arm, FakePlant([GOOD])).run(duration_s=duration_s)


def test_a_discrete_policy_drives_a_plant() -> None:
    switch = Policy.load(DATA / "switch-int8.tflite")
    plant = FakePlant([GOOD, BAD])
    run(switch, plant, FakeClock(), ticks=2, failsafe=[3])
    assert [int(action) for action in plant.written] == [int(switch.act(GOOD)), 3, 3]


def test_the_manifest_names_the_rate(arm: Policy) -> None:
    assert ControlLoop(arm, FakePlant([GOOD])).rate_hz == 50.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_hz": 0.0}, "not possible"),
        ({"rate_hz": float("nan")}, "not possible"),
        ({"failsafe": [0.0]}, r"must be 2 finite number\(s\)"),
        ({"failsafe": [0.0, float("nan")]}, "finite"),
    ],
)
def test_options_that_make_no_sense_are_refused(arm: Policy, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ControlLoop(arm, FakePlant([GOOD]), **options)


def test_a_misspelt_failsafe_is_refused_with_the_nearest(arm: Policy) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'hold'"):
        ControlLoop(arm, FakePlant([GOOD]), failsafe="hld")
    with pytest.raises(UsageError, match=r"one of 0\.\.3"):
        ControlLoop(Policy.load(DATA / "switch-int8.tflite"), FakePlant([GOOD]), failsafe=[4])


def test_a_run_longer_than_the_record_reports_its_last_ticks(arm: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.loop.MAX_RECORDED_TICKS", 4)
    clock = FakeClock(start_ns=0)
    report = run(arm, FakePlant([GOOD], lambda tick: clock.advance(tick * MS // 2)), clock, ticks=10)
    assert report.ticks == 10
    assert report.work_us is not None
    # The last four ticks worked 3, 3.5, 4 and 4.5 ms.
    assert (report.work_us.n, report.work_us.mean, report.work_us.max) == (4, 3750.0, 4500.0)
    assert report.period_us is not None
    assert (report.period_us.n, report.period_us.max) == (3, 10_000)
