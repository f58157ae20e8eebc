"""With gpiozero's own mock pins, which a test drives high and low. No pin of a real board has been used."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DATA, FakeClock

from edge import cli
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UnknownNameError, UsageError
from edge.loop import ControlLoop
from edge.loop_report import RunReport
from edge.plants import PlantStoppedError
from edge.plants.gpio import GpioError, GpioPlant
from edge.plants.wiring import EncoderWiring, MotorWiring, StopWiring, Wiring
from edge.policy import Policy
from edge.records import from_plain, to_json
from edge.safety import Cause, Safety

gpiozero = pytest.importorskip("gpiozero", reason="needs gpiozero: pip install gpiozero")
from gpiozero.pins.mock import MockFactory, MockPin, MockPWMPin  # noqa: E402

MS = 1_000_000
FORWARD, BACKWARD, ENABLE, A, B, STOP = 17, 18, 27, 5, 6, 22
WHEEL = str(DATA / "wheel-int8.tflite")

MOTOR = MotorWiring(FORWARD, BACKWARD, ENABLE)
ENCODER = EncoderWiring(A, B, 100.0)
CLOSED = StopWiring(STOP)
WIRING = Wiring((MOTOR,), (ENCODER,), CLOSED)


def spec(motors: int = 1, encoders: int = 1, bound: float | None = 1.0) -> PolicySpec:
    unknown = (None,) * (2 * encoders)
    low = None if bound is None else -bound
    actions = ActionSpec((motors,), (low,) * motors, (bound,) * motors)
    return PolicySpec(ObservationSpec((2 * encoders,), unknown, unknown), actions, 50.0, None)


@pytest.fixture
def pins() -> Iterator[Any]:
    """The mock board; the stop button's contact is closed to ground, as while nobody presses it."""
    factory = MockFactory(pin_class=MockPWMPin)
    before, gpiozero.Device.pin_factory = gpiozero.Device.pin_factory, factory
    yield factory
    factory.reset()
    gpiozero.Device.pin_factory = before


@contextlib.contextmanager
def opened(pins: Any, wiring: Wiring = WIRING, **options: Any) -> Iterator[GpioPlant]:
    with GpioPlant(wiring, spec(len(wiring.motors), len(wiring.encoders)), **options) as plant:
        if wiring.emergency_stop is not None:
            release(pins, wiring.emergency_stop)
        plant.reset()
        yield plant


def press(pins: Any, stop: StopWiring = CLOSED) -> None:
    open_contact(pins, stop) if stop.normally_closed else close_contact(pins, stop)


def release(pins: Any, stop: StopWiring = CLOSED) -> None:
    close_contact(pins, stop) if stop.normally_closed else open_contact(pins, stop)


def open_contact(pins: Any, stop: StopWiring) -> None:
    pin = pins.pin(stop.pin)
    pin.drive_high() if stop.pull_up else pin.drive_low()


def close_contact(pins: Any, stop: StopWiring) -> None:
    pin = pins.pin(stop.pin)
    pin.drive_low() if stop.pull_up else pin.drive_high()


def turn(pins: Any, cycles: int, a: int = A, b: int = B) -> None:
    """Turns the shaft by whole cycles of the encoder, whose channels pull their pins to ground."""
    first, second = (pins.pin(a), pins.pin(b)) if cycles > 0 else (pins.pin(b), pins.pin(a))
    for _ in range(abs(cycles)):
        first.drive_low()
        second.drive_low()
        first.drive_high()
        second.drive_high()


def duty(pins: Any, forward: int = FORWARD, backward: int = BACKWARD) -> tuple[float, float]:
    return float(pins.pin(forward).state), float(pins.pin(backward).state)


def everything_off(pins: Any) -> bool:
    return duty(pins) == (0.0, 0.0) and not pins.pin(ENABLE).state


