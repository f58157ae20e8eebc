"""The fixed-rate control loop."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge.clock import Clock, MonotonicClock
from edge.errors import NonFiniteObservationError, ObservationShapeError, UsageError
from edge.loop_report import LoopReport, Recorder
from edge.meters import Meter
from edge.meters.sampler import Sampler
from edge.plants import Plant, PlantStoppedError
from edge.policy import Policy
from edge.realtime import Realtime, realtime
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
from edge.systemd import Systemd
from edge.ticklog import TickLog
from edge.watchdog import Watchdog


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
        self._record = Recorder()

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
        record = self._record = Recorder(ticks)
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
        self, ticks: int | None, record: Recorder, watchdog: Watchdog | None, systemd: Systemd, stop: StopSignals
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

    def _write_last(self, actions: tuple[Any, Any], record: Recorder) -> None:
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

    def _give_up(self, record: Recorder, stop: StopSignals) -> None:
        # In the watchdog's thread: the call has taken so long that the loop is over, whether or not it comes back.
        record.count(Cause.PLANT_BLOCKED)
        record.stop(Cause.PLANT_BLOCKED)
        stop.break_off()

    def _plant_blocks(self) -> None:
        # In the watchdog's thread, while the loop's is stuck in the plant: the actuators must not keep the last action
        # until it comes back, if it ever does.
        with contextlib.suppress(Exception):
            self._plant.write(np.copy(self._failsafe))
