"""The fixed-rate control loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import FloatArray
from edge.clock import Clock, MonotonicClock
from edge.conditions import Conditions
from edge.errors import NonFiniteObservationError, UnknownNameError, UsageError
from edge.plants import Plant
from edge.policy import Policy
from edge.stats import Histogram, Percentiles

SCHEMA_VERSION = 1

# Ticks whose times are kept: an hour at 250 Hz. A longer run reports on its last this many.
MAX_RECORDED_TICKS = 900_000


@dataclass(frozen=True)
class LoopReport:
    """How a run of the loop went.

    Attributes:
      rate_hz: the wanted rate.
      ticks: periods in which the loop read, acted and wrote.
      missed_periods: periods skipped because a tick ended after the next was due.
      failsafes: ticks on which the failsafe action was written instead of the policy's, by cause.
      stopped_by: the reason given to `stop`; None if the run went to its end, or goes on.
      duration_s: from the first deadline to the end of the last tick.
      work_us: from waking to having written.
      wake_latency_us: from the deadline to waking.
      period_us: between consecutive wake-ups.
      wake_latency_histogram: the distribution behind `wake_latency_us`.
      work_histogram: the distribution behind `work_us`.
    """

    rate_hz: float
    ticks: int
    missed_periods: int
    failsafes: dict[str, int]
    stopped_by: str | None
    duration_s: float
    work_us: Percentiles | None
    wake_latency_us: Percentiles | None
    period_us: Percentiles | None
    wake_latency_histogram: Histogram
    work_histogram: Histogram


@dataclass(frozen=True)
class RunReport:
    """A loop report with what ran, where, and under what conditions.

    Attributes:
      schema_version: version of this report's layout.
      policy: the policy's name.
      flatbuffer_sha256: which model it was.
      plant: what was driven.
      seed: seed of a simulated plant.
      returns: return of each episode that ended, for a simulated plant.
      loop: how the loop went.
      conditions: machine, runtime and versions.
    """

    schema_version: int
    policy: str
    flatbuffer_sha256: str
    plant: str
    seed: int
    returns: tuple[float, ...]
    loop: LoopReport
    conditions: Conditions


class ControlLoop:
    """Reads a plant, asks a policy, writes the action, at a fixed rate.

    Deadlines are absolute: tick k is due at start + k / rate, whatever the ticks before it took, so there is no drift.
    When a tick ends after later ones were due, those are skipped and counted, and the next tick falls on the original
    grid: missed work is never caught up in a burst of commands.

    An observation with NaN or infinity never reaches the policy, and an action with one never reaches the plant: the
    failsafe action is written and counted. The last action that the plant receives is the failsafe action, however
    `run` ends (short of SIGKILL and power loss, against which only the actuators themselves can guard).

    >>> with GymPlant("InvertedDoublePendulum-v5") as plant:  # doctest: +SKIP
    ...     report = ControlLoop(policy, plant).run(duration_s=10)
    """

    def __init__(
        self,
        policy: Policy,
        plant: Plant,
        *,
        rate_hz: float | None = None,
        failsafe: str | npt.ArrayLike = "hold",
        clock: Clock | None = None,
    ) -> None:
        """Make a loop; nothing is read or written yet.

        Args:
          policy: what decides.
          plant: what is driven. The caller opens and closes it.
          rate_hz: ticks per second; the manifest's control rate if None.
          failsafe: "hold" (the last good action again; zero before there is one, and at the end), "zero", or an action.
          clock: time; the system's monotonic clock if None.

        Raises:
          UsageError: there is no rate, it is not positive, or the failsafe is not an action of this policy.
        """
        rate_hz = policy.spec.control_rate_hz if rate_hz is None else rate_hz
        if rate_hz is None:
            raise UsageError(f"The manifest of {policy.name} names no control rate. Give one with --rate HZ.")
        if not 0 < rate_hz <= 1e6:
            raise UsageError(f"A rate of {rate_hz:g} Hz is not possible. Give one between 0 and 1e6.")
        self.rate_hz = float(rate_hz)
        self._policy, self._plant = policy, plant
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._hold = isinstance(failsafe, str) and failsafe == "hold"
        self._failsafe = _failsafe_action(policy, failsafe)
        self._bounds = _bounds(policy)
        self._stop_reason: str | None = None
        self._record = _Record()

    def run(self, *, duration_s: float | None = None) -> LoopReport:
        """Reset the plant and drive it for `duration_s`, or until `stop` or an exception if None.

        After an exception, `report` still tells how it went until then.
        """
        if duration_s is not None and not 0 < duration_s < math.inf:
            raise UsageError(f"A duration must be above 0 s; it was given {duration_s:g}.")
        period_ns = round(1e9 / self.rate_hz)
        ticks = None if duration_s is None else max(1, round(duration_s * self.rate_hz))
        record = self._record = _Record(ticks)
        self._stop_reason = None
        plant, clock, act = self._plant, self._clock, self._policy.act
        held = self._failsafe
        try:
            plant.reset()
            start_ns = deadline_ns = clock.now_ns()
            due = 0
            while (ticks is None or due < ticks) and self._stop_reason is None:
                clock.sleep_until_ns(deadline_ns)
                woke_ns = clock.now_ns()
                observation = plant.read()
                try:
                    action = self._clamp(act(observation))
                except NonFiniteObservationError:
                    record.count_failsafe("non-finite observation")
                    action = np.copy(held)
                except _NonFiniteActionError:
                    record.count_failsafe("non-finite action")
                    action = np.copy(held)
                else:
                    if self._hold:
                        held = np.copy(action)
                plant.write(action)
                done_ns = clock.now_ns()
                # Skip what cannot be met any more, in phase.
                skipped = max(0, (done_ns - deadline_ns) // period_ns)
                if ticks is not None:
                    skipped = min(skipped, ticks - due - 1)
                record.tick(deadline_ns, woke_ns, done_ns, skipped)
                due += 1 + skipped
                deadline_ns = start_ns + due * period_ns
        finally:
            # Not what was held: the last torque of a policy must not stay applied when nobody looks any more.
            plant.write(np.copy(self._failsafe))
        return self.report()

    def stop(self, reason: str) -> None:
        """End the run after the current tick; may be called from a signal handler or another thread."""
        self._stop_reason = reason

    def report(self) -> LoopReport:
        """How the latest run went, or goes."""
        return self._record.report(self.rate_hz, self._stop_reason)

    def _clamp(self, action: Any) -> Any:
        if self._bounds is None:
            return action
        if not np.isfinite(action).all():
            raise _NonFiniteActionError
        low, high = self._bounds
        return np.minimum(np.maximum(action, low, out=action), high, out=action)


class _NonFiniteActionError(Exception):
    """The policy gave NaN or infinity, which bounds do not hold back."""


def _bounds(policy: Policy) -> tuple[FloatArray, FloatArray] | None:
    """The action bounds, infinite where there are none; None for a discrete policy."""
    spec = policy.spec.action
    if spec.discrete:
        return None
    low = np.array([-np.inf if bound is None else bound for bound in spec.low], np.float32)
    high = np.array([np.inf if bound is None else bound for bound in spec.high], np.float32)
    return low.reshape(spec.shape), high.reshape(spec.shape)


def _failsafe_action(policy: Policy, failsafe: str | npt.ArrayLike) -> Any:
    spec = policy.spec.action
    if isinstance(failsafe, str):
        if failsafe not in ("hold", "zero"):
            raise UnknownNameError("failsafe", failsafe, ("hold", "zero"))
        failsafe = np.zeros(spec.shape)
    action = np.asarray(failsafe, np.float32)
    if action.size != math.prod(spec.shape) or not np.isfinite(action).all():
        raise UsageError(
            f"The failsafe action must be {math.prod(spec.shape)} finite number(s), "
            f"like the actions of {policy.name}; it was given {np.asarray(failsafe).tolist()}."
        )
    action = action.reshape(spec.shape)
    if spec.n is not None:
        if action != int(action) or not 0 <= action < spec.n:
            raise UsageError(f"The failsafe action must be one of 0..{spec.n - 1}; it was given {float(action):g}.")
        return int(action)
    bounds = _bounds(policy)
    assert bounds is not None
    return np.clip(action, *bounds)


class _Record:
    """Times of the ticks, in arrays that are allocated before the loop begins."""

    def __init__(self, ticks: int | None = None) -> None:
        capacity = min(ticks or MAX_RECORDED_TICKS, MAX_RECORDED_TICKS)
        self._deadline_ns = np.zeros(capacity, np.int64)
        self._woke_ns = np.zeros(capacity, np.int64)
        self._done_ns = np.zeros(capacity, np.int64)
        self._capacity = capacity
        self._ticks = 0
        self._missed = 0
        self._first_deadline_ns = 0
        self._failsafes: dict[str, int] = {}

    def tick(self, deadline_ns: int, woke_ns: int, done_ns: int, missed: int) -> None:
        if self._ticks == 0:
            self._first_deadline_ns = deadline_ns
        slot = self._ticks % self._capacity
        self._deadline_ns[slot] = deadline_ns
        self._woke_ns[slot] = woke_ns
        self._done_ns[slot] = done_ns
        self._ticks += 1
        self._missed += missed

    def count_failsafe(self, cause: str) -> None:
        self._failsafes[cause] = self._failsafes.get(cause, 0) + 1

    def report(self, rate_hz: float, stop_reason: str | None) -> LoopReport:
        kept = min(self._ticks, self._capacity)
        # Oldest first: once the arrays have wrapped, the oldest tick lies where the next would be written.
        order = (np.arange(kept) + self._ticks) % self._capacity if kept == self._capacity else np.arange(kept)
        deadline_ns, woke_ns, done_ns = (a[order] for a in (self._deadline_ns, self._woke_ns, self._done_ns))
        last_ns = int(done_ns[-1]) if kept else self._first_deadline_ns
        return LoopReport(
            rate_hz=rate_hz,
            ticks=self._ticks,
            missed_periods=self._missed,
            failsafes=dict(self._failsafes),
            stopped_by=stop_reason,
            duration_s=(last_ns - self._first_deadline_ns) * 1e-9,
            work_us=Percentiles.of_ns(done_ns - woke_ns),
            wake_latency_us=Percentiles.of_ns(woke_ns - deadline_ns),
            period_us=Percentiles.of_ns(np.diff(woke_ns)),
            wake_latency_histogram=Histogram.of_ns(woke_ns - deadline_ns),
            work_histogram=Histogram.of_ns(done_ns - woke_ns),
        )
