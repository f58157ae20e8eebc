"""An estimate, for machines without a sensor."""

from __future__ import annotations

import time
from collections.abc import Sequence


class CpuTimeEstimate:
    """CPU time of this process times an assumed power per busy core. Not a measurement."""

    measured = False

    def __init__(self, cpu_watts: float, obstacles: Sequence[str] = ()) -> None:
        """Assume `cpu_watts` for each core that is busy; `obstacles` say why there is no better meter."""
        self.name = "estimate"
        self.scope = "; ".join(
            [
                f"ESTIMATE, not measured: this process's CPU time x an assumed {cpu_watts:g} W per busy core",
                *obstacles,
            ]
        )
        self._cpu_watts = cpu_watts

    def energy_j(self) -> float:
        """See `Meter`."""
        return time.process_time() * self._cpu_watts
