"""How fast, how large and how hungry policies are on this machine, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import energy, interpreter, session
from edge.coldstart import ColdStart, cold_start
from edge.conditions import Conditions, Thermal
from edge.contenders import Contender, load
from edge.energy import Energy
from edge.errors import UsageError, UserError
from edge.interpreter import Runtime
from edge.loop import ControlLoop, check_rate
from edge.loop_report import LoopReport
from edge.meters import DEFAULT_CPU_WATTS, Meter, find_meter
from edge.meters.sampler import Sampler
from edge.plants.memory import MemoryPlant
from edge.policy import Policy
from edge.session import Asked
from edge.stats import Latency

SCHEMA_VERSION = 2

RATE_RUN_S = 10.0


class BenchStoppedError(UserError):
    """The control loop at a fixed rate did not run to its end: by a signal, or because it could not act."""

    def __init__(self, name: str, loop: LoopReport) -> None:
        """The exit code is that of the signal, if it was one."""
        super().__init__(
            f"{name} at {loop.rate_hz:g} Hz was stopped by {loop.stopped_by}; the bench ends here and writes nothing."
        )
        self.exit_code = loop.exit_code if loop.exit_code > 128 else 1


@dataclass(frozen=True)
class Entry:
    """What was found of one contender.

    Attributes:
      label: for tables, and to find the same thing in another report; no two in a report are the same.
      name: the policy's name, or the file's.
      recipe: its conversion recipe; "-" if it is not ours.
      sha256: of its model.
      file_bytes: size of its file.
      runtime: what ran it.
      act_us: one action, from a float64 observation in the plant's units, or a frame of uint8, to an action, all checks
        included.
      invoke_us: the runtime's bare call.
      cold_start: a fresh process up to its first action.
      energy: energy per action.
      at_rate: the control loop at a fixed rate; None if it was not asked for, or the contender is not ours.
    """

    label: str
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


@dataclass(frozen=True)
class BenchReport:
    """What `bench` found.

    Attributes:
      schema_version: version of this report's layout.
      conditions: machine and versions.
      before, after: temperature and clock around the measurement.
      sessions: fresh processes in which the calls were timed.
      rounds: turns that the contenders took in each.
      warmup: calls of each contender before, in each.
      clock_us: median cost of reading the clock, which is included in the times.
      clock_step_us: the smallest step in which the clock counts; the intervals are widened by it.
      entries: one a contender.
    """

    schema_version: int
    conditions: Conditions
    before: Thermal
    after: Thermal
    sessions: int
    rounds: int
    warmup: int
    clock_us: float
    clock_step_us: float
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
    meter: str = "auto",
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
      meter: see `meters.find_meter`.
      cpu_watts: power per busy core to assume where there is none.
      pmic_correction: see `meters.pmic`.
      progress: told what goes on.

    Raises:
      UserError: a file that cannot be run here, or a meter that is not here.
      UsageError: a number that makes no sense.
      BenchStoppedError: the control loop did not run to its end.
    """
    if not 100 <= n <= 10_000_000:
        raise UsageError(f"A bench takes from 100 to 10 million calls; it was given {n}.")
    if energy_windows != 0 and not energy.MIN_WINDOWS <= energy_windows <= 1000:
        raise UsageError(
            f"Energy takes from {energy.MIN_WINDOWS} to 1000 windows, for an interval, or 0 for none; it was given "
            f"{energy_windows}."
        )
    if rate_hz is not None:
        check_rate(rate_hz)
    interpreter.runtime_module()
    asked: list[Asked] = [("tfqrl", Path(path), count, device) for path in paths for count in threads]
    asked += [(kind, Path(path), count, "cpu") for kind, path in against for count in threads]
    asked = list(dict.fromkeys(asked))
    found = find_meter(meter, cpu_watts, pmic_correction=pmic_correction)
    contenders = [load(*words, trust) for words in asked]
    labels = _labels(contenders, asked)

    conditions, before = Conditions.now(), Thermal.now()
    clock_ns, step_ns = session.clock_ns()
    act_ns, invoke_ns = session.time_in_sessions(asked, trust, n, progress)
    cold_starts = []
    for label, words in zip(labels, asked):
        progress(f"cold start: {label}")
        cold_starts.append(cold_start(*words, trust))
    energies = _energies(contenders, found, n, energy_windows, progress)
    at_rate: list[LoopReport | None] = [None] * len(contenders)
    if rate_hz is not None:
        for i, (kind, path, count, where) in enumerate(asked):
            if kind == "tfqrl":
                progress(f"{labels[i]} at {rate_hz:g} Hz")
                policy = Policy.load(path, threads=count, device=where, trust=trust)
                with MemoryPlant(contenders[i].observations) as plant:
                    loop = ControlLoop(policy, plant, rate_hz=rate_hz).run(duration_s=RATE_RUN_S)
                if loop.exit_code:
                    raise BenchStoppedError(labels[i], loop)
                at_rate[i] = loop
    entries = [
        Entry(
            label=labels[i],
            name=contender.name,
            recipe=contender.recipe,
            sha256=contender.sha256,
            file_bytes=contender.file_bytes,
            runtime=contender.runtime,
            act_us=Latency.of_ns(act_ns[i], step_ns),
            invoke_us=Latency.of_ns(invoke_ns[i], step_ns),
            cold_start=cold_starts[i],
            energy=energies[i],
            at_rate=at_rate[i],
        )
        for i, contender in enumerate(contenders)
    ]
    return BenchReport(
        schema_version=SCHEMA_VERSION,
        conditions=conditions,
        before=before,
        after=Thermal.now(),
        sessions=session.SESSIONS,
        rounds=session.ROUNDS,
        warmup=session.WARMUP_CALLS,
        clock_us=clock_ns / 1e3,
        clock_step_us=step_ns / 1e3,
        entries=tuple(entries),
    )


def _labels(contenders: Sequence[Contender], asked: Sequence[Asked]) -> list[str]:
    labels = []
    for contender, (_, _, threads, device) in zip(contenders, asked):
        kind = f"in {contender.runtime.name}" if contender.recipe == "-" else contender.recipe
        where = "" if device == "cpu" else f", {device}"
        labels.append(f"{contender.name} {kind}{where}" + ("" if threads == 1 else f", {threads} threads"))
    # Policies of the same name and recipe, from two trainings, say: told apart by their files' names, or else paths.
    for more in (lambda path: path.stem, str):
        taken = list(labels)
        labels = [
            f"{label} ({more(path)})" if taken.count(label) > 1 else label
            for label, (_, path, _, _) in zip(taken, asked)
        ]
    return labels


def _energies(
    contenders: Sequence[Contender], meter: Meter | None, n: int, windows: int, progress: Callable[[str], None]
) -> list[Energy]:
    if meter is None:
        return [energy.unknown(None, "not asked for")] * len(contenders)
    with Sampler(meter) as sampled:
        acts = [_repeating(contender) for contender in contenders]
        if not meter.measured:
            progress("energy")
            return [energy.estimate(act, sampled, n) for act in acts]
        if windows == 0:
            return [energy.unknown(sampled, "not asked for")] * len(contenders)
        return energy.measure(acts, sampled, windows=windows, progress=progress)


def _repeating(contender: Contender) -> Callable[[], object]:
    """Acts on the next observation at each call, round and round."""
    act, observations, count, i = contender.act, contender.observations, len(contender.observations), -1

    def call() -> object:
        nonlocal i
        i = (i + 1) % count
        return act(observations[i])

    return call
