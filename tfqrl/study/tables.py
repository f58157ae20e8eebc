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

SCHEMA_VERSION = 4

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
      coded_bits_per_weight: the same of what an ideal coder would make of the weights, which has to say where they are;
        of those trained in float at the most so much.
      max_bits: of any weight of any seed, as it is deployed.
      of_seeds: which seeds have a policy.
      each: mean return of each of their policies.
      trained_return: mean over the same seeds, before conversion.
      reference: the method whose policies, as they were trained, it is compared with: the control, if it went on from
        the baseline and is not the control itself; else the baseline.
      error: relative, to that one; None where there is none with the same seed, or `relative_error` gives none.
      model_bytes: of the models, mean over the seeds.
      deflated_bytes: of the models deflated, the same.
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
    coded_bits_per_weight: float
    max_bits: int
    of_seeds: tuple[int, ...]
    each: tuple[float, ...]
    trained_return: float | None
    reference: str
    error: Estimate | None
    model_bytes: float | None
    deflated_bytes: float | None
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
    def seeds(self) -> int:
        """Of how many trainings."""
        return len(self.each)

    @property
    def mean_return(self) -> float | None:
        """Over seeds and episodes."""
        return float(np.mean(self.each)) if self.each else None

    @property
    def weight_bits(self) -> int:
        """Of those it was trained with, or else of the recipe."""
        return self.bits or recipes.get(self.recipe).weight_bits

    def keeps(self, part: float) -> bool:
        """Whether its mean return is so large a part of the reference's."""
        return self.error is not None and self.error.value <= 1 - part

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
      error: mean of their relative errors, with the interval for these policies on these tasks.
      over_tasks: the same mean, with the interval for tasks such as these: by the spread of their errors.
      left_out: tasks without a relative error.
    """

    method: str
    recipe: str
    tasks: int
    error: Estimate
    over_tasks: Estimate
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Fewest:
    """The fewest bits of weights that keep KEPT of the return, and so does every larger number that was tried.

    Attributes:
      bits: how many.
      certain: whether all of the 95 % interval keeps as much, rather than the mean alone.
    """

    bits: int
    certain: bool


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
      schema_version: of this layout.
      title: of the study.
      command: the words of the command.
      baseline: its method that others are compared with.
      control: that which those that went on from the baseline are compared with; None if the study has none.
      returns: of the baseline as it was trained, by task: mean over seeds and episodes, with its interval over seeds,
        or over episodes where there is one seed.
      rows: everything.
      mean_errors: of the methods and recipes that are there on more than one task.
      algorithm_errors: by algorithm, those of the baseline over its tasks, if it has more than one.
      measured_on: the machine of latencies and energies; None if nothing was measured.
      lowest_bits: by task, of quantisation-aware training; None if no number of bits keeps as much.
    """

    schema_version: int
    title: str
    command: tuple[str, ...]
    baseline: str
    control: str | None
    returns: dict[str, Estimate]
    rows: tuple[Row, ...]
    mean_errors: tuple[MeanError, ...]
    algorithm_errors: dict[str, tuple[MeanError, ...]]
    measured_on: Conditions | None
    lowest_bits: dict[str, Fewest | None]


def findings(
    study: Study, outcomes: Sequence[Outcome], latency: Mapping[str, TaskLatency], command: Sequence[str]
) -> Findings:
    """What the results of a study's cells, and measurements of its tasks, say."""
    rows: list[Row] = []
    errors: dict[tuple[str, str], dict[str, RelativeError | None]] = {}
    for task in dict.fromkeys(outcome.task for outcome in outcomes):
        of_task = [outcome for outcome in outcomes if outcome.task == task]
        for method in dict.fromkeys(outcome.method for outcome in of_task):
            group = [outcome for outcome in of_task if outcome.method == method]
            reference = _reference(study, group[0], of_task)
            base = {outcome.seed: np.array(outcome.returns) for outcome in of_task if outcome.method == reference}
            for recipe in dict.fromkeys(policy.recipe for outcome in group for policy in outcome.policies):
                row, error = _row(group, recipe, reference, base, latency.get(task))
                rows.append(row)
                errors.setdefault((method, recipe), {})[task] = error
    return Findings(
        schema_version=SCHEMA_VERSION,
        title=study.title,
        command=tuple(command),
        baseline=study.baseline,
        control=study.control,
        returns={
            task: _mean_return([o for o in outcomes if (o.task, o.method) == (task, study.baseline)])
            for task in dict.fromkeys(outcome.task for outcome in outcomes if outcome.method == study.baseline)
        },
        rows=tuple(rows),
        mean_errors=_mean_errors(errors),
        algorithm_errors={
            algorithm: means
            for algorithm, tasks in _tasks_by_algorithm(rows).items()
            if (means := _mean_errors(_of_tasks(errors, study.baseline, tasks)))
        },
        measured_on=next((times.conditions for times in latency.values()), None),
        lowest_bits=_lowest_bits(rows),
    )


