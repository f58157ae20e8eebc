"""Meters of energy, and the choice of the best one present."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from edge.conditions import board
from edge.errors import UnknownNameError, UsageError, UserError
from edge.meters.estimate import CpuTimeEstimate
from edge.meters.hwmon import CHIPS, Hwmon
from edge.meters.pmic import Pmic
from edge.meters.rapl import Rapl

# For the estimate only, where no meter is present. An assumption; give your board's own with --cpu-watts.
DEFAULT_CPU_WATTS = 1.5

NAMES = ("auto", "none", "estimate", "hwmon", "rapl", "pmic")

# Where each would be.
_WHERE = {
    "hwmon": "no such power monitor in /sys/class/hwmon can be read",
    "rapl": "no processor package in /sys/class/powercap can be read",
    "pmic": "only a Raspberry Pi 5 has it",
}


class Meter(Protocol):
    """Something that tells how much energy was used.

    Attributes:
      name: for reports.
      measured: true if a sensor measured it; false if it is an estimate, which every report must say.
      scope: what the energy is of, and how it is known.
    """

    name: str
    measured: bool
    scope: str

    def energy_j(self) -> float:
        """Joules used since some fixed moment. Raises OSError if the sensor fails."""
        ...


def find_meter(
    name: str, cpu_watts: float = DEFAULT_CPU_WATTS, root: Path = Path("/"), *, pmic_correction: bool = False
) -> Meter | None:
    """The meter that was asked for; None if that is "none".

    "auto" is the first that is here and lets us read it; else an estimate at `cpu_watts` per busy core, whose scope
    says what stood in the way of a meter that is here and could not be read. A monitor on the supply sees the whole
    board, so it comes before the processor's own counters; the Pi 5's chip misses what hangs on its 5 V, but no Pi has
    anything better built in.

    Args:
      name: one of `NAMES`, or "hwmon:CHIP" for the monitors of one kind alone.
      cpu_watts: for the estimate.
      root: stands for the file system's root in tests.
      pmic_correction: see `pmic`.

    Raises:
      UsageError: there is no such name, or the assumed power is none.
      UserError: the meter that was asked for is not here, or cannot be read.
    """
    if not 0 < cpu_watts < math.inf:
        raise UsageError(f"The power per busy core must be above 0 W; it was given {cpu_watts:g}.")
    kind, _, chip = name.partition(":")
    if kind not in NAMES or (chip and kind != "hwmon") or name.endswith(":"):
        raise UnknownNameError("meter", name, [*NAMES, *(f"hwmon:{known}" for known in CHIPS)])
    if chip and chip not in CHIPS:
        raise UnknownNameError("power monitor", chip, CHIPS)
    if name == "none":
        return None
    finders: dict[str, Callable[[], Meter | None]] = {
        "hwmon": lambda: Hwmon.find(root, chip),
        "rapl": lambda: Rapl.find(root),
        "pmic": lambda: _pmic(root, pmic_correction),
    }
    if kind in finders:
        try:
            meter = finders[kind]()
        except OSError as error:
            raise UserError(f"The meter {name} cannot be read: {error}.") from error
        if meter is None:
            raise UserError(
                f"There is no meter {name} here: {_WHERE[kind]}; this is {board(root)}. Give --meter auto for the best "
                "that is here."
            )
        return meter
    obstacles = []
    for find in finders.values() if kind == "auto" else ():
        try:
            meter = find()
        except OSError as error:
            obstacles.append(str(error))
        else:
            if meter is not None:
                return meter
    return CpuTimeEstimate(cpu_watts, obstacles)


def _pmic(root: Path, correct: bool) -> Pmic | None:
    return Pmic(correct=correct) if board(root).startswith("Raspberry Pi 5") else None
