"""The tables of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters import recipe as recipes
from edge.conditions import Conditions
from edge.energy import Energy
from edge.stats import Estimate, mean_estimate
from tfqrl.compress.report import FLOAT_BITS
from tfqrl.study.estimates import RelativeError, mean_relative_error, relative_error
from tfqrl.study.latency import TaskLatency
from tfqrl.study.outcome import Outcome
from tfqrl.study.plan import Study

SCHEMA_VERSION = 2

# Of the float policy's return.
KEPT = 0.97


@dataclass(frozen=True)
class Row:
    """A method and recipe on a task.

    Attributes:
      task, algorithm, method, recipe: which.
      compression: the method of `tfqrl train --compress`; None without.
      bits: of the weights, where those were trained on a grid; None elsewhere.
      sparsity: part of the weights that is zero, mean over the seeds.
      bits_per_weight: mean over all weights, those that are gone too, and over the seeds.
      seeds: of how many trainings.
      mean_return: over all episodes.
      error: relative, to the baseline as it was trained; None where there is none with the same seed, or it returns 0.
      model_bytes: of the models, mean over the seeds.
      act_us: median of one action, in microseconds; None if it was not measured.
      energy: of an action; None if it was not looked at.
      rejected: of how many seeds `tfqrl convert` would have rejected it.
      incomplete: of how many seeds it is not as compressed as it was to be.
      failure: why there is no policy of some seed; None if there are all.
    """

    task: str
    algorithm: str
    method: str
    recipe: str
    compression: str | None
    bits: int | None
    sparsity: float
    bits_per_weight: float
    seeds: int
    mean_return: float | None
    error: Estimate | None
    model_bytes: float | None
    act_us: Estimate | None
    energy: Energy | None
    rejected: int
    incomplete: int
    failure: str | None

    @property
    def label(self) -> str:
        """Method and recipe."""
        return f"{self.method}, {self.recipe}"

    @property
    def is_qat(self) -> bool:
        """Whether it is quantisation-aware training of the task's own algorithm, and not of a student."""
        return self.compression == "qat" and self.algorithm != "distill"


@dataclass(frozen=True)
class MeanError:
    """What a method and recipe cost, over tasks.

    Attributes:
      method, recipe: which.
      tasks: how many.
      error: mean of their relative errors.
    """

    method: str
    recipe: str
    tasks: int
    error: Estimate


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
      schema_version: of this layout.
      title: of the study.
      command: the words of the command.
      baseline: its method that others are compared with.
      returns: of the baseline as it was trained, by task: mean over seeds and episodes, with its interval over seeds,
        or over episodes where there is one seed.
      rows: everything.
      mean_errors: of the methods and recipes that are there on more than one task.
      measured_on: the machine of latencies and energies; None if nothing was measured.
      lowest_bits: by task, the fewest bits at which quantisation-aware training keeps KEPT of the return; None if no
        number does.
    """

    schema_version: int
    title: str
    command: tuple[str, ...]
    baseline: str
    returns: dict[str, Estimate]
    rows: tuple[Row, ...]
    mean_errors: tuple[MeanError, ...]
    measured_on: Conditions | None
    lowest_bits: dict[str, int | None]


def findings(
    study: Study, outcomes: Sequence[Outcome], latency: Mapping[str, TaskLatency], command: Sequence[str]
) -> Findings:
    """What the results of a study's cells, and measurements of its tasks, say."""
    baseline = study.baseline
    rows: list[Row] = []
    errors: dict[tuple[str, str], list[RelativeError]] = {}
    for task in dict.fromkeys(outcome.task for outcome in outcomes):
        of_task = [outcome for outcome in outcomes if outcome.task == task]
        base = {outcome.seed: np.array(outcome.returns) for outcome in of_task if outcome.method == baseline}
        for method in dict.fromkeys(outcome.method for outcome in of_task):
            group = [outcome for outcome in of_task if outcome.method == method]
            for recipe in dict.fromkeys(policy.recipe for outcome in group for policy in outcome.policies):
                row, error = _row(group, recipe, base, latency.get(task))
                rows.append(row)
                if error is not None:
                    errors.setdefault((method, recipe), []).append(error)
    return Findings(
        schema_version=SCHEMA_VERSION,
        title=study.title,
        command=tuple(command),
        baseline=baseline,
        returns={
            task: _mean_return([outcome for outcome in outcomes if (outcome.task, outcome.method) == (task, baseline)])
            for task in dict.fromkeys(outcome.task for outcome in outcomes if outcome.method == baseline)
        },
        rows=tuple(rows),
        mean_errors=tuple(
            MeanError(*key, len(found), mean_relative_error(found).estimate)
            for key, found in errors.items()
            if len(found) > 1
        ),
        measured_on=next((times.conditions for times in latency.values()), None),
        lowest_bits=_lowest_bits(rows),
    )


