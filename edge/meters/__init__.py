"""Meters of energy, and the choice of the best one present."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edge.conditions import board
from edge.meters.estimate import CpuTimeEstimate
from edge.meters.hwmon import Hwmon
from edge.meters.pmic import Pmic, PmicError
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


def best_meter(cpu_watts: float, root: Path = Path("/")) -> Meter:
    """The first that is here and lets us read it; else an estimate at `cpu_watts` per busy core.

    A monitor on the supply sees the whole board, so it comes before the processor's own counters; the Pi 5's chip
    misses what hangs on its 5 V, but no Pi has anything better built in.
    """
    return Hwmon.find(root) or Rapl.find(root) or _pmic(root) or CpuTimeEstimate(cpu_watts)


def _pmic(root: Path) -> Pmic | None:
    if not board(root).startswith("Raspberry Pi 5"):
        return None
    try:
        return Pmic()
    except PmicError:
        return None
