"""What is connected to which pin, read from a JSON file; for `edge.plants.gpio`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge.errors import UsageError
from edge.records import from_plain

# lgpio's, which times its pulses in software.
MAX_PWM_HZ = 10_000.0


@dataclass(frozen=True)
class MotorWiring:
    """A motor behind a driver with two inputs (an H-bridge). Pins are BCM numbers.

    Attributes:
      forward: pin that is pulsed for actions above 0.
      backward: pin that is pulsed for actions below 0.
      enable: the driver's enable or standby input, high while the loop runs; motors of one driver may share it.
      pwm_hz: frequency of the pulses.
      sign: -1 if the motor is mounted the other way round.
    """

    forward: int
    backward: int
    enable: int | None = None
    pwm_hz: float = 100.0
    sign: Literal[1, -1] = 1

    def __post_init__(self) -> None:
        """Refuse frequencies that cannot be made."""
        if not 0 < self.pwm_hz <= MAX_PWM_HZ:
            raise UsageError(f"pwm_hz must be above 0 and at most {MAX_PWM_HZ:g}; it was given {self.pwm_hz:g}.")


@dataclass(frozen=True)
class EncoderWiring:
    """A quadrature encoder. Pins are BCM numbers; swap them if it counts the wrong way.

    Attributes:
      a: pin of channel A.
      b: pin of channel B.
      pulses_per_revolution: pulses of one channel per turn, with the gear's ratio. gpiozero counts whole cycles of the
        two channels, not their four edges.
    """

    a: int
    b: int
    pulses_per_revolution: float

    def __post_init__(self) -> None:
        """Refuse an encoder that never counts."""
        if not self.pulses_per_revolution > 0:
            raise UsageError(f"pulses_per_revolution must be above 0; it was given {self.pulses_per_revolution:g}.")


@dataclass(frozen=True)
class StopWiring:
    """An emergency stop button: a contact between a pin and ground, or between a pin and 3.3 V.

    Attributes:
      pin: BCM number.
      normally_closed: the contact opens when the button is pressed. So it should: a wire that breaks or a plug that
        comes off then stops the motors too. With a contact that closes, they make the button useless, and nobody
        notices.
      pull_up: the contact is to ground, and the pin is pulled up; if false, to 3.3 V, and the pin is pulled down.
    """

    pin: int
    normally_closed: bool = True
    pull_up: bool = True


@dataclass(frozen=True)
class Wiring:
    """What is connected where.

    Attributes:
      motors: one for each element of the action.
      encoders: one for each pair of elements of the observation.
      emergency_stop: None if there is no button.
    """

    motors: tuple[MotorWiring, ...]
    encoders: tuple[EncoderWiring, ...]
    emergency_stop: StopWiring | None = None

    def __post_init__(self) -> None:
        """Refuse pins that are used twice, and a wiring that no policy could use."""
        if not (self.motors and self.encoders):
            raise UsageError("A wiring needs at least one motor and one encoder.")
        pins = [pin for motor in self.motors for pin in (motor.forward, motor.backward)]
        pins += [pin for encoder in self.encoders for pin in (encoder.a, encoder.b)]
        pins += self.enable_pins
        pins += [] if self.emergency_stop is None else [self.emergency_stop.pin]
        twice = [str(pin) for pin, count in Counter(pins).items() if count > 1]
        if twice:
            raise UsageError(f"Each pin of a wiring can have one use; {', '.join(twice)} has several.")

    @property
    def enable_pins(self) -> tuple[int, ...]:
        """Each enable pin once."""
        return tuple(dict.fromkeys(motor.enable for motor in self.motors if motor.enable is not None))

    @classmethod
    def load(cls, path: str | Path) -> Wiring:
        """Read a wiring from a JSON file.

        Raises:
          UsageError: it cannot be read, or is no wiring.
        """
        try:
            return from_plain(cls, json.loads(Path(path).read_text(encoding="utf-8")), "wiring")
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        except OSError as error:
            raise UsageError(f"Cannot read the wiring {path}: {error.strerror}.") from error
        except ValueError as error:
            raise UsageError(f"{path} is no wiring: {error}") from error
