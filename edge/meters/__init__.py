"""Meters of energy, and the choice of the best one present."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

from edge.conditions import board
from edge.errors import UsageError
from edge.meters.estimate import CpuTimeEstimate
from edge.meters.hwmon import Hwmon
from edge.meters.pmic import Pmic
from edge.meters.rapl import Rapl

# For the estimate only, where no meter is present. An assumption; give your board's own with --cpu-watts.
DEFAULT_CPU_WATTS = 1.5


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


def best_meter(cpu_watts: float, root: Path = Path("/"), *, pmic_correction: bool = False) -> Meter:
    """The first that is here and lets us read it; else an estimate at `cpu_watts` per busy core.

    A monitor on the supply sees the whole board, so it comes before the processor's own counters; the Pi 5's chip
    misses what hangs on its 5 V, but no Pi has anything better built in. The estimate's scope says what stood in the
    way of a meter that is here and could not be read.

    Raises:
      UsageError: the assumed power is none.
    """
    if not 0 < cpu_watts < math.inf:
        raise UsageError(f"The power per busy core must be above 0 W; it was given {cpu_watts:g}.")
    obstacles = []
    for find in (Hwmon.find, Rapl.find, lambda root: _pmic(root, pmic_correction)):
        try:
            meter: Meter | None = find(root)
        except OSError as error:
            obstacles.append(str(error))
        else:
            if meter is not None:
                return meter
    return CpuTimeEstimate(cpu_watts, obstacles)


def _pmic(root: Path, correct: bool) -> Pmic | None:
    return Pmic(correct=correct) if board(root).startswith("Raspberry Pi 5") else None