def free_pins(pins: Any) -> list[int]:
    """Those that another device could take."""
    free = []
    for pin in (FORWARD, BACKWARD, ENABLE, A, B, STOP):
        with contextlib.suppress(gpiozero.GPIOPinInUse):
            gpiozero.InputDevice(pin).close()
            free.append(pin)
    return free


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, (0, 0)), (0.25, (0.25, 0)), (-0.75, (0, 0.75)), (1.0, (1, 0)), (3.0, (1, 0)), (-3.0, (0, 1))],
)
def test_an_action_is_a_duty_cycle_and_a_direction(value: float, expected: tuple[float, float], pins: Any) -> None:
    with opened(pins) as plant:
        sent = plant.write(np.array([value], np.float32))
        assert duty(pins) == expected
        assert sent.tolist() == [min(max(value, -1), 1)]
        assert pins.pin(FORWARD).frequency == pins.pin(BACKWARD).frequency == 100.0


def test_one_direction_is_off_before_the_other_is_on(pins: Any) -> None:
    with opened(pins) as plant:
        plant.write(np.array([0.5], np.float32))
        both: list[bool] = []
        for pin in (pins.pin(FORWARD), pins.pin(BACKWARD)):
            change = pin._change_state
            pin._change_state = lambda value, change=change: (change(value), both.append(all(duty(pins))))[0]
        plant.write(np.array([-0.5], np.float32))
    assert len(both) >= 2
    assert not any(both)


def test_a_motor_that_is_mounted_the_other_way_round_turns_the_other_way(pins: Any) -> None:
    wiring = Wiring((MotorWiring(FORWARD, BACKWARD, sign=-1),), (ENCODER,))
    with opened(pins, wiring) as plant:
        assert plant.write(np.array([0.25], np.float32)).tolist() == [0.25]
        assert duty(pins) == (0.0, 0.25)


def test_what_is_returned_is_what_the_library_made_of_it(pins: Any) -> None:
    class Coarse(MockPWMPin):
        """As lgpio does, which knows whole per cent."""

        def _set_state(self, value: float) -> None:
            super()._set_state(int(value * 100) / 100)

    pins.pin_class = Coarse
    with opened(pins) as plant:
        assert plant.write(np.array([-0.555], np.float32)).tolist() == [np.float32(-0.55)]


def test_each_motor_gets_its_own_value(pins: Any) -> None:
    wiring = Wiring((MOTOR, MotorWiring(12, 13, ENABLE)), (ENCODER,))
    with opened(pins, wiring) as plant:
        plant.write(np.array([0.25, -0.5], np.float32))
        assert (duty(pins), duty(pins, 12, 13)) == ((0.25, 0.0), (0.0, 0.5))


def test_an_action_that_is_not_finite_turns_the_motors_off(pins: Any) -> None:
    with opened(pins) as plant:
        plant.write(np.array([0.5], np.float32))
        with pytest.raises(PlantStoppedError, match="turned off"):
            plant.write(np.array([np.nan], np.float32))
        assert everything_off(pins)


def test_an_action_for_other_motors_turns_the_motors_off(pins: Any) -> None:
    wiring = Wiring((MOTOR, MotorWiring(12, 13)), (ENCODER,))
    with opened(pins, wiring) as plant:
        plant.write(np.array([0.5, 0.5], np.float32))
        with pytest.raises(PlantStoppedError, match="is no action of 2 motors"):
            plant.write(np.array([0.5], np.float32))
        assert everything_off(pins)
        assert duty(pins, 12, 13) == (0.0, 0.0)


