from typing import Any

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant
from loops import BAD, GOOD, MS, run

from edge.errors import UnknownNameError, UsageError
from edge.loop import ControlLoop
from edge.plants import PlantStoppedError
from edge.policy import Policy
from edge.report import loop_text
from edge.safety import ActionLimits, Safety


@pytest.fixture
def arm() -> Policy:
    return Policy.load(DATA / "arm-int8.tflite")


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
    ("failsafe", "expected"), [("zero", [0.0, 0.0]), ([1.5, 0.25], [1.5, 0.25]), ([2.0, 1.0], [2.0, 1.0])]
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


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_however_the_loop_ends_the_failsafe_action_is_the_last_one_written(
    arm: Policy, error: type[BaseException]
) -> None:
    def work(tick: int) -> None:
        if tick == 3:
            raise error

    plant = FakePlant([GOOD], work)
    loop = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), safety=Safety([0.5, 0.5]))
    with pytest.raises(error):
        loop.run()
    assert len(plant.written) == 4
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])
    assert (loop.report().ticks, loop.report().stopped_by) == (3, error.__name__)


def test_the_failsafe_action_also_ends_a_run_that_went_well(arm: Policy) -> None:
    plant = FakePlant([GOOD])
    run(arm, plant, FakeClock(), ticks=3, failsafe=[0.5, 0.5])
    assert len(plant.written) == 4
    np.testing.assert_array_equal(plant.written[-1], [0.5, 0.5])


