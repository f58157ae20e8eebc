"""Energy per action: the power while acting, less the power of doing nothing, over many alternating windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.meters import Meter
from edge.stats import Estimate, mean_estimate

Array = npt.NDArray[Any]

# What EEMBC's EnergyRunner asks for at least; shorter windows hold too few samples of a meter that is read at 10 Hz.
WINDOW_S = 10.0

# An interval over fewer is wider than anything that one would want to know.
MIN_WINDOWS = 3


@dataclass(frozen=True)
class Energy:
    """Energy of acting back to back.

    Attributes:
      net_j: joules per action above idle, with an interval over windows; None if there was no such measurement, or if
        its interval reaches down to zero: then it is below what the meter resolves.
      gross_j: joules per action, idle power included.
      idle_w: mean power while idle; None for an estimate, which knows nothing of idling.
      active_w: mean power while acting.
      idle_sd_w: standard deviation of the idle windows' power.
      windows: pairs of an idle and an active window.
      window_s: length of each.
      actions: actions in all active windows.
      measured: false if it is an estimate.
      meter: the meter's name.
      scope: what the meter sees and how.
      failure: why there is no figure; None if there is one.
    """

    net_j: Estimate | None
    gross_j: float | None
    idle_w: float | None
    active_w: float | None
    idle_sd_w: float | None
    windows: int
    window_s: float
    actions: int
    measured: bool
    meter: str
    scope: str
    failure: str | None


def measure(
    acts: Sequence[Callable[[], object]],
    meter: Meter,
    *,
    windows: int,
    window_s: float = WINDOW_S,
    now_s: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Energy]:
    """Energy per call of each of `acts`, which take turns, each after an idle window of its own.

    Args:
      acts: what to measure; each does one action.
      meter: read at both ends of each window. One that integrates power must be sampled meanwhile.
      windows: pairs of windows for each; at least `MIN_WINDOWS`.
      window_s: length of a window.
      now_s: clock in seconds.
      sleep: idling.
      progress: told what goes on.
    """
    idle_w, active_w = np.zeros((len(acts), windows)), np.zeros((len(acts), windows))
    actions, active_s = np.zeros((len(acts), windows), np.int64), np.zeros((len(acts), windows))

    def power_w(body: Callable[[float], int]) -> tuple[float, int, float]:
        before_j, start_s = meter.energy_j(), now_s()
        n = body(start_s + window_s)
        elapsed_s = now_s() - start_s
        return (meter.energy_j() - before_j) / elapsed_s, n, elapsed_s

    def idle(until_s: float) -> int:
        sleep(until_s - now_s())
        return 0

    def active(act: Callable[[], object]) -> Callable[[float], int]:
        def body(until_s: float) -> int:
            n = 0
            while now_s() < until_s:
                for _ in range(100):
                    act()
                n += 100
            return n

        return body

    try:
        for window in range(windows):
            for i, act in enumerate(acts):
                progress(f"energy: window {window * len(acts) + i + 1} of {windows * len(acts)}, {2 * window_s:g} s")
                idle_w[i, window], _, _ = power_w(idle)
                active_w[i, window], actions[i, window], active_s[i, window] = power_w(active(act))
    except OSError as error:
        return [unknown(meter, f"the meter failed: {error}")] * len(acts)
    return [_summary(*rows, meter, window_s) for rows in zip(idle_w, active_w, actions, active_s)]


def estimate(act: Callable[[], object], meter: Meter, actions: int) -> Energy:
    """Energy per action by a meter that only multiplies processor time: windows and idling would tell nothing more."""
    before_j, start_s = meter.energy_j(), time.perf_counter()
    for _ in range(actions):
        act()
    joules, elapsed_s = meter.energy_j() - before_j, time.perf_counter() - start_s
    return Energy(
        net_j=None,
        gross_j=joules / actions,
        idle_w=None,
        active_w=joules / elapsed_s,
        idle_sd_w=None,
        windows=1,
        window_s=elapsed_s,
        actions=actions,
        measured=meter.measured,
        meter=meter.name,
        scope=meter.scope,
        failure=None,
    )


def unknown(meter: Meter | None, failure: str) -> Energy:
    """No figure, and why; `meter` is None if there was none to ask."""
    return Energy(
        net_j=None,
        gross_j=None,
        idle_w=None,
        active_w=None,
        idle_sd_w=None,
        windows=0,
        window_s=0.0,
        actions=0,
        measured=meter is not None and meter.measured,
        meter="none" if meter is None else meter.name,
        scope="not measured" if meter is None else meter.scope,
        failure=failure,
    )


def _summary(idle_w: Array, active_w: Array, actions: Array, active_s: Array, meter: Meter, window_s: float) -> Energy:
    # Each window pair gives one figure; the interval is over these, for samples within a window are not independent.
    net = mean_estimate((active_w - idle_w) * active_s / actions)
    resolved = net.low > 0
    return Energy(
        net_j=net if resolved else None,
        gross_j=float((active_w * active_s).sum() / actions.sum()),
        idle_w=float(idle_w.mean()),
        active_w=float(active_w.mean()),
        idle_sd_w=float(idle_w.std(ddof=1)),
        windows=len(idle_w),
        window_s=window_s,
        actions=int(actions.sum()),
        measured=meter.measured,
        meter=meter.name,
        scope=meter.scope,
        failure=None if resolved else "below what this meter resolves",
    )