def test_a_motor_that_cannot_be_driven_turns_the_others_off(pins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring = Wiring((MotorWiring(12, 13), MOTOR), (ENCODER,))
    with opened(pins, wiring) as plant:
        plant.write(np.array([0.5, 0.5], np.float32))

        def broken(value: float) -> None:
            raise OSError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(pins.pin(12), "_change_state", broken)
            with pytest.raises(PlantStoppedError, match=r"gone.*turned off"):
                plant.write(np.zeros(2, np.float32))
            assert everything_off(pins)


def test_steps_of_the_encoders_are_angles_with_their_sign(pins: Any) -> None:
    wiring = Wiring((MOTOR,), (ENCODER, EncoderWiring(23, 24, 20.0)))
    with opened(pins, wiring) as plant:
        np.testing.assert_array_equal(plant.read(), np.zeros(4))
        turn(pins, 25)
        turn(pins, -5, 23, 24)
        np.testing.assert_allclose(plant.read()[:2], [math.pi / 2, -math.pi / 2], rtol=1e-6)
        turn(pins, 200)
        np.testing.assert_allclose(plant.read()[0], 4.5 * math.pi, rtol=1e-6)
        plant.reset()
        np.testing.assert_array_equal(plant.read(), np.zeros(4))


def test_velocity_is_the_way_since_the_last_read_over_the_time_since_then(pins: Any) -> None:
    clock = FakeClock()
    with opened(pins, clock=clock) as plant:
        turn(pins, 3)
        assert plant.read()[1] == 0.0, "before there are two reads there is no velocity"
        turn(pins, 10)
        clock.advance(20 * MS)
        np.testing.assert_allclose(plant.read()[1], 2 * math.pi * 0.1 / 0.02, rtol=1e-6)
        assert plant.observed_ns == clock.now_ns()
        np.testing.assert_allclose(plant.read()[1], 2 * math.pi * 0.1 / 0.02, rtol=1e-6, err_msg="no time has passed")
        turn(pins, -1)
        clock.advance(40 * MS)
        np.testing.assert_allclose(plant.read()[1], -2 * math.pi * 0.01 / 0.04, rtol=1e-6)
        clock.advance(40 * MS)
        assert plant.read()[1] == 0.0


@pytest.mark.parametrize("normally_closed", [True, False])
@pytest.mark.parametrize("pull_up", [True, False])
def test_the_emergency_stop_acts_at_once_and_for_good(normally_closed: bool, pull_up: bool, pins: Any) -> None:
    stop = StopWiring(STOP, normally_closed, pull_up)
    with opened(pins, Wiring((MOTOR,), (ENCODER,), stop)) as plant:
        plant.read()
        plant.write(np.array([0.5], np.float32))
        assert duty(pins) == (0.5, 0.0)
        assert pins.pin(ENABLE).state
        press(pins, stop)
        assert everything_off(pins), "without another call of the plant"
        release(pins, stop)
        assert plant.write(np.array([0.5], np.float32)).tolist() == [0.0]
        assert everything_off(pins)
        with pytest.raises(PlantStoppedError, match="Emergency stop pressed"):
            plant.read()
        plant.reset()
        plant.read()
        plant.write(np.array([0.5], np.float32))
        assert duty(pins) == (0.5, 0.0)


def test_a_wire_that_breaks_stops_the_motors(pins: Any) -> None:
    with opened(pins) as plant:
        plant.write(np.array([0.5], np.float32))
        pins.pin(STOP).drive_high()  # what its pull-up makes of a pin that nothing is connected to
        assert everything_off(pins)


def test_a_button_that_stays_pressed_is_not_reset_away(pins: Any) -> None:
    with opened(pins) as plant:
        press(pins)
        plant.reset()
        assert everything_off(pins)
        assert plant.write(np.array([0.5], np.float32)).tolist() == [0.0]
        with pytest.raises(PlantStoppedError):
            plant.read()


def test_an_edge_that_was_missed_is_seen_by_the_next_read(pins: Any) -> None:
    with opened(pins) as plant:
        plant.write(np.array([0.5], np.float32))
        pins.pin(STOP)._when_changed = None
        press(pins)
        assert duty(pins) == (0.5, 0.0)
        with pytest.raises(PlantStoppedError):
            plant.read()
        assert everything_off(pins)


@pytest.mark.parametrize("moment", [FORWARD, BACKWARD])
def test_a_button_that_is_pressed_in_the_middle_of_a_write_has_the_last_word(moment: int, pins: Any) -> None:
    with opened(pins) as plant:
        pin = pins.pin(moment)
        change, pending = pin._change_state, [True]

        def pressed_first(value: float) -> Any:
            if pending:
                pending.clear()
                press(pins)
            return change(value)

        pin._change_state = pressed_first
        sent = plant.write(np.array([0.5], np.float32))
        assert not pending
        assert everything_off(pins)
        assert sent.tolist() == [0.0]


def test_a_motor_that_cannot_be_stopped_does_not_keep_the_others_on(pins: Any) -> None:
    wiring = Wiring((MotorWiring(12, 13), MOTOR), (ENCODER,), CLOSED)
    with opened(pins, wiring) as plant:
        plant.write(np.array([0.5, 0.5], np.float32))

        def broken(value: float) -> None:
            raise OSError("gone")

        change, pins.pin(12)._change_state = pins.pin(12)._change_state, broken
        with contextlib.suppress(OSError):
            press(pins)
        assert everything_off(pins)
        pins.pin(12)._change_state = change


def test_leaving_turns_off_and_then_gives_the_pins_back(pins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    off_when_closed = []
    with opened(pins) as plant:
        plant.write(np.array([0.5], np.float32))
        assert free_pins(pins) == []
        close = MockPWMPin.close
        monkeypatch.setattr(MockPWMPin, "close", lambda pin: (off_when_closed.append(everything_off(pins)), close(pin)))
    assert off_when_closed == [True] * 6
    monkeypatch.undo()
    assert everything_off(pins)
    assert pins.pin(FORWARD).function == "input"
    assert len(free_pins(pins)) == 6


@pytest.mark.parametrize("taken", [ENABLE, FORWARD, BACKWARD, A, B, STOP])
def test_a_pin_that_is_taken_is_named_and_the_others_are_given_back(taken: int, pins: Any) -> None:
    plant = GpioPlant(WIRING, spec())
    with gpiozero.InputDevice(taken):
        with pytest.raises(GpioError, match=f"in use already .*GPIO{taken}.*End the program"):
            plant.__enter__()
        assert len(free_pins(pins)) == 5
    with plant:
        pass


def test_a_pin_that_another_process_has_is_explained(pins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class LgpioError(Exception):
        """What lgpio raises, which is not installed everywhere."""

    def busy(self: Any, factory: Any, info: Any) -> None:
        raise LgpioError("'GPIO busy'")

    with monkeypatch.context() as patch:
        patch.setattr(MockPWMPin, "__init__", busy)
        with pytest.raises(GpioError, match=r"in use already \('GPIO busy'\)") as kept:
            GpioPlant(WIRING, spec()).__enter__()
    # The error is still there, as in an interactive session, and no pin hangs on it.
    assert kept.value.__cause__ is not None
    with GpioPlant(WIRING, spec()):
        pass


def test_pins_without_pwm_are_explained(pins: Any) -> None:
    pins.pin_class = MockPin
    with pytest.raises(GpioError, match=r"pip install 'tfqrl\[gpio\]'.*GPIOZERO_PIN_FACTORY=lgpio"):
        GpioPlant(WIRING, spec()).__enter__()


def test_a_pin_that_the_board_does_not_have_is_named(pins: Any) -> None:
    wiring = Wiring((MotorWiring(99, 18),), (ENCODER,))
    with pytest.raises(GpioError, match=r"99 is not a valid pin name.*BCM"):
        GpioPlant(wiring, spec()).__enter__()


def test_a_machine_without_pins_or_gpiozero_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpiozero.Device, "pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "none-such")
    with pytest.raises(GpioError, match=r"Unable to find pin factory.*pip install 'tfqrl\[gpio\]'"):
        GpioPlant(WIRING, spec()).__enter__()
    monkeypatch.setitem(sys.modules, "gpiozero", None)
    with pytest.raises(GpioError, match=r"needs gpiozero: `pip install 'tfqrl\[gpio\]'`"):
        GpioPlant(WIRING, spec()).__enter__()


def wiring_file(folder: Path, change: Any = None, stop: StopWiring | None = None) -> Path:
    plain = json.loads(to_json(Wiring((MOTOR,), (ENCODER,), stop)))
    if change is not None:
        change(plain)
    (folder / "wiring.json").write_text(json.dumps(plain))
    return folder / "wiring.json"


def test_a_wiring_is_read_from_its_file(tmp_path: Path) -> None:
    assert Wiring.load(wiring_file(tmp_path, stop=CLOSED)) == WIRING
    (tmp_path / "least.json").write_text(
        '{"motors": [{"forward": 1, "backward": 2}], "encoders": [{"a": 3, "b": 4, "pulses_per_revolution": 12}]}'
    )
    assert Wiring.load(tmp_path / "least.json") == Wiring((MotorWiring(1, 2),), (EncoderWiring(3, 4, 12.0),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w["motors"][0].update(forwrd=1), "forwrd.*Did you mean 'forward'"),
        (lambda w: w["motors"][0].pop("forward"), "lacks 'forward'"),
        (lambda w: w["motors"][0].update(forward="17"), "'17'; expected int"),
        (lambda w: w["motors"][0].update(sign=2), "sign is 2"),
        (lambda w: w["motors"][0].update(pwm_hz=0), "pwm_hz must be above 0"),
        (lambda w: w["motors"][0].update(pwm_hz=20_000), "at most 10000"),
        (lambda w: w["encoders"][0].update(pulses_per_revolution=-1), "must be above 0"),
        (lambda w: w["encoders"][0].update(a=FORWARD), f"one use; {FORWARD} has several"),
        (lambda w: w.update(emergency_stop={"pin": ENABLE}), f"one use; {ENABLE} has several"),
        (lambda w: w.update(motors=[]), "at least one motor"),
    ],
)
def test_a_wiring_that_cannot_be_is_refused_with_its_file(change: Any, message: str, tmp_path: Path) -> None:
    path = wiring_file(tmp_path, change)
    with pytest.raises(UsageError, match=message) as error:
        Wiring.load(path)
    assert str(path) in str(error.value)
    assert not isinstance(error.value, UnknownNameError)


def test_a_file_that_is_no_wiring_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Cannot read the wiring"):
        Wiring.load(tmp_path / "none.json")
    (tmp_path / "wiring.json").write_text("{")
    with pytest.raises(UsageError, match="is no wiring"):
        Wiring.load(tmp_path / "wiring.json")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (spec(encoders=2), r"1 encoders.*\(2,\).*takes \(4,\)"),
        (spec(motors=2), r"1 motors.*\(1,\).*shape \(2,\)"),
        (spec(bound=2.0), r"\[-1, 1\].*\[-2.0\] and \[2.0\]"),
        (spec(bound=None), r"\[-1, 1\].*\[-inf\] and \[inf\]"),
        (PolicySpec(spec().observation, ActionSpec((), (), (), 4), 50.0, None), "one of 4 choices"),
        (PolicySpec(ObservationSpec((6, 6, 1), (), (), "uint8"), spec().action, 50.0, None), r"takes \(6, 6, 1\)"),
    ],
)
def test_a_policy_that_does_not_fit_the_wiring_is_refused(policy: PolicySpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GpioPlant(WIRING, policy)


class Spinning(GpioPlant):
    """Calls `work(tick)` in each read, and notes when a motor was on."""

    def __init__(self, work: Any, clock: FakeClock) -> None:
        super().__init__(WIRING, spec(), clock=clock)
        self.work, self.reads, self.was_on = work, 0, False

    def read(self) -> Any:
        self.reads += 1
        self.work(self.reads - 1)
        return super().read()

    def write(self, action: Any) -> Any:
        sent = super().write(action)
        self.was_on = self.was_on or bool(sent[0])
        return sent


def drive(pins: Any, work: Any, **safety: Any) -> tuple[Any, Spinning]:
    clock = FakeClock()
    policy = Policy.load(DATA / "wheel-float32.tflite")
    plant = Spinning(work, clock)
    with plant:
        release(pins)
        loop = ControlLoop(policy, plant, rate_hz=50, clock=clock, safety=Safety("zero", **safety))
        try:
            loop.run(duration_s=1.0)
        finally:
            assert duty(pins) == (0.0, 0.0), "before the plant is left"
    assert everything_off(pins)
    return loop.report(), plant


def test_the_loop_drives_the_motor_and_leaves_it_off(pins: Any) -> None:
    report, plant = drive(pins, lambda tick: turn(pins, 7))
    assert (report.ticks, report.failsafes, report.exit_code) == (50, {}, 0)
    assert plant.was_on


def test_the_emergency_stop_ends_the_loop_for_good(pins: Any) -> None:
    report, plant = drive(pins, lambda tick: press(pins) if tick == 10 else turn(pins, 7), stop_after=None)
    assert plant.was_on
    assert (report.ticks, report.stopped_by, report.exit_code) == (11, "plant stopped", Cause.PLANT_STOPPED.exit_code)
    (message,) = report.plant_errors
    assert "Emergency stop pressed" in message


def test_a_signal_leaves_the_motor_off(pins: Any) -> None:
    report, plant = drive(pins, lambda tick: os.kill(os.getpid(), signal.SIGTERM) if tick == 10 else turn(pins, 7))
    assert plant.was_on
    assert (report.ticks, report.stopped_by) == (11, "SIGTERM")


def test_an_exception_leaves_the_motor_off(pins: Any) -> None:
    def work(tick: int) -> None:
        turn(pins, 7)
        if tick == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(pins, work)
    assert everything_off(pins)


def test_nan_from_the_policy_leaves_the_motor_off(pins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ticks = Policy.act, [0]

    def act(self: Policy, observation: Any) -> Any:
        return np.array([np.nan], np.float32) if ticks[0] >= 10 else real(self, observation)

    def work(tick: int) -> None:
        if tick > 10:
            assert duty(pins) == (0.0, 0.0)
        ticks[0] = tick
        turn(pins, 7)

    monkeypatch.setattr(Policy, "act", act)
    report, plant = drive(pins, work, stop_after=5)
    assert plant.was_on
    assert (report.failsafes, report.exit_code) == ({"non-finite action": 5}, Cause.BAD_ACTION.exit_code)


def run_with_mock_pins(folder: Path, wiring: Path) -> "subprocess.CompletedProcess[str]":
    environment = dict(os.environ, GPIOZERO_PIN_FACTORY="mock", GPIOZERO_MOCK_PIN_CLASS="mockpwmpin")
    words = ["run", WHEEL, "--plant", "gpio", "--wiring", str(wiring), "--duration", "0.2"]
    words += ["--json", str(folder / "run.json")]
    return subprocess.run(
        [sys.executable, "-m", "edge.cli", *words], env=environment, capture_output=True, text=True, check=False
    )


def test_the_command_drives_pins(tmp_path: Path) -> None:
    wiring = wiring_file(tmp_path)
    done = run_with_mock_pins(tmp_path, wiring)
    assert done.returncode == 0, done.stderr
    assert f"Running wheel on gpio {wiring} at 50 Hz; Ctrl-C ends it." in done.stdout
    report = from_plain(RunReport, json.loads((tmp_path / "run.json").read_text()), "report")
    assert (report.plant, report.seed, report.returns) == (f"gpio {wiring}", None, ())
    assert report.loop.failsafes == {}
    assert report.loop.ticks > 0


def test_the_command_does_not_start_with_the_stop_button_unplugged(tmp_path: Path) -> None:
    # Nothing is connected to the mock pin, which its pull-up makes high.
    done = run_with_mock_pins(tmp_path, wiring_file(tmp_path, stop=CLOSED))
    assert done.returncode == Cause.PLANT_STOPPED.exit_code
    assert "Emergency stop pressed" in done.stdout


def test_the_command_leaves_motors_off_where_the_loop_cannot_be_made(pins: Any, tmp_path: Path) -> None:
    words = ["run", WHEEL, "--plant", "gpio", "--wiring", str(wiring_file(tmp_path)), "--rate", "-1"]
    assert cli.main(words) == 2
    assert everything_off(pins)
    assert len(free_pins(pins)) == 6
