"""Motors, encoders and an emergency stop on the pins of a Raspberry Pi, through gpiozero.

Not yet run on hardware: tested with gpiozero's own mock pins.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from types import TracebackType
from typing import Any

import numpy as np

from edge.artifact import FloatArray, PolicySpec
from edge.clock import Clock, MonotonicClock
from edge.errors import UsageError, UserError
from edge.plants import PlantStoppedError
from edge.plants.wiring import Wiring
from edge.safety import action_bounds


class GpioError(UserError):
    """The pins cannot be used, or were asked for what they cannot do."""


class GpioPlant:
    """Gives angles and velocities of encoders, and takes one value in [-1, 1] for each motor.

    The observation, float32 of shape (2 x encoders,), is in the wiring's order all angles in rad, counted from where
    the shafts were at `reset`, then all velocities in rad/s: how far a shaft came since the last `read`, divided by the
    time since then; 0 at the first. They come in multiples of 2 pi / (pulses per revolution x period). The array is
    overwritten by the next `read`.

    An action is the duty cycle and, by its sign, the direction. `write` returns the duty cycles that gpiozero has set.

    The emergency stop turns motors and drivers off from the thread that sees the pin change, without waiting for the
    loop. From then on `read` raises `PlantStoppedError` and `write` sends zero, whatever it is given, until a `reset`
    finds the button released.

    Attributes:
      observed_ns: time of the latest `read`, by the clock.
    """

    def __init__(self, wiring: Wiring, spec: PolicySpec, *, clock: Clock | None = None) -> None:
        """Plan to use these pins; they are opened when the plant is entered.

        Args:
          wiring: what is connected where.
          spec: of the policy that will drive it.
          clock: the loop's clock; the system's monotonic clock if None.

        Raises:
          UsageError: the policy observes or acts otherwise than what is wired.
        """
        _check_fit(wiring, spec)
        self._wiring = wiring
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._observation = np.zeros(2 * len(wiring.encoders), np.float32)
        self._angles, self._velocities = np.split(self._observation, 2)
        self._rad_per_step = np.array([2 * math.pi / encoder.pulses_per_revolution for encoder in wiring.encoders])
        self._motors: list[Any] = []
        self._drivers: list[Any] = []
        self._encoders: list[Any] = []
        self._button: Any = None
        self._opened = contextlib.ExitStack()
        self._stopped = False
        # Of the latest read since the reset, if there was one.
        self._steps: list[int] | None = None
        self.observed_ns = 0

    def reset(self) -> None:
        """Count angles from here, and switch the drivers on; not while the emergency stop is pressed."""
        self._stopped = False
        for motor in self._motors:
            motor.stop()
        for encoder in self._encoders:
            encoder.steps = 0
        self._steps = None
        for driver in self._drivers:
            driver.on()
        # It may have been pressed at any moment of this.
        if self._stopped or self._pressed():
            self._stop()

    def read(self) -> FloatArray:
        """See `Plant`.

        Raises:
          PlantStoppedError: the emergency stop was pressed.
        """
        # The level too, for an edge that was missed.
        if not self._stopped and self._pressed():
            self._stop()
        if self._stopped:
            raise PlantStoppedError("Emergency stop pressed: the motors stay off until the loop is started again.")
        now_ns = self._clock.now_ns()
        steps = [encoder.steps for encoder in self._encoders]
        self._angles[:] = np.multiply(steps, self._rad_per_step)
        if self._steps is None:
            self._velocities[:] = 0
        elif now_ns > self.observed_ns:
            # From whole steps: differences of float32 angles lose digits with every turn.
            elapsed_s = (now_ns - self.observed_ns) * 1e-9
            self._velocities[:] = np.subtract(steps, self._steps) * self._rad_per_step / elapsed_s
        self._steps, self.observed_ns = steps, now_ns
        return self._observation

    def write(self, action: Any) -> FloatArray:
        """See `Plant`.

        Raises:
          PlantStoppedError: the action is none, or a pin cannot be set; motors and drivers were turned off.
        """
        try:
            return self._drive(np.asarray(action, np.float32))
        except Exception as error:
            # All of them: the others would keep what they had, also if what comes next fails at the same motor.
            with contextlib.suppress(Exception):
                self._off()
            raise PlantStoppedError(f"Motors cannot be driven ({error}): they were turned off.") from error

    def __enter__(self) -> GpioPlant:
        """Open the pins, with the motors off and their drivers disabled.

        Raises:
          GpioError: that is not possible; whatever was opened is closed again.
        """
        try:
            import gpiozero
        except ImportError as error:
            raise GpioError("The plant `gpio` needs gpiozero: `pip install 'tfqrl[gpio]'`.") from error
        with contextlib.ExitStack() as opened:
            try:
                self._open(gpiozero, opened)
            except Exception as error:
                # Half-made devices keep their pins as long as the frames of the error hold them.
                traceback.clear_frames(error.__traceback__)
                raise GpioError(_explanation(gpiozero, error)) from error
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Turn the motors off and close the pins; each, whatever goes wrong with another."""
        self._opened.close()

    def _open(self, gpiozero: Any, opened: contextlib.ExitStack) -> None:
        opened.callback(self._forget)
        # Drivers first, so that they are disabled before the pins of the motors become outputs.
        for pin in self._wiring.enable_pins:
            self._drivers.append(opened.enter_context(gpiozero.OutputDevice(pin, initial_value=False)))
        for motor in self._wiring.motors:
            device = opened.enter_context(gpiozero.Motor(motor.forward, motor.backward, pwm=True))
            self._motors.append(device)
            device.forward_device.frequency = device.backward_device.frequency = motor.pwm_hz
        for encoder in self._wiring.encoders:
            # Without max_steps=0 it would count to 16 and no further.
            device = opened.enter_context(gpiozero.RotaryEncoder(encoder.a, encoder.b, max_steps=0))
            self._encoders.append(device)
        if (stop := self._wiring.emergency_stop) is not None:
            # gpiozero calls the contact active when it is closed.
            self._button = opened.enter_context(gpiozero.DigitalInputDevice(stop.pin, pull_up=stop.pull_up))
            if stop.normally_closed:
                self._button.when_deactivated = self._stop
            else:
                self._button.when_activated = self._stop
        # Added last, so that it comes first when the pins are closed.
        opened.callback(self._off)

    def _drive(self, sent: FloatArray) -> FloatArray:
        if sent.shape != (len(self._motors),) or not np.isfinite(sent).all():
            raise GpioError(f"{sent.tolist()} is no action of {len(self._motors)} motors")
        for i, (motor, wired) in enumerate(zip(self._motors, self._wiring.motors)):
            motor.value = 0.0 if self._stopped else wired.sign * min(max(float(sent[i]), -1.0), 1.0)
        # No lock, so that the button never waits for the loop: it notes first and turns off then, we turn on first and
        # look at the note then, so that whoever is last turns off.
        if self._stopped:
            self._off()
        for i, (motor, wired) in enumerate(zip(self._motors, self._wiring.motors)):
            sent[i] = wired.sign * motor.value
        return sent

    def _forget(self) -> None:
        self._motors, self._drivers, self._encoders, self._button = [], [], [], None

    def _pressed(self) -> bool:
        stop = self._wiring.emergency_stop
        return stop is not None and bool(self._button.is_active) != stop.normally_closed

    def _stop(self) -> None:
        self._stopped = True
        self._off()

    def _off(self) -> None:
        with contextlib.ExitStack() as attempts:
            for motor in self._motors:
                attempts.callback(motor.stop)
            for driver in self._drivers:
                attempts.callback(driver.off)


