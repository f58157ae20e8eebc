"""What is written and printed of a distributed training: where the time went, what became of the steps, the energy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from edge.conditions import Conditions
from edge.meters import Meter
from tfqrl.actorq.ledger import Account
from tfqrl.actorq.options import Distribution
from tfqrl.actorq.outcome import Training
from tfqrl.actorq.stopwatch import shares
from tfqrl.runs import VERSIONS_OF, Run

J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Energy:
    """Of a whole training.

    Attributes:
      joules: that were used; None if the meter failed.
      co2_kg: what that emits, at `grid_kg_per_kwh`.
      grid_kg_per_kwh: carbon dioxide per energy; an assumption.
      measured: false if it is an estimate.
      scope: what it is of, and how it is known.
    """

    joules: float | None
    co2_kg: float | None
    grid_kg_per_kwh: float
    measured: bool
    scope: str

    @classmethod
    def of(cls, joules: float | None, grid_kg_per_kwh: float, measured: bool, scope: str) -> Energy:
        """With its emissions."""
        co2_kg = None if joules is None else joules / J_PER_KWH * grid_kg_per_kwh
        return cls(joules, co2_kg, grid_kg_per_kwh, measured, scope)


@dataclass(frozen=True)
class Report:
    """A distributed training; RUN/actorq.json.

    Attributes:
      algorithm: that was trained.
      env: in which.
      distribution: how it was distributed.
      steps: transitions that were inserted in this call of the command.
      elapsed_s: how long that took.
      steps_per_s: of all actors together.
      updates: gradient updates of the run.
      account: what became of the run's steps.
      actors: by what they were spent on, seconds of all actors together.
      by_actor: the same of each, and those before it in its place.
      learner: the same of the learner.
      pushes: policies that were sent to the actors.
      push_bytes: size of one.
      in_place: actors wrote them over their old ones; else they built them anew.
      staleness_mean: how many updates a policy was behind when what it had done arrived.
      staleness_max: the largest of that.
      replaced: by reason, how many actors were replaced.
      learners: how many learners died and were restarted.
      energy: what it took.
      versions: of the packages that it depends on.
      conditions: the machine.
    """

    algorithm: str
    env: str
    distribution: Distribution
    steps: int
    elapsed_s: float
    steps_per_s: float
    updates: int
    account: Account
    actors: dict[str, float]
    by_actor: list[dict[str, float]]
    learner: dict[str, float]
    pushes: int
    push_bytes: int
    in_place: bool
    staleness_mean: float
    staleness_max: int
    replaced: dict[str, int]
    learners: int
    energy: Energy
    versions: dict[str, str]
    conditions: Conditions

    @classmethod
    def of(cls, run: Run, distribution: Distribution, training: Training, energy: Energy) -> Report:
        """Of what was done just now."""
        summary, spent = training.summary, training.summary.spent
        return cls(
            algorithm=run.algorithm,
            env=run.config["env"],
            distribution=distribution,
            steps=training.steps,
            elapsed_s=training.elapsed_s,
            steps_per_s=training.steps / training.elapsed_s,
            updates=summary.updates,
            account=summary.account,
            actors=spent.of_actors.spans,
            by_actor=[spent.of_actor(i).spans for i in range(distribution.actors)],
            learner=spent.learner.spans,
            pushes=spent.pushes,
            push_bytes=summary.push_bytes,
            in_place=summary.in_place,
            staleness_mean=spent.staleness,
            staleness_max=spent.stalest,
            replaced=training.replaced,
            learners=training.learners,
            energy=energy,
            versions={package: version(package) for package in (*VERSIONS_OF, "ray")},
            conditions=Conditions.now(),
        )


def energy_used(
    meter: Meter | None, before_j: float | None, training: Training, *, cpu_watts: float, grid_kg_per_kwh: float
) -> Energy:
    """What a training took, by a meter of this machine; else an estimate from the processor time of its processes.

    Args:
      meter: that measures; None if there is none that sees all of the training.
      before_j: what it said at the beginning; None if it failed then.
      training: what was done meanwhile.
      cpu_watts: assumed for each busy core, for the estimate.
      grid_kg_per_kwh: carbon dioxide per energy.
    """
    if meter is not None and before_j is not None:
        try:
            return Energy.of(meter.energy_j() - before_j, grid_kg_per_kwh, True, meter.scope)
        except OSError as error:
            return Energy.of(None, grid_kg_per_kwh, True, f"the meter failed: {error}")
    spent = training.summary.spent
    cpu_s = spent.of_actors.cpu_s + spent.learner.cpu_s
    scope = (
        f"ESTIMATE, not measured: {cpu_s:.0f} s of processor time of all processes, as far as they told, x an assumed "
        f"{cpu_watts:g} W per busy core"
    )
    return Energy.of(cpu_s * cpu_watts, grid_kg_per_kwh, False, scope)


def text(report: Report) -> str:
    """For people."""
    distribution, account, energy = report.distribution, report.account, report.energy
    lines = [
        f"{report.steps:,} steps in {report.elapsed_s:.1f} s, {report.steps_per_s:,.0f} a second by "
        f"{distribution.actors} actors in {distribution.actor_precision}; {report.updates:,} updates.",
        "",
        *_columns({"actors": report.actors, "learner": report.learner}),
        "",
        f"Policies pushed: {report.pushes:,} of {report.push_bytes:,} bytes, "
        f"{'written over the old ones' if report.in_place else 'built anew'}; what actors sent was "
        f"{report.staleness_mean:.1f} updates behind on average, {report.staleness_max} at the most.",
        f"Of {account.stepped:,} steps that were made {account.inserted:,} were inserted, {account.lost:,} lost with a "
        f"process that died, {account.refused:,} refused as not finite, {account.unfinished:,} cut off by the end"
        + ("." if account.balanced else ": THESE DO NOT ADD UP."),
    ]
    if report.replaced or report.learners:
        reasons = [f"{count} actors {reason}" for reason, count in report.replaced.items()]
        learners = [f"{report.learners} learners died"] if report.learners else []
        lines.append(f"Replaced: {', '.join(reasons + learners)}.")
    if energy.joules is None or energy.co2_kg is None:
        lines.append(f"Energy: {energy.scope}.")
    else:
        lines.append(
            f"Energy: {energy.joules / 1e3:.3g} kJ, {energy.co2_kg * 1e3:.3g} g CO2e at {energy.grid_kg_per_kwh:g} "
            f"kg/kWh ({energy.scope})."
        )
    return "\n".join(lines)


def _columns(spans: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Side by side, where the time of each went."""
    blocks = []
    for who, seconds in spans.items():
        rows = [f"  {name:<12} {seconds[name]:>9.1f} s {share:>7.1%}" for name, share in shares(seconds).items()]
        blocks.append([f"{who:<33}", *rows])
    height = max(map(len, blocks))
    padded = [block + [""] * (height - len(block)) for block in blocks]
    return ["   ".join(f"{cell:<33}" for cell in row).rstrip() for row in zip(*padded)]
