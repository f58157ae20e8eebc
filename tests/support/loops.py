"""Short runs of the control loop on a clock that moves only when told."""

from typing import Any

import numpy as np
from fakes import FakeClock, FakePlant

from edge.loop import ControlLoop
from edge.loop_report import LoopReport
from edge.policy import Policy
from edge.safety import ActionLimits, Safety

MS = 1_000_000

# Observations of the arm in tests/data.
GOOD = np.array([0.3, 1.05, 60.0])
BAD = np.array([0.3, np.nan, 60.0])


def run(
    arm: Policy,
    plant: FakePlant,
    clock: FakeClock,
    *,
    ticks: int = 10,
    rate_hz: float = 100.0,
    limits: ActionLimits | None = None,
    **safety: Any,
) -> LoopReport:
    loop = ControlLoop(arm, plant, rate_hz=rate_hz, clock=clock, limits=limits, safety=Safety(**safety))
    return loop.run(duration_s=ticks / rate_hz)