def _check_fit(wiring: Wiring, spec: PolicySpec) -> None:
    motors, encoders, action = len(wiring.motors), len(wiring.encoders), spec.action
    if spec.observation.shape != (2 * encoders,):
        raise UsageError(
            f"The wiring's {encoders} encoders give observations of shape {(2 * encoders,)}, an angle and a velocity "
            f"each; the policy takes {spec.observation.shape}."
        )
    if action.discrete or action.shape != (motors,):
        gives = f"one of {action.n} choices" if action.discrete else f"actions of shape {action.shape}"
        raise UsageError(f"The wiring's {motors} motors take actions of shape {(motors,)}; the policy gives {gives}.")
    low, high = action_bounds(spec)
    if low.min() < -1 or high.max() > 1:
        raise UsageError(
            f"Motors take values in [-1, 1]; the policy's actions lie between {low.tolist()} and "
            f"{high.tolist()}. Train with actions that are duty cycles."
        )


def _explanation(gpiozero: Any, error: Exception) -> str:
    text = str(error) or type(error).__name__
    if isinstance(error, gpiozero.GPIOPinInUse) or "busy" in text:
        return f"A pin is in use already ({text}). End the program that uses it, or wire another."
    if isinstance(error, gpiozero.PinInvalidPin):
        return f"{text}. A wiring gives pins by their BCM numbers."
    return (
        f"The pins cannot be opened ({text}). On a Raspberry Pi: `pip install 'tfqrl[gpio]'`, and set "
        "GPIOZERO_PIN_FACTORY=lgpio if another library is found first: RPi.GPIO does not work on a Pi 5."
    )
