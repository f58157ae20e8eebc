"""The fixed-rate control loop."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.clock import Clock, MonotonicClock
from edge.conditions import Conditions
from edge.errors import NonFiniteObservationError, ObservationShapeError, UsageError
from edge.interpreter import Runtime
from edge.meters import Meter
from edge.meters.sampler import Sampler
from edge.plants import Plant, PlantStoppedError
from edge.policy import Policy
from edge.realtime import Granted, Realtime, realtime
from edge.safety import (
    ActionLimiter,
    ActionLimits,
    Cause,
    NonFiniteActionError,
    RangeCheck,
    Safety,
    failsafe_action,
)
from edge.signals import Stopped, StopSignals, stop_signals
from edge.stats import Histogram, Percentiles
from edge.systemd import Systemd
from edge.ticklog import TickLog
from edge.watchdog import Watchdog

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
      failsafes: ticks on which the failsafe action was written instead of the policy's, by cause; a reset or a last
        write that failed counts too.
      plant_errors: how often the plant raised what, by message.
      stopped_by: "duration", "SIGINT", "SIGTERM", the text of a `Cause`, or the name of an exception.
      exit_code: what a command that runs the loop should exit with.
      duration_s: from the first deadline to the end of the last tick.
      work_us: from waking to having written.
      wake_latency_us: from the deadline to waking.
      period_us: between consecutive wake-ups.
      wake_latency_histogram: the distribution behind `wake_latency_us`.
      work_histogram: the distribution behind `work_us`.
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
    stopped_by: str
    exit_code: int
    duration_s: float
    work_us: Percentiles | None
    wake_latency_us: Percentiles | None
    period_us: Percentiles | None
    wake_latency_histogram: Histogram
    work_histogram: Histogram
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


class ControlLoop:
    """Reads a plant, asks a policy, writes the action, at a fixed rate.

    Deadlines are absolute: tick k is due at start + k / rate, whatever the ticks before it took, so there is no drift.
    When a tick ends after later ones were due, those are skipped and counted, and the next tick falls on the original
    grid: missed work is never caught up in a burst of commands.

    Whatever `Safety` does not let through is answered with the failsafe action, and counted by `Cause`. The last action
    that the plant receives is the failsafe action, however `run` ends: by its duration, a signal, an exception anywhere
    (short of SIGKILL and power loss, against which only the actuators themselves can guard).

    >>> with GymPlant("InvertedDoublePendulum-v5") as plant:  # doctest: +SKIP
    ...     report = ControlLoop(policy, plant).run(duration_s=10)
    """

    def __init__(
        self,
        policy: Policy,
        plant: Plant,
        *,
        rate_hz: float | None = None,
        safety: Safety | None = None,
        limits: ActionLimits | None = None,
        wanted: Realtime | None = None,
        clock: Clock | None = None,
        meter: Meter | None = None,
        log: str | Path | None = None,
        on_dead_plant: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a loop; nothing is read or written yet.

        Args:
          policy: what decides.
          plant: what is driven. The caller opens and closes it.
          rate_hz: ticks per second; the manifest's control rate if None.
          safety: when the failsafe action takes over, and what it is.
          limits: how actions may change.
          wanted: what to ask of the kernel.
          clock: time; the system's monotonic clock if None.
          meter: what measures the energy of the run; a thread of its own reads it.
          log: file in which to record every tick; see `edge.ticklog`.
          on_dead_plant: called from another thread if a call of the plant never comes back and cannot be broken off;
            the program that runs the loop can then only end the process.

        Raises:
          UsageError: there is no rate, it is not possible, or the failsafe is not an action of this policy.
        """
        rate_hz = policy.spec.control_rate_hz if rate_hz is None else rate_hz
        if rate_hz is None:
            raise UsageError(f"The manifest of {policy.name} names no control rate. Give one with --rate HZ.")
        if not 0 < rate_hz <= 1e6:
            raise UsageError(f"A rate of {rate_hz:g} Hz is not possible. Give one between 0 and 1e6.")
        self.rate_hz = float(rate_hz)
        self._policy, self._plant = policy, plant
        self._safety = Safety() if safety is None else safety
        self._failsafe = failsafe_action(policy.spec, self._safety.failsafe)
        self._hold = isinstance(self._safety.failsafe, str) and self._safety.failsafe == "hold"
        self._limiter = ActionLimiter(policy.spec, limits or ActionLimits(), 1.0 / self.rate_hz)
        margin = self._safety.range_margin
        check = None if margin is None else RangeCheck(policy.spec.observation, margin)
        self._in_range = None if check is None or check.trivial else check.passes
        self._wanted = wanted or Realtime()
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._meter, self._log_path, self._on_dead_plant = meter, log, on_dead_plant
        self._record = _Record()

    def run(self, *, duration_s: float | None = None) -> LoopReport:
        """Reset the plant and drive it for `duration_s`, or until something stops it if None.

        SIGINT, SIGTERM and SIGHUP (in the main thread) end the run after its tick, and the report says so; a second
        one, for a plant that is stuck, breaks the tick off. What a plant raises is answered and counted, in `reset` and
        the last `write` too. Any other exception is raised again after the failsafe action was written; `report` then
        still tells how it went until then.
        """
        if duration_s is not None and not 0 < duration_s < math.inf:
            raise UsageError(f"A duration must be above 0 s; it was given {duration_s:g}.")
        ticks = None if duration_s is None else max(1, round(duration_s * self.rate_hz))
        record = self._record = _Record(ticks)
        # Made now, because a run may end for want of memory.
        last_actions = (np.copy(self._failsafe), np.copy(self._failsafe))
        with contextlib.ExitStack() as stack:
            if self._log_path is not None:
                record.log = TickLog(self._log_path, self._policy, rate_hz=self.rate_hz)
                stack.callback(record.log.close)
            record.start_energy(
                None
                if self._meter is None
                else stack.enter_context(Sampler(self._meter, avoid_cpus=self._wanted.cpus or ()))
            )
            stack.callback(record.end_energy)
            stop = stack.enter_context(stop_signals())
            watchdog = None
            if self._safety.max_block_s is not None:
                limit_ns = round(self._safety.max_block_s * 1e9)
                stages = [(limit_ns, self._plant_blocks)]
                if self._safety.stop_after is not None:
                    # It is given the time that it would have had to fail so often one by one.
                    patience_ns = round(self._safety.stop_after * 1e9 / self.rate_hz)
                    stages += [
                        (limit_ns + patience_ns, lambda: self._give_up(record, stop)),
                        (limit_ns + 2 * patience_ns, self._on_dead_plant),
                    ]
                watchdog = stack.enter_context(Watchdog(self._clock, stages))
            record.granted = stack.enter_context(realtime(self._wanted))
            systemd = stack.enter_context(Systemd())
            try:
                try:
                    self._drive(ticks, record, watchdog, systemd, stop)
                finally:
                    # If a second signal comes before this line, its exception closes too; there is no third.
                    stop.closed = True
            except Stopped:
                pass
            except BaseException as error:
                record.stopped_by, record.exit_code = type(error).__name__, 1
                raise
            finally:
                if stop.number is not None:
                    record.stopped_by = signal.Signals(stop.number).name
                    record.exit_code = 128 + stop.number
                # Not what was held: the last torque of a policy must not stay applied when nobody looks any more.
                if watchdog is not None:
                    watchdog.begin()
                self._write_last(last_actions, record)
        return self.report()

    def report(self) -> LoopReport:
        """How the latest run went, or goes."""
        return self._record.report(self.rate_hz)

    def _drive(
        self, ticks: int | None, record: _Record, watchdog: Watchdog | None, systemd: Systemd, stop: StopSignals
    ) -> None:
        plant, clock, act, limiter = self._plant, self._clock, self._policy.act, self._limiter
        safety, in_range, log = self._safety, self._in_range, record.log
        period_ns = round(1e9 / self.rate_hz)
        max_age_ns = None if safety.max_age_s is None else round(safety.max_age_s * 1e9)
        last_observed_ns: int | None = None
        bad_in_a_row = missed_in_a_row = 0
        held = chosen = self._failsafe

        try:
            plant.reset()
            stamped = hasattr(plant, "observed_ns")
        except Exception as error:
            record.note(error)
            record.count(Cause.PLANT_ERROR)
            record.stop(Cause.PLANT_ERROR)
            return
        systemd.ready(clock.now_ns())
        start_ns = deadline_ns = clock.now_ns()
        due = 0
        while (ticks is None or due < ticks) and stop.number is None:
            clock.sleep_until_ns(deadline_ns)
            woke_ns = clock.now_ns()
            cause: Cause | None = None
            over = False
            observation: Any = None
            action: Any = None
            sent: Any = None

            # Read.
            if watchdog is not None:
                watchdog.begin()
            try:
                observation = plant.read()
            except Exception as error:
                cause = Cause.PLANT_ERROR
                over = isinstance(error, PlantStoppedError)
                record.note(error)
            if watchdog is not None and watchdog.end():
                cause = Cause.PLANT_BLOCKED

            # Check.
            if cause is None and stamped:
                try:
                    observed_ns, now_ns = int(plant.observed_ns), clock.now_ns()  # type: ignore[attr-defined]
                except Exception as error:
                    cause = Cause.PLANT_ERROR
                    record.note(error)
                else:
                    # One from the future would never grow old, and all that follow would seem to go backwards.
                    if observed_ns > now_ns or (last_observed_ns is not None and observed_ns < last_observed_ns):
                        cause = Cause.BACKWARDS
                    elif max_age_ns is not None and now_ns - observed_ns > max_age_ns:
                        cause = Cause.STALE
                    else:
                        last_observed_ns = observed_ns
            if safety.max_missed is not None and missed_in_a_row >= safety.max_missed:
                cause = cause or Cause.MISSED

            # Act. The policy has the first look: it refuses wrong shapes, on which the range check would stumble.
            if cause is None:
                try:
                    action = act(observation)
                    if in_range is not None and not in_range(observation):
                        cause = Cause.OUT_OF_RANGE
                    else:
                        chosen = limiter(np.copy(action))
                except NonFiniteObservationError:
                    cause = Cause.NON_FINITE
                except ObservationShapeError as error:
                    # A driver that was cut short: as much the plant's failure as an exception.
                    cause = Cause.PLANT_ERROR
                    record.note(error)
                except NonFiniteActionError:
                    cause = Cause.BAD_ACTION
            if cause is not None:
                chosen = held

            # Write. The plant gets a copy: what it does to it is its own affair.
            if watchdog is not None:
                watchdog.begin()
            try:
                sent = plant.write(np.copy(chosen))
            except Exception as error:
                cause = Cause.PLANT_ERROR
                over = over or isinstance(error, PlantStoppedError)
                record.note(error)
                chosen = held
                with contextlib.suppress(Exception):
                    plant.write(np.copy(held))
            if watchdog is not None and watchdog.end() and cause is None:
                # The action reached the actuators too late to be right.
                cause = Cause.PLANT_BLOCKED
                chosen = held
                watchdog.begin()
                with contextlib.suppress(Exception):
                    plant.write(np.copy(held))
                watchdog.end()
            if cause is None and self._hold:
                held = chosen
            limiter.sent(chosen)

            # Account.
            done_ns = clock.now_ns()
            skipped = max(0, (done_ns - deadline_ns) // period_ns)
            if ticks is not None:
                skipped = min(skipped, ticks - due - 1)
            record.tick(deadline_ns, woke_ns, done_ns, skipped)
            if log is not None:
                log.record(woke_ns, 0 if cause is None else cause.exit_code, skipped, observation, action, sent)
            if done_ns >= systemd.due_ns:
                systemd.alive(done_ns)
            missed_in_a_row = missed_in_a_row + 1 if skipped else 0
            bad_in_a_row = bad_in_a_row + 1 if cause is not None else 0
            if cause is not None:
                record.count(cause)
                if over or (safety.stop_after is not None and bad_in_a_row >= safety.stop_after):
                    record.stop(cause)
                    return
            due += 1 + skipped
            deadline_ns = start_ns + due * period_ns

    def _write_last(self, actions: tuple[Any, Any], record: _Record) -> None:
        # Twice, because a device may be about to recover; each time another array, because the plant may change it.
        for action in actions:
            try:
                self._plant.write(action)
                return
            except Exception as error:
                record.note(error)
        record.count(Cause.PLANT_ERROR)
        if record.exit_code == 0:
            record.stop(Cause.PLANT_ERROR)

    def _give_up(self, record: _Record, stop: StopSignals) -> None:
        # In the watchdog's thread: the call has taken so long that the loop is over, whether or not it comes back.
        record.count(Cause.PLANT_BLOCKED)
        record.stop(Cause.PLANT_BLOCKED)
        stop.break_off()

    def _plant_blocks(self) -> None:
        # In the watchdog's thread, while the loop's is stuck in the plant: the actuators must not keep the last action
        # until it comes back, if it ever does.
        with contextlib.suppress(Exception):
            self._plant.write(np.copy(self._failsafe))


class _Record:
    """What happened, in arrays that are allocated before the loop begins."""

    def __init__(self, ticks: int | None = None) -> None:
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
        self.stopped_by, self.exit_code = "duration", 0

    def tick(self, deadline_ns: int, woke_ns: int, done_ns: int, missed: int) -> None:
        if self._ticks == 0:
            self._first_deadline_ns = deadline_ns
        slot = self._ticks % self._capacity
        self._deadline_ns[slot] = deadline_ns
        self._woke_ns[slot] = woke_ns
        self._done_ns[slot] = done_ns
        self._ticks += 1
        self._missed += missed

    def count(self, cause: Cause) -> None:
        self._failsafes[cause.text] = self._failsafes.get(cause.text, 0) + 1

    def stop(self, cause: Cause) -> None:
        self.stopped_by, self.exit_code = cause.text, cause.exit_code

    def note(self, error: Exception) -> None:
        try:
            text = f"{type(error).__name__}: {error}"[:200]
        except Exception:
            # The text of an exception is code of the plant's as well.
            text = type(error).__name__
        # A file name in it may be bytes that no terminal prints.
        text = text.encode(errors="backslashreplace").decode()
        # A plant that fails a thousand times a second must not fill the memory with a thousand messages.
        if text in self._errors or len(self._errors) < 20:
            self._errors[text] = self._errors.get(text, 0) + 1

    def start_energy(self, meter: Meter | None) -> None:
        self._meter = meter
        self._began_j: float | None = None
        try:
            self._began_j = None if meter is None else meter.energy_j()
        except OSError as error:
            self._energy_error = str(error)

    def end_energy(self) -> None:
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
            stopped_by=self.stopped_by,
            exit_code=self.exit_code,
            duration_s=(last_ns - self._first_deadline_ns) * 1e-9,
            work_us=Percentiles.of_ns(done_ns - woke_ns),
            wake_latency_us=Percentiles.of_ns(woke_ns - deadline_ns),
            period_us=Percentiles.of_ns(np.diff(woke_ns)),
            wake_latency_histogram=Histogram.of_ns(woke_ns - deadline_ns),
            work_histogram=Histogram.of_ns(done_ns - woke_ns),
            energy_j=self._energy_j,
            energy_error=self._energy_error,
            energy_scope=None if self._meter is None else self._meter.scope,
            realtime=self.granted,
            log_dropped=0 if self.log is None else self.log.dropped,
            log_error=None if self.log is None else self.log.error,
        )