def test_an_observation_of_another_shape_is_the_plants_error_and_named(arm: Policy) -> None:
    plant = FakePlant([GOOD, np.zeros(5)])
    report = run(arm, plant, FakeClock(), failsafe=[0.5, 0.5], stop_after=3)
    assert (report.ticks, report.stopped_by, report.exit_code) == (4, "plant error", 14)
    (message,) = report.plant_errors
    assert "takes a real numpy array of shape (3,); it was given float64 (5,)" in message
    np.testing.assert_array_equal(plant.written[1:], [[0.5, 0.5]] * 4)


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
        ({"max_age_s": 0.0}, "must be above 0 s"),
        ({"max_block_s": -1.0}, "must be above 0 s"),
        ({"max_missed": 0}, "at least 1"),
        ({"stop_after": 0}, "at least 1"),
        ({"range_margin": -0.1}, "at least 0"),
        ({"range_margin": float("nan")}, "at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(arm: Policy, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(arm, FakePlant([GOOD]), FakeClock(), **options)


@pytest.mark.parametrize("limits", [{"slew_per_s": 0.0}, {"low_pass_hz": -1.0}])
def test_limits_that_would_stop_everything_are_refused(limits: Any) -> None:
    with pytest.raises(UsageError, match="must be a number above 0"):
        ActionLimits(**limits)


def test_a_misspelt_failsafe_is_refused_with_the_nearest(arm: Policy) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'hold'"):
        ControlLoop(arm, FakePlant([GOOD]), safety=Safety("hld"))
    with pytest.raises(UsageError, match=r"one of 0\.\.3"):
        ControlLoop(Policy.load(DATA / "switch-int8.tflite"), FakePlant([GOOD]), safety=Safety([4]))


def test_a_run_longer_than_the_record_reports_its_last_ticks(arm: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.loop_report.MAX_RECORDED_TICKS", 4)
    clock = FakeClock(start_ns=0)
    report = run(arm, FakePlant([GOOD], lambda tick: clock.advance(tick * MS // 2)), clock, ticks=10)
    assert report.ticks == 10
    assert report.work_us is not None
    # The last four ticks worked 3, 3.5, 4 and 4.5 ms.
    assert (report.work_us.n, report.work_us.mean, report.work_us.max) == (4, 3750.0, 4500.0)
    assert report.period_us is not None
    assert (report.period_us.n, report.period_us.max) == (3, 10_000)


class StampedPlant(FakePlant):
    """A plant that says when its observation was made: `ages_ns` before it is read."""

    def __init__(self, clock: FakeClock, ages_ns: list[int]) -> None:
        super().__init__([GOOD])
        self.clock, self.ages_ns = clock, ages_ns
        self.observed_ns = 0

    def read(self) -> Any:
        age_ns = self.ages_ns[min(self.reads, len(self.ages_ns) - 1)]
        self.observed_ns = self.clock.now_ns() - age_ns
        return super().read()


def test_an_old_observation_is_not_acted_on(arm: Policy) -> None:
    clock = FakeClock()
    plant = StampedPlant(clock, [0, 4 * MS, 6 * MS, 0])
    report = run(arm, plant, clock, ticks=4, failsafe=[0.5, 0.5], max_age_s=0.005)
    assert report.failsafes == {"stale observation": 1}
    np.testing.assert_array_equal(plant.written[2], [0.5, 0.5])


def test_time_that_goes_backwards_is_a_broken_clock(arm: Policy) -> None:
    clock = FakeClock()
    plant = StampedPlant(clock, [0, 11 * MS, 0])
    report = run(arm, plant, clock, ticks=3, failsafe=[0.5, 0.5])
    assert report.failsafes == {"observation time going backwards": 1}


@pytest.mark.parametrize(("third", "passes"), [(-9.0, True), (-11.0, False), (109.0, True), (111.0, False)])
def test_an_observation_beyond_the_bounds_and_margin_is_not_acted_on(arm: Policy, third: float, passes: bool) -> None:
    # The arm's third input is declared to lie in 0..100; a margin of a tenth allows -10..110.
    report = run(arm, FakePlant([np.array([0.0, 1.0, third])]), FakeClock(), ticks=1, range_margin=0.1)
    assert report.failsafes == ({} if passes else {"observation out of range": 1})
    assert run(arm, FakePlant([np.array([0.0, 1.0, third])]), FakeClock(), ticks=1, range_margin=None).failsafes == {}


def test_a_plant_that_fails_is_answered_with_the_failsafe_action(arm: Policy) -> None:
    def work(tick: int) -> None:
        if tick in (1, 2):
            raise OSError("I2C bus error")

    plant = FakePlant([GOOD], work)
    report = run(arm, plant, FakeClock(), ticks=4, failsafe=[0.5, 0.5])
    assert report.failsafes == {"plant error": 2}
    assert report.plant_errors == {"OSError: I2C bus error": 2}
    np.testing.assert_array_equal(plant.written[1:3], [[0.5, 0.5]] * 2)
    np.testing.assert_array_equal(plant.written[3], plant.written[0])


def test_an_action_that_cannot_be_written_is_tried_again_as_the_failsafe(arm: Policy) -> None:
    class Fussy(FakePlant):
        def write(self, action: Any) -> Any:
            if self.reads == 2 and not np.array_equal(action, [0.5, 0.5]):
                raise OSError("no such angle")
            return super().write(action)

    plant = Fussy([GOOD])
    report = run(arm, plant, FakeClock(), ticks=3, failsafe=[0.5, 0.5])
    assert report.failsafes == {"plant error": 1}
    np.testing.assert_array_equal(plant.written[1], [0.5, 0.5])


def test_deadlines_missed_in_a_row_bring_the_failsafe_action(arm: Policy) -> None:
    clock = FakeClock(start_ns=0)
    plant = FakePlant([GOOD], lambda tick: clock.advance(15 * MS if tick < 3 else 0))
    report = run(arm, plant, clock, ticks=10, failsafe=[0.5, 0.5], max_missed=2)
    # Ticks 0 and 1 miss; tick 2 is answered with the failsafe action and misses; so is tick 3, which is on time again.
    assert report.failsafes == {"missed deadlines": 2}
    np.testing.assert_array_equal(plant.written[2:4], [[0.5, 0.5]] * 2)


def test_too_many_failsafe_ticks_in_a_row_stop_the_loop_and_say_why(arm: Policy) -> None:
    plant = FakePlant([GOOD, BAD, GOOD, BAD, BAD, BAD, GOOD])
    report = run(arm, plant, FakeClock(), ticks=20, stop_after=3)
    assert (report.ticks, report.stopped_by, report.exit_code) == (6, "non-finite observation", 10)
    assert report.failsafes == {"non-finite observation": 4}


@pytest.mark.parametrize("call", ["read", "write"])
def test_a_plant_that_has_stopped_for_good_ends_the_loop_at_once(arm: Policy, call: str) -> None:
    class Stopping(FakePlant):
        def read(self) -> Any:
            if call == "read" and self.reads == 2:
                raise PlantStoppedError("emergency stop")
            return super().read()

        def write(self, action: Any) -> Any:
            if call == "write" and len(self.written) == 2 and not np.array_equal(action, [0.5, 0.5]):
                raise PlantStoppedError("emergency stop")
            return super().write(action)

    plant = Stopping([GOOD])
    report = run(arm, plant, FakeClock(), ticks=10, failsafe=[0.5, 0.5], stop_after=None)
    assert (report.ticks, report.stopped_by, report.exit_code) == (3, "plant stopped", 18)
    assert report.plant_errors == {"PlantStoppedError: emergency stop": 1}
    np.testing.assert_array_equal(plant.written[2:], [[0.5, 0.5]] * 2)


def test_actions_change_no_faster_than_the_slew_limit(arm: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = iter([[0.0, 0.5], [2.0, 0.5], [2.0, 0.5], [-2.0, 0.5]])
    monkeypatch.setattr(arm, "act", lambda observation: np.array(next(wanted), np.float32))
    plant = FakePlant([GOOD])
    run(arm, plant, FakeClock(), ticks=4, limits=ActionLimits(slew_per_s=50.0))
    np.testing.assert_allclose([action[0] for action in plant.written[:4]], [0.0, 0.5, 1.0, 0.5], atol=1e-6)


def test_the_low_pass_filter_answers_a_step_as_a_first_order_filter_does(
    arm: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = iter([[0.0, 0.0], *[[1.0, 1.0]] * 30])
    monkeypatch.setattr(arm, "act", lambda observation: np.array(next(wanted), np.float32))
    plant = FakePlant([GOOD])
    run(arm, plant, FakeClock(), ticks=31, limits=ActionLimits(low_pass_hz=2.0))
    # 1 - exp(-2 pi f t), at t = 10, 20, ... ms after the step.
    times_s = np.arange(1, 31) * 0.01
    expected = 1 - np.exp(-2 * np.pi * 2.0 * times_s)
    np.testing.assert_allclose([action[0] for action in plant.written[1:31]], expected, atol=1e-5)


def test_after_a_failsafe_action_changes_are_limited_from_there(arm: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    real = arm.act
    monkeypatch.setattr(arm, "act", lambda o: np.array([1.0, 0.5], np.float32) if np.isfinite(o).all() else real(o))
    plant = FakePlant([GOOD, BAD, GOOD])
    run(arm, plant, FakeClock(), ticks=3, failsafe=[-1.0, 0.5], limits=ActionLimits(slew_per_s=50.0))
    np.testing.assert_allclose([action[0] for action in plant.written[:3]], [-0.5, -1.0, -0.5], atol=1e-6)


def test_a_failsafe_beyond_the_bounds_is_refused_and_not_clipped_in_silence(arm: Policy) -> None:
    for failsafe in ([99.0, 0.5], [0.0, -0.1]):
        with pytest.raises(UsageError, match=r"must lie within the policy's bounds, \[-2.0, 0.0\] to \[2.0, 1.0\]"):
            ControlLoop(arm, FakePlant([GOOD]), safety=Safety(failsafe))


def test_the_first_action_of_every_run_changes_from_the_failsafe_action(
    arm: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arm, "act", lambda observation: np.array([2.0, 0.5], np.float32))
    plant = FakePlant([GOOD])
    safety, limits = Safety([-1.0, 0.5]), ActionLimits(slew_per_s=50.0)
    loop = ControlLoop(arm, plant, rate_hz=100, clock=FakeClock(), safety=safety, limits=limits)
    for _ in range(2):
        plant.written.clear()
        loop.run(duration_s=0.02)
        np.testing.assert_allclose([action[0] for action in plant.written], [-0.5, 0.0, -1.0], atol=1e-6)


def test_missed_deadlines_are_counted_by_periods(arm: Policy) -> None:
    # Every tenth tick loses 50 periods: far more than five in a row, though only one tick is late.
    clock = FakeClock()
    plant = FakePlant([GOOD], lambda tick: clock.advance(500 * MS if tick % 10 == 9 else 0))
    report = run(arm, plant, clock, ticks=200, failsafe=[0.5, 0.5], max_missed=5)
    assert report.failsafes["missed deadlines"] >= 3


def test_a_policy_that_is_too_slow_stays_in_the_failsafe_state(arm: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, real = FakeClock(), arm.act

    def slow(observation: Any) -> Any:
        clock.advance(25 * MS)
        return real(observation)

    monkeypatch.setattr(arm, "act", slow)
    plant = FakePlant([GOOD])
    report = run(arm, plant, clock, ticks=1000, failsafe=[0.5, 0.5], max_missed=3, stop_after=2)
    # Two periods are gone with each tick: after the second it is answered, and it does not seem faster for that.
    assert (report.stopped_by, report.exit_code, report.ticks) == ("missed deadlines", 16, 4)


def test_a_discrete_policys_plant_gets_numbers() -> None:
    switch = Policy.load(DATA / "switch-int8.tflite")
    given: list[Any] = []

    class Keys(FakePlant):
        def write(self, action: Any) -> Any:
            given.append(action)
            return {0: "left", 1: "right", 2: "up", 3: "down"}[action]

    report = run(switch, Keys([GOOD, BAD]), FakeClock(), ticks=3, failsafe="zero")
    assert [type(action) for action in given] == [int] * 4
    assert given[-1] == 0
    assert report.plant_errors == {}


def test_a_plant_that_refuses_the_last_action_is_reported_loudly(arm: Policy) -> None:
    class Refusing(FakePlant):
        def write(self, action: Any) -> Any:
            raise OSError("no")

    report = run(arm, Refusing([GOOD]), FakeClock(), ticks=3)
    assert (report.failsafe_sent, report.exit_code) == (False, 14)
    assert "WARNING: the plant did not take the last failsafe action" in loop_text(report)
    assert run(arm, FakePlant([GOOD]), FakeClock(), ticks=3).failsafe_sent


def test_errors_of_too_many_kinds_are_counted_together(arm: Policy) -> None:
    def fail(tick: int) -> None:
        raise OSError(f"at {tick}")

    report = run(arm, FakePlant([GOOD], fail), FakeClock(), ticks=50)
    assert len(report.plant_errors) == 21
    assert report.plant_errors["others"] == 30