def _row(
    group: Sequence[Outcome], recipe: str, base: dict[int, np.ndarray], latency: TaskLatency | None
) -> tuple[Row, RelativeError | None]:
    found = [(outcome, policy) for outcome in group for policy in outcome.policies if policy.recipe == recipe]
    made = [(outcome, np.array(policy.returns)) for outcome, policy in found if policy.returns is not None]
    pairs = [(base[outcome.seed], returns) for outcome, returns in made if outcome.seed in base]
    error = relative_error(pairs) if pairs else None
    first = group[0]
    compress = first.config.get("compress") or {}
    sizes = [policy.model_bytes for _, policy in found if policy.model_bytes is not None]
    key = first.method, recipe
    timed = {} if latency is None else {(timed.method, timed.recipe): timed.entry for timed in latency.policies}
    failures = [policy.failure for _, policy in found if policy.failure is not None]
    row = Row(
        task=first.task,
        algorithm=first.algorithm,
        method=first.method,
        recipe=recipe,
        compression=compress.get("method"),
        bits=compress.get("weight_bits"),
        sparsity=float(np.mean([_sparsity(outcome) for outcome in group])),
        bits_per_weight=float(np.mean([_bits_per_weight(outcome, recipe) for outcome in group])),
        seeds=len(made),
        mean_return=float(np.mean([returns.mean() for _, returns in made])) if made else None,
        error=None if error is None else error.estimate,
        model_bytes=float(np.mean(sizes)) if sizes else None,
        act_us=timed[key].act_us.p50 if key in timed else None,
        energy=timed[key].energy if key in timed else None,
        rejected=sum(policy.rejection is not None for _, policy in found),
        incomplete=sum(not outcome.complete for outcome in group),
        failure=failures[0] if failures else None,
    )
    return row, error


def _sparsity(outcome: Outcome) -> float:
    sizes = [np.prod(weights.shape) for weights in outcome.weights]
    return float(np.average([weights.zeros for weights in outcome.weights], weights=sizes))


def _bits_per_weight(outcome: Outcome, recipe: str) -> float:
    """Of what was trained in float, the recipe's bits of each weight that is left."""
    width = recipes.get(recipe).weight_bits
    bits = sum(layer.left * width if layer.max_bits == FLOAT_BITS else layer.total_bits for layer in outcome.layers)
    return bits / sum(layer.weights for layer in outcome.layers)


def _mean_return(group: Sequence[Outcome]) -> Estimate:
    if len(group) == 1:
        return mean_estimate(np.array(group[0].returns))
    return mean_estimate(np.array([np.mean(outcome.returns) for outcome in group]))


def _lowest_bits(rows: Sequence[Row]) -> dict[str, int | None]:
    lowest: dict[str, int | None] = {}
    for row in rows:
        if row.is_qat:
            best = lowest.setdefault(row.task, None)
            if row.error is not None and row.error.value <= 1 - KEPT and row.bits is not None:
                lowest[row.task] = row.bits if best is None else min(best, row.bits)
    return lowest
