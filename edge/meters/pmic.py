"""The power-management chip of the Raspberry Pi 5, by `vcgencmd pmic_read_adc`."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable

from edge.meters.integral import PowerIntegral

_READING = re.compile(r"^\s*(\w+)_([AV]) (?:current|volt)\(\d+\)=([-+\d.eE]+)[AV]\s*$")

# What the project RPi5-power found between the sum of the rails and a meter at the USB-C input: a straight line fitted
# to means over 50 s. It is not from the board's maker, so it is off unless asked for.
CORRECTION_FACTOR, CORRECTION_W = 1.1327, 0.6444

BLIND_SPOTS = "not seen: USB, PCIe and fan at 5 V, and the converters' own losses"


class PmicError(OSError):
    """`vcgencmd` is missing, failed, or printed something else."""


def read_output() -> str:
    """What `vcgencmd pmic_read_adc` prints now."""
    try:
        done = subprocess.run(["vcgencmd", "pmic_read_adc"], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PmicError(f"vcgencmd cannot be run: {error}") from error
    if done.returncode:
        raise PmicError(f"vcgencmd failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def rail_power_w(output: str) -> dict[str, float]:
    """Watts of each rail that has both a current and a voltage.

    They are paired by name: the numbers in parentheses differ between the two. EXT5V and BATT have no current and are
    left out. Names differ between firmware versions, so none is built in.

    Raises:
      PmicError: there is no such rail in the output.
    """
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in output.splitlines():
        if match := _READING.match(line):
            name, unit, number = match.groups()
            with contextlib.suppress(ValueError):
                values[unit][name] = float(number)
    rails = {name: amperes * values["V"][name] for name, amperes in values["A"].items() if name in values["V"]}
    if not rails:
        raise PmicError(f"vcgencmd pmic_read_adc printed no rails: {output[:80]!r}")
    return rails


class Pmic(PowerIntegral):
    """The sum of the rails, integrated."""

    name = "pmic"
    measured = True

    def __init__(
        self,
        *,
        correct: bool = False,
        read: Callable[[], str] = read_output,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the rails now and from now on; `correct` applies the published line to the sum.

        Raises:
          PmicError: this is not a Raspberry Pi 5, or the user is not in the group `video`.
        """

        def power_w() -> float:
            sum_w = sum(rail_power_w(read()).values())
            return sum_w * CORRECTION_FACTOR + CORRECTION_W if correct else sum_w

        super().__init__(power_w, clock_s)
        how = f"x {CORRECTION_FACTOR} + {CORRECTION_W} W" if correct else "uncorrected"
        self.scope = f"measured: Raspberry Pi 5 PMIC rails, {how}; {BLIND_SPOTS}"
