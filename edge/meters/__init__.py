"""Meters of energy, and the choice of the best one present."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from edge.meters.estimate import CpuTimeEstimate
from edge.meters.rapl import Rapl


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
    """RAPL if this machine has it and lets us read it, else an estimate at `cpu_watts` per busy core."""
    return Rapl.find(root) or CpuTimeEstimate(cpu_watts)
