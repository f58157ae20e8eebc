"""How fast, how large and how hungry policies are on this machine, side by side."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import energy, interpreter
from edge.coldstart import ColdStart, cold_start
from edge.conditions import Conditions, Thermal
from edge.contenders import Contender, load
from edge.energy import Energy
from edge.errors import UsageError
from edge.interpreter import Runtime
from edge.loop import ControlLoop
from edge.loop_report import LoopReport
from edge.meters import DEFAULT_CPU_WATTS, best_meter
from edge.meters.sampler import Sampler
from edge.policy import Policy
from edge.stats import Latency

SCHEMA_VERSION = 2

# The contenders take turns this often, so that a machine that grows hot or busy does so for all of them.
ROUNDS = 40
WARMUP_CALLS = 200
RATE_RUN_S = 10.0


@dataclass(frozen=True)
class Entry:
    """What was found of one contender.

    Attributes:
      name: the policy's name, or the file's.
      recipe: its conversion recipe; "-" if it is not ours.
      sha256: of its model.
      file_bytes: size of its file.
      runtime: what ran it.
      act_us: one action, from a float64 observation in the plant's units to an action, all checks included.
      invoke_us: the runtime's bare call.
      cold_start: a fresh process up to its first action.
      energy: energy per action.
      at_rate: the control loop at a fixed rate; None if it was not asked for, or the contender is not ours.
    """

    name: str
    recipe: str
    sha256: str
    file_bytes: int
    runtime: Runtime
    act_us: Latency
    invoke_us: Latency
    cold_start: ColdStart
    energy: Energy
    at_rate: LoopReport | None

    @property
    def label(self) -> str:
        """For tables, and to find the same thing in another report."""
        kind = f"in {self.runtime.name}" if self.recipe == "-" else self.recipe
        threads = "" if self.runtime.threads == 1 else f", {self.runtime.threads} threads"
        return f"{self.name} {kind}{threads}"


@dataclass(frozen=True)
class BenchReport:
    """What `bench` found.

    Attributes:
      schema_version: version of this report's layout.
      conditions: machine and versions.
      before, after: temperature and clock around the measurement.
      rounds: in how many turns the calls were timed.
      warmup: calls of each contender before.
      timer_us: median cost of reading the timer, which is included in the times.
      entries: one a contender.
    """

    schema_version: int
    conditions: Conditions
    before: Thermal
    after: Thermal
    rounds: int
    warmup: int
    timer_us: float
    entries: tuple[Entry, ...]

    @property
    def warnings(self) -> list[str]:
        """What makes the figures doubtful, a sentence each."""
        warnings = []
        throttled = {*(self.before.throttled or ()), *(self.after.throttled or ())}
        new = set(self.after.throttled_since_boot or ()) - set(self.before.throttled_since_boot or ())
        if throttled or new:
            warnings.append(
                f"The board was held back during the run ({', '.join(sorted(throttled | new))}): the times are those "
                "of a slower board. Use the official supply, cool it, and measure again."
            )
        if self.conditions.load_1min > 0.5 * self.conditions.cores:
            warnings.append(f"The machine was busy (load {self.conditions.load_1min:.2f}) before the run.")
        return warnings


def bench(
    paths: Sequence[str | Path],
    *,
    against: Sequence[tuple[str, str | Path]] = (),
    n: int = 20_000,
    threads: Sequence[int] = (1,),
    device: str = "cpu",
    trust: Sequence[str | Path] | None = None,
    rate_hz: float | None = None,
    energy_windows: int = 5,
    cpu_watts: float = DEFAULT_CPU_WATTS,
    pmic_correction: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> BenchReport:
    """Measure policies, each with each number of threads, in turns.

    Args:
      paths: policy files, each measured on its own golden observations.
      against: peers, as pairs of "onnxruntime" and a file.
      n: calls of `act` and of `invoke` to time for each.
      threads: numbers of threads.
      device: see `interpreter.build`; peers run on the processor.
      trust: see `artifact.read`.
      rate_hz: also run the control loop at this rate for ten seconds.
      energy_windows: pairs of idle and active windows, of ten seconds each, if there is a meter; 0 for none.
      cpu_watts: power per busy core to assume where there is none.
      pmic_correction: see `meters.pmic`.
      progress: told what goes on.

    Raises:
      UserError: a file that cannot be run here.
      UsageError: a number that makes no sense.
    """
    if not 100 <= n <= 10_000_000:
        raise UsageError(f"A bench takes from 100 to 10 million calls; it was given {n}.")
    if energy_windows == 1 or not 0 <= energy_windows <= 1000:
        raise UsageError(
            f"Energy takes at least 2 windows, for an interval, or 0 for none; it was given {energy_windows}."
        )
    interpreter.runtime_module()
    asked = [("tfqrl", Path(path), count, device) for path in paths for count in threads]
    asked += [(kind, Path(path), count, "cpu") for kind, path in against for count in threads]
    meter = best_meter(cpu_watts, pmic_correction=pmic_correction)
    contenders = [load(*words, trust) for words in asked]

    conditions, before = Conditions.now(), Thermal.now()
    progress("latency")
    act_ns, invoke_ns = _time_in_turns(contenders, n)
    progress("cold starts")
    cold_starts = [cold_start(*words, trust) for words in asked]
    with Sampler(meter) as sampled:
        acts = [_repeating(contender) for contender in contenders]
        if not meter.measured:
            energies = [energy.estimate(act, sampled, n) for act in acts]
        elif energy_windows == 0:
            energies = [energy.unknown(sampled, "not asked for")] * len(acts)
        else:
            energies = energy.measure(acts, sampled, windows=energy_windows, progress=progress)
    at_rate: list[LoopReport | None] = [None] * len(contenders)
    if rate_hz is not None:
        for i, (kind, path, count, where) in enumerate(asked):
            if kind == "tfqrl":
                progress(f"{contenders[i].name} at {rate_hz:g} Hz")
                policy = Policy.load(path, threads=count, device=where, trust=trust)
                with _Memory(contenders[i].observations) as plant:
                    at_rate[i] = ControlLoop(policy, plant, rate_hz=rate_hz).run(duration_s=RATE_RUN_S)
    entries = [
        Entry(c.name, c.recipe, c.sha256, c.file_bytes, c.runtime, Latency.of_ns(a), Latency.of_ns(i), *rest)
        for c, a, i, *rest in zip(contenders, act_ns, invoke_ns, cold_starts, energies, at_rate, strict=True)
    ]
    return BenchReport(
        SCHEMA_VERSION, conditions, before, Thermal.now(), ROUNDS, WARMUP_CALLS, _timer_us(), tuple(entries)
    )


def _time_in_turns(contenders: Sequence[Contender], n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Nanoseconds of `act` and of `invoke`, each (contenders, rounds, calls)."""
    calls = -(-n // ROUNDS)
    act_ns, invoke_ns = (np.zeros((len(contenders), ROUNDS, calls), np.int64) for _ in range(2))
    for contender in contenders:
        _time_calls(_repeating(contender), np.zeros(WARMUP_CALLS, np.int64))
    for turn in range(ROUNDS):
        for i, contender in enumerate(contenders):
            _time_acts(contender, act_ns[i, turn])
            _time_calls(contender.invoke, invoke_ns[i, turn])
    return act_ns, invoke_ns


def _time_acts(contender: Contender, times_ns: npt.NDArray[np.int64]) -> None:
    act, observations, count = contender.act, contender.observations, len(contender.observations)
    clock_ns = time.perf_counter_ns
    for i in range(len(times_ns)):
        observation = observations[i % count]
        start_ns = clock_ns()
        act(observation)
        times_ns[i] = clock_ns() - start_ns


def _time_calls(call: Callable[[], object], times_ns: npt.NDArray[np.int64]) -> None:
    clock_ns = time.perf_counter_ns
    for i in range(len(times_ns)):
        start_ns = clock_ns()
        call()
        times_ns[i] = clock_ns() - start_ns


def _timer_us() -> float:
    times_ns = np.zeros(2000, np.int64)
    _time_calls(lambda: None, times_ns)
    return float(np.median(times_ns)) / 1e3


def _repeating(contender: Contender) -> Callable[[], object]:
    """Acts on the next observation at each call, round and round."""
    act, observations, count, i = contender.act, contender.observations, len(contender.observations), -1

    def call() -> object:
        nonlocal i
        i = (i + 1) % count
        return act(observations[i])

    return call


class _Memory:
    """A plant whose sensors and actuators cost nothing."""

    def __init__(self, observations: list[npt.NDArray[Any]]) -> None:
        self._observations = itertools.cycle(observations)

    def reset(self) -> None:
        pass

    def read(self) -> npt.NDArray[Any]:
        return next(self._observations)

    def write(self, action: Any) -> Any:
        return action

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *details: object) -> None:
        pass
