"""How a run of the control loop went: what is noted while it runs, and the report that is made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.conditions import Conditions
from edge.interpreter import Runtime
from edge.meters import Meter
from edge.realtime import Granted
from edge.safety import Cause
from edge.stats import Histogram, Percentiles
from edge.ticklog import TickLog

SCHEMA_VERSION = 1

# Ticks whose times are kept: an hour at 250 Hz. A longer run reports on its last this many.
MAX_RECORDED_TICKS = 900_000

# Different texts of what a plant raised; the rest are counted together.
MAX_ERROR_TEXTS = 20


@dataclass(frozen=True)
class LoopReport:
    """How a run of the loop went.

    Attributes:
      rate_hz: the wanted rate.
      ticks: periods in which the loop read, acted and wrote.
      missed_periods: periods skipped because a tick ended after the next was due.
      failsafes: ticks on which the failsafe action was written instead of the policy's, by cause; a reset or a last
        write that failed counts too.
      plant_errors: how often the plant raised what, by message.
      failsafe_sent: whether the plant took the last failsafe action. If not, its actuators may still be driven. None if
        the run ended before anything was asked of the plant.
      stopped_by: "duration", "SIGINT", "SIGTERM", the text of a `Cause`, or the name of an exception.
      exit_code: what a command that runs the loop should exit with.
      duration_s: from the first deadline to the end of the last tick.
      work_us: from waking to having written.
      wake_latency_us: from the deadline to waking.
      period_us: between consecutive wake-ups.
      work_histogram, wake_latency_histogram, period_histogram: the distributions behind these.
      energy_j: energy over the run; None if no meter was given or it failed.
      energy_error: how the meter failed; None if it did not.
      energy_scope: what the energy is of; says if it is an estimate.
      realtime: what was asked of the kernel, and what it refused.
      log_dropped: ticks that the log could not take; 0 without a log.
      log_error: why the log ended early; None if it did not.
    """

    rate_hz: float
    ticks: int
    missed_periods: int
    failsafes: dict[str, int]
    plant_errors: dict[str, int]
    failsafe_sent: bool | None
    stopped_by: str
    exit_code: int
    duration_s: float
    work_us: Percentiles | None
    wake_latency_us: Percentiles | None
    period_us: Percentiles | None
    work_histogram: Histogram
    wake_latency_histogram: Histogram
    period_histogram: Histogram
    energy_j: float | None
    energy_error: str | None
    energy_scope: str | None
    realtime: Granted
    log_dropped: int
    log_error: str | None


@dataclass(frozen=True)
class RunReport:
    """A loop report with what ran, where, and under what conditions.

    Attributes:
      schema_version: version of this report's layout.
      policy: the policy's name.
      flatbuffer_sha256: which model it was.
      plant: what was driven.
      seed: seed of a simulated plant; None for any other.
      returns: return of each episode that ended, for a simulated plant; empty for any other.
      counts: what the plant counted, by name; empty for a plant that does not count.
      loop: how the loop went.
      runtime: the interpreter that ran it.
      conditions: machine and versions.
    """

    schema_version: int
    policy: str
    flatbuffer_sha256: str
    plant: str
    seed: int | None
    returns: tuple[float, ...]
    counts: dict[str, int]
    loop: LoopReport
    runtime: Runtime
    conditions: Conditions


class Recorder:
    """What happens in a run, in arrays that are allocated before the loop begins.

    Attributes:
      log: where ticks are recorded too; None without a log.
      granted: what the kernel granted.
      failsafe_sent, stopped_by, exit_code: see `LoopReport`.
    """

    def __init__(self, ticks: int | None = None) -> None:
        """Make room for `ticks`; None: as many as are kept at most."""
        capacity = min(ticks or MAX_RECORDED_TICKS, MAX_RECORDED_TICKS)
        self._deadline_ns = np.zeros(capacity, np.int64)
        self._woke_ns = np.zeros(capacity, np.int64)
        self._done_ns = np.zeros(capacity, np.int64)
        self._capacity = capacity
        self._ticks = self._missed = self._first_deadline_ns = 0
        self._failsafes: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._meter: Meter | None = None
        self._energy_j: float | None = None
        self._energy_error: str | None = None
        self.log: TickLog | None = None
        self.granted = Granted("unknown", (), ())
        self.failsafe_sent: bool | None = None
        self.stopped_by, self.exit_code = "duration", 0

    def tick(self, deadline_ns: int, woke_ns: int, done_ns: int, missed: int) -> None:
        """A tick has ended."""
        if self._ticks == 0:
            self._first_deadline_ns = deadline_ns
        slot = self._ticks % self._capacity
        self._deadline_ns[slot] = deadline_ns
        self._woke_ns[slot] = woke_ns
        self._done_ns[slot] = done_ns
        self._ticks += 1
        self._missed += missed

    def count(self, cause: Cause) -> None:
        """A tick was answered with the failsafe action."""
        self._failsafes[cause.text] = self._failsafes.get(cause.text, 0) + 1

    def stop(self, cause: Cause) -> None:
        """The run ends for `cause`."""
        self.stopped_by, self.exit_code = cause.text, cause.exit_code

    def note(self, error: Exception) -> None:
        """The plant raised `error`."""
        try:
            text = f"{type(error).__name__}: {error}"[:200]
        except Exception:
            # The text of an exception is code of the plant's as well.
            text = type(error).__name__
        # A file name in it may be bytes that no terminal prints.
        text = text.encode(errors="backslashreplace").decode()
        # A plant that fails a thousand times a second must not fill the memory with a thousand messages.
        if text not in self._errors and len(self._errors) >= MAX_ERROR_TEXTS:
            text = "others"
        self._errors[text] = self._errors.get(text, 0) + 1

    def start_energy(self, meter: Meter | None) -> None:
        """Energy counts from here."""
        self._meter = meter
        self._began_j: float | None = None
        try:
            self._began_j = None if meter is None else meter.energy_j()
        except OSError as error:
            self._energy_error = str(error)

    def end_energy(self) -> None:
        """Energy counts up to here."""
        if self._meter is None or self._began_j is None:
            return
        try:
            energy_j = self._meter.energy_j() - self._began_j
        except OSError as error:
            self._energy_error = str(error)
            return
        if energy_j >= 0:
            self._energy_j = energy_j
        else:
            self._energy_error = f"the meter went back by {-energy_j:g} J"

    def report(self, rate_hz: float) -> LoopReport:
        """How the run went, or goes; `rate_hz` is what was wanted."""
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
            plant_errors=dict(self._errors),
            failsafe_sent=self.failsafe_sent,
            stopped_by=self.stopped_by,
            exit_code=self.exit_code,
            duration_s=(last_ns - self._first_deadline_ns) * 1e-9,
            work_us=Percentiles.of_ns(done_ns - woke_ns),
            wake_latency_us=Percentiles.of_ns(woke_ns - deadline_ns),
            period_us=Percentiles.of_ns(np.diff(woke_ns)),
            work_histogram=Histogram.of_ns(done_ns - woke_ns),
            wake_latency_histogram=Histogram.of_ns(woke_ns - deadline_ns),
            period_histogram=Histogram.of_ns(np.diff(woke_ns)),
            energy_j=self._energy_j,
            energy_error=self._energy_error,
            energy_scope=None if self._meter is None else self._meter.scope,
            realtime=self.granted,
            log_dropped=0 if self.log is None else self.log.dropped,
            log_error=None if self.log is None else self.log.error,
        )
