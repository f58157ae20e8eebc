"""The fixed-rate control loop."""

from __future__ import annotations

import contextlib
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

# Beyond these a number was mistyped.
MIN_RATE_HZ, MAX_RATE_HZ = 1e-3, 1e6
MAX_DURATION_S = 10 * 365.25 * 86_400


def check_rate(rate_hz: float) -> float:
    """The rate, if it is a possible one.

    Raises:
      UsageError: it is not.
    """
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise UsageError(
            f"A rate of {rate_hz:g} Hz is not possible. Give one between {MIN_RATE_HZ:g} and {MAX_RATE_HZ:g}."
        )
    return float(rate_hz)


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
        """Make a loop; nothing is read or written yet, and the plant need not be open.

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
        self.rate_hz = check_rate(rate_hz)
        self._policy, self._plant = policy, plant
        self._safety = Safety() if safety is None else safety
        self._failsafe = failsafe_action(policy.spec, self._safety.failsafe)
        self._hold = isinstance(self._safety.failsafe, str) and self._safety.failsafe == "hold"
        # The plant gets copies: what it does to an array is its own affair. A choice is a number.
        self._copy: Callable[[Any], Any] = int if policy.spec.action.discrete else np.ndarray.copy
        self._limiter = ActionLimiter(policy.spec, limits or ActionLimits(), 1.0 / self.rate_hz)
        margin = self._safety.range_margin
        check = None if margin is None else RangeCheck(policy.spec.observation, margin)
        self._in_range = None if check is None or check.trivial else check.passes
        self._wanted = wanted or Realtime()
        self._clock: Clock = MonotonicClock() if clock is None else clock
        self._meter, self._log_path, self._on_dead_plant = meter, log, on_dead_plant
        self._record = Recorder()

    def ticks(self, duration_s: float | None) -> int | None:
        """How many ticks a run of `duration_s` has; None: no end.

        Raises:
          UsageError: no such run is possible.
        """
        if duration_s is None:
            return None
        if not 0 < duration_s <= MAX_DURATION_S:
            raise UsageError(f"A duration must be above 0 s and at most ten years; it was given {duration_s:g} s.")
        return max(1, round(duration_s * self.rate_hz))

    def run(self, *, duration_s: float | None = None, stop: StopSignals | None = None) -> LoopReport:
        """Reset the plant and drive it for `duration_s`, or until something stops it if None.

        SIGINT, SIGTERM and SIGHUP (in the main thread) end the run after its tick, and the report says so; further
        ones, for a plant that is stuck, break the tick off. What a plant raises is answered and counted, in `reset` and
        the last `write` too. Any other exception is raised again after the failsafe action was written; `report` then
        still tells how it went until then.

        Whoever handles signals already, because the plant takes long to open and close, gives its `stop`. It is closed
        afterwards.
        """
        ticks = self.ticks(duration_s)
        record = self._record = Recorder(ticks)
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
            stop = stack.enter_context(stop_signals()) if stop is None else stop
            run = _Run(self, ticks, record, stop)
            if run.watchdog is not None:
                stack.enter_context(run.watchdog)
            try:
                try:
                    record.granted = stack.enter_context(realtime(self._wanted))
                    run.drive(stack.enter_context(Systemd()))
                finally:
                    stop.closed = True
            except Stopped:
                pass
            except BaseException as error:
                record.stopped_by, record.exit_code = type(error).__name__, 1
                raise
            finally:
                # Again, if a signal came before the first time.
                stop.closed = True
                # What else had ended it by then says more.
                if stop.number is not None and record.exit_code == 0:
                    record.stopped_by = signal.Signals(stop.number).name
                    record.exit_code = 128 + stop.number
                if record.failsafe_sent is not None:
                    run.write_last()
        return self.report()

    def report(self) -> LoopReport:
        """How the latest run went, or goes."""
        return self._record.report(self.rate_hz)


class _Run:
    """One run of a loop: what its ticks hand on to each other."""

    def __init__(self, loop: ControlLoop, ticks: int | None, record: Recorder, stop: StopSignals) -> None:
        self._loop, self._ticks, self._record, self._stop = loop, ticks, record, stop
        self._plant, self._clock, self._copy = loop._plant, loop._clock, loop._copy
        # What is sent while something is wrong.
        self._held = loop._failsafe
        # Made now, because a run may end for want of memory. Not what was held: the last torque of a policy must not
        # stay applied when nobody looks any more.
        self._last_actions = (self._copy(loop._failsafe), self._copy(loop._failsafe))
        self._cause: Cause | None = None
        self._last_observed_ns: int | None = None
        self._missed_in_a_row = 0
        self.watchdog = self._make_watchdog(loop._safety)

    def drive(self, systemd: Systemd) -> None:
        """Reset the plant, and tick until something ends it."""
        loop, clock, record, stop = self._loop, self._clock, self._record, self._stop
        ticks, log, stop_after = self._ticks, record.log, loop._safety.stop_after
        period_ns = round(1e9 / loop.rate_hz)
        loop._limiter.sent(loop._failsafe)
        bad_in_a_row = 0
        if stop.number is not None:
            return
        # From here on the plant may move.
        record.failsafe_sent = False
        try:
            self._plant.reset()
            stamped = hasattr(self._plant, "observed_ns")
        except Exception as error:
            self._fail(Cause.PLANT_STOPPED if isinstance(error, PlantStoppedError) else Cause.PLANT_ERROR, error)
            assert self._cause is not None
            record.count(self._cause)
            record.stop(self._cause)
            return
        start_ns = deadline_ns = clock.now_ns()
        systemd.ready(start_ns)
        due = 0
        while (ticks is None or due < ticks) and stop.number is None:
            clock.sleep_until_ns(deadline_ns)
            woke_ns = clock.now_ns()
            self._cause = None
            observation = self._read()
            if stamped and self._cause is None:
                self._check_age()
            action, chosen = self._act(observation)
            chosen, sent = self._write(chosen)
            cause = self._cause
            if cause is None and loop._hold:
                self._held = chosen
            loop._limiter.sent(chosen)

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
            self._missed_in_a_row = self._missed_in_a_row + skipped if skipped else 0
            bad_in_a_row = 0 if cause is None else bad_in_a_row + 1
            if cause is not None:
                record.count(cause)
                if cause is Cause.PLANT_STOPPED or (stop_after is not None and bad_in_a_row >= stop_after):
                    record.stop(cause)
                    return
            due += 1 + skipped
            # From the start each time: what a period is rounded by must not add up.
            deadline_ns = start_ns + round(due * 1e9 / loop.rate_hz)

    def write_last(self) -> None:
        """Write the failsafe action, after which the plant is left alone."""
        # Nor may the watchdog write anything else from now on, or after this what it had begun to write.
        self._held = self._loop._failsafe
        if self.watchdog is not None:
            self.watchdog.settle()
        # Twice, because a device may be about to recover; each time another array, because the plant may change it.
        for action in self._last_actions:
            self._begin()
            try:
                self._plant.write(action)
            except Exception as error:
                self._record.note(error)
            else:
                self._record.failsafe_sent = True
            finally:
                self._end()
            if self._record.failsafe_sent and not (self.watchdog is not None and self.watchdog.settle()):
                return
        if self._record.failsafe_sent:
            return
        self._record.count(Cause.PLANT_ERROR)
        if self._record.exit_code == 0 or self._record.exit_code >= 128:
            self._record.stop(Cause.PLANT_ERROR)

    def _read(self) -> Any:
        observation = None
        self._begin()
        try:
            observation = self._plant.read()
        except PlantStoppedError as error:
            self._fail(Cause.PLANT_STOPPED, error)
        except Exception as error:
            self._fail(Cause.PLANT_ERROR, error)
        if self._end() and self._cause is not Cause.PLANT_STOPPED:
            self._cause = Cause.PLANT_BLOCKED
        return observation

    def _check_age(self) -> None:
        try:
            observed_ns, now_ns = int(self._plant.observed_ns), self._clock.now_ns()  # type: ignore[attr-defined]
        except Exception as error:
            self._fail(Cause.PLANT_ERROR, error)
            return
        max_age_s = self._loop._safety.max_age_s
        # One from the future would never grow old, and all that follow would seem to go backwards.
        if observed_ns > now_ns or (self._last_observed_ns is not None and observed_ns < self._last_observed_ns):
            self._fail(Cause.BACKWARDS)
        elif max_age_s is not None and now_ns - observed_ns > max_age_s * 1e9:
            self._fail(Cause.STALE)
        else:
            self._last_observed_ns = observed_ns

    def _act(self, observation: Any) -> tuple[Any, Any]:
        """What the policy wants, if it was asked; and what is to be sent."""
        loop = self._loop
        action = chosen = None
        if self._cause is None:
            # The policy has the first look: it refuses wrong shapes, on which the range check would stumble.
            try:
                action = loop._policy.act(observation)
                if loop._in_range is not None and not loop._in_range(observation):
                    self._fail(Cause.OUT_OF_RANGE)
                else:
                    chosen = loop._limiter(self._copy(action))
            except NonFiniteObservationError:
                self._fail(Cause.NON_FINITE)
            except ObservationShapeError as error:
                # A driver that was cut short: as much the plant's failure as an exception.
                self._fail(Cause.PLANT_ERROR, error)
            except NonFiniteActionError:
                self._fail(Cause.BAD_ACTION)
        # Only now, so that a tick costs what it costs: a policy that is too slow must not seem to have become faster.
        max_missed = loop._safety.max_missed
        if max_missed is not None and self._missed_in_a_row >= max_missed:
            self._fail(Cause.MISSED)
        return action, chosen if self._cause is None else self._held

    def _write(self, action: Any) -> tuple[Any, Any]:
        """Send `action`, or what is held if that goes wrong; returns which, and what the plant says was sent."""
        sent, failed = None, False
        self._begin()
        try:
            sent = self._plant.write(self._copy(action))
        except PlantStoppedError as error:
            failed = True
            self._cause = Cause.PLANT_STOPPED
            self._record.note(error)
        except Exception as error:
            failed = True
            self._fail(Cause.PLANT_ERROR, error)
        if self._end() and self._cause is None:
            # The action reached the actuators too late to be right.
            failed = True
            self._fail(Cause.PLANT_BLOCKED)
        if failed:
            action = self._held
            self._begin()
            with contextlib.suppress(Exception):
                self._plant.write(self._copy(action))
            self._end()
        return action, sent

    def _fail(self, cause: Cause, error: Exception | None = None) -> None:
        """Something is wrong with this tick; the first cause counts."""
        self._cause = self._cause or cause
        if error is not None:
            self._record.note(error)

    def _begin(self) -> None:
        if self.watchdog is not None:
            self.watchdog.begin()

    def _end(self) -> bool:
        return self.watchdog is not None and self.watchdog.end()

    def _make_watchdog(self, safety: Safety) -> Watchdog | None:
        if safety.max_block_s is None:
            return None
        limit_ns = round(safety.max_block_s * 1e9)
        later: list[tuple[int, Callable[[], None]]] = []
        if safety.stop_after is not None:
            # A call is given the time that it would have had to fail so often one by one.
            patience_ns = round(safety.stop_after * 1e9 / self._loop.rate_hz)
            later = [(limit_ns + patience_ns, self._give_up), (limit_ns + 2 * patience_ns, self._loop._on_dead_plant)]
        return Watchdog(self._clock, limit_ns, self._write_held, later)

    def _write_held(self) -> None:
        # In a thread of the watchdog's, while the loop's is stuck in the plant: the actuators must not keep the last
        # action until it comes back, if it ever does.
        with contextlib.suppress(Exception):
            self._plant.write(self._copy(self._held))

    def _give_up(self) -> None:
        # In the watchdog's thread: the call has taken so long that the loop is over, whether or not it comes back.
        self._record.count(Cause.PLANT_BLOCKED)
        self._record.stop(Cause.PLANT_BLOCKED)
        self._stop.break_off()