def _reference(study: Study, outcome: Outcome, of_task: Sequence[Outcome]) -> str:
    goes_on = outcome.begins_with is not None and outcome.algorithm != "distill" and outcome.method != study.control
    if study.control is not None and goes_on and any(other.method == study.control for other in of_task):
        return study.control
    return study.baseline


def _mean_errors(errors: Mapping[tuple[str, str], Mapping[str, RelativeError | None]]) -> tuple[MeanError, ...]:
    """By method and recipe, of errors by task, where more than one task has one."""
    return tuple(
        _mean_error(*key, found) for key, found in errors.items() if sum(e is not None for e in found.values()) > 1
    )


def _tasks_by_algorithm(rows: Sequence[Row]) -> dict[str, set[str]]:
    tasks: dict[str, set[str]] = {}
    for row in rows:
        if row.algorithm != "distill":
            tasks.setdefault(row.algorithm, set()).add(row.task)
    return tasks


def _of_tasks(
    errors: Mapping[tuple[str, str], Mapping[str, RelativeError | None]], method: str, tasks: set[str]
) -> dict[tuple[str, str], dict[str, RelativeError | None]]:
    """Those of a method on some tasks."""
    return {
        key: {task: error for task, error in found.items() if task in tasks}
        for key, found in errors.items()
        if key[0] == method
    }


def _mean_error(method: str, recipe: str, found: Mapping[str, RelativeError | None]) -> MeanError:
    errors = [error for error in found.values() if error is not None]
    return MeanError(
        method=method,
        recipe=recipe,
        tasks=len(errors),
        error=mean_relative_error(errors).estimate,
        over_tasks=mean_estimate(np.array([error.value for error in errors])),
        left_out=tuple(task for task, error in found.items() if error is None),
    )


def _row(
    group: Sequence[Outcome],
    recipe: str,
    reference: str,
    base: dict[int, np.ndarray],
    latency: TaskLatency | None,
) -> tuple[Row, RelativeError | None]:
    found = [(outcome, policy) for outcome in group for policy in outcome.policies if policy.recipe == recipe]
    made = [(outcome, np.array(policy.returns)) for outcome, policy in found if policy.returns is not None]
    pairs = [(base[outcome.seed], returns) for outcome, returns in made if outcome.seed in base]
    error = relative_error(pairs) if pairs else None
    first = group[0]
    compress = first.config.get("compress") or {}
    sizes = [policy.model_bytes for _, policy in found if policy.model_bytes is not None]
    deflated = [policy.compressed_bytes for _, policy in found if policy.compressed_bytes is not None]
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
        coded_bits_per_weight=float(np.mean([_coded_bits_per_weight(outcome, recipe) for outcome in group])),
        max_bits=max(_max_bits(outcome, recipe) for outcome in group),
        of_seeds=tuple(outcome.seed for outcome, _ in made),
        each=tuple(float(returns.mean()) for _, returns in made),
        trained_return=float(np.mean([np.mean(outcome.returns) for outcome, _ in made])) if made else None,
        reference=reference,
        error=None if error is None else error.estimate,
        model_bytes=float(np.mean(sizes)) if sizes else None,
        deflated_bytes=float(np.mean(deflated)) if deflated else None,
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


def _max_bits(outcome: Outcome, recipe: str) -> int:
    """Of what was trained in float, the recipe's."""
    width = recipes.get(recipe).weight_bits
    return max(width if layer.max_bits == FLOAT_BITS else layer.max_bits for layer in outcome.layers)


def _coded_bits_per_weight(outcome: Outcome, recipe: str) -> float:
    """Of what was trained in float, the recipe's bits of each weight that is left, and where those are."""
    spared = FLOAT_BITS - recipes.get(recipe).weight_bits
    bits = sum(
        layer.entropy_bits - (spared * layer.left if layer.max_bits == FLOAT_BITS else 0) for layer in outcome.layers
    )
    return bits / sum(layer.weights for layer in outcome.layers)


def _mean_return(group: Sequence[Outcome]) -> Estimate:
    return mean_estimate(
        np.array(group[0].returns if len(group) == 1 else [np.mean(outcome.returns) for outcome in group])
    )


def _lowest_bits(rows: Sequence[Row]) -> dict[str, Fewest | None]:
    lowest: dict[str, Fewest | None] = {}
    for task in dict.fromkeys(row.task for row in rows if row.is_qat):
        # Of several methods of one width the first: the best of more would be the luckiest.
        by_bits: dict[int, Row] = {}
        for row in rows:
            if row.task == task and row.is_qat and row.bits is not None:
                by_bits.setdefault(row.bits, row)
        lowest[task] = None
        for bits in sorted(by_bits, reverse=True):
            if not by_bits[bits].keeps(KEPT):
                break
            error = by_bits[bits].error
            lowest[task] = Fewest(bits, error is not None and error.high <= 1 - KEPT)
    return lowest
