"""The section of docs/RESULTS.md on studies/quarl.yaml, from the findings of `tfqrl study`."""

from __future__ import annotations

import shlex

from drawing import markdown_table

from edge import report
from edge.stats import Estimate
from tfqrl.study.report import fewest_bits
from tfqrl.study.tables import KEPT, Findings, MeanError, Row
from tfqrl.study.words import interval, number, percent, with_interval

GOES_ON = (
    " Where policies go on from those trained in float, the error is against `{0}`, which goes on as long without "
    "compression; the column `{0}` is its own, against the float policy."
)

# What 8 bits may cost, in the mean and on a task.
MARGIN = 0.02


def study_section(found: Findings) -> list[str]:
    """What conversion costs, how few bits are enough, and what pruning brings."""
    return [
        f"## {found.title}",
        "",
        f"`{shlex.join(found.command)}`; each training is in `results/quarl/cells/`, the report with all figures is "
        "`results/quarl/report.html`. Relative errors are of mean returns over the same episodes, against the policy "
        "as it was trained in float, before conversion; intervals of 95 % are over seeds, or over episodes where there "
        "is one seed.",
        "",
        *_conversion(found),
        "",
        *_bits(found),
        "",
        *_pruning(found),
    ]


def _conversion(found: Findings) -> list[str]:
    means = {(mean.method, mean.recipe): mean for mean in found.mean_errors}
    sentences = []
    if mean := means.get((found.baseline, "int8")):
        sentences.append(
            f"Converted to `int8` after training, the mean relative error over {mean.tasks} tasks is "
            f"{with_interval(mean.error)} for these policies, {_verdict(mean.error)} (QuaRL's table: 2 to 5 %); for "
            f"tasks such as these, by the spread of their errors, it is within {interval(mean.over_tasks)}."
        )
        if mean.left_out:
            sentences.append(f"Left out are {', '.join(mean.left_out)}, whose seeds return above and below 0.")
    sentences.append("`float32` differs from what was trained by rounding alone: its errors are those of chance.")
    plain = [row for row in found.rows if (row.method, row.recipe) == (found.baseline, "int8")]
    for row in plain:
        if row.failure is not None or (row.error is not None and row.error.value > MARGIN):
            sentences.append(_cure(row, found))
    if rejected := sum(row.rejected for row in plain):
        sentences.append(
            f"`tfqrl convert` rejects {rejected} of these {sum(row.seeds for row in plain)} policies, because their "
            "actions differ more than its tolerance allows, whatever they return."
        )
    recipes = list(dict.fromkeys(row.recipe for row in found.rows if row.method == found.baseline))
    trained = list(dict.fromkeys(row.method for row in found.rows if row.is_qat and row.bits == 8))
    table = []
    for task, value in found.returns.items():
        of_task = [row for row in found.rows if row.task == task]
        seeds = max((row.seeds for row in of_task if row.method == found.baseline), default=0)
        after = [_error(of_task, found.baseline, recipe) for recipe in recipes]
        qat = [_error(of_task, method, "int8") for method in trained]
        table.append((task, str(seeds), number(value.value), *after, *qat))
    overall = [means.get((found.baseline, recipe)) for recipe in recipes] + [means.get((m, "int8")) for m in trained]
    for algorithm, of_it in found.algorithm_errors.items():
        by_recipe = {mean.recipe: mean for mean in of_it}
        table.append((f"mean of {algorithm}", "", "", *map(_mean, map(by_recipe.get, recipes)), *("" for _ in trained)))
    table.append(("mean", "", "", *map(_mean, overall)))
    return [
        "### 8 bits",
        "",
        " ".join(sentences),
        "",
        *markdown_table(("task", "seeds", "return", *recipes, *(f"{method}, int8" for method in trained)), table),
    ]


def _mean(mean: MeanError | None) -> str:
    return "-" if mean is None else f"{with_interval(mean.error)} ({mean.tasks} tasks)"


def _verdict(error: Estimate) -> str:
    wanted = f"the {MARGIN:.0%} that were wanted"
    if error.high <= MARGIN:
        return f"all of it within {wanted}"
    return f"beyond {wanted}" if error.low > MARGIN else f"of which {wanted} are a part: neither within nor beyond"


def _cure(broken: Row, found: Findings) -> str:
    """What brings the return of a policy back that 8 bits broke, what costs least first, or that nothing does."""
    after = "cannot be made of all seeds" if broken.error is None else f"costs {with_interval(broken.error)}"
    rows = [row for row in found.rows if row.task == broken.task and row is not broken and row.keeps(1 - MARGIN)]
    kinds = (
        [row for row in rows if row.method == broken.method and row.recipe.startswith(("int", "dyn"))],
        [row for row in rows if (row.method, row.recipe) == (found.control, "int8")],
        [row for row in rows if row.is_qat and row.bits == 8],
    )
    # Those that `tfqrl convert` accepts go before those that it rejects.
    cures = sorted((row for kind in kinds for row in kind), key=lambda row: row.rejected > 0)
    if not cures:
        return f"On {broken.task} `int8` {after}, and nothing in the table cures it."
    best = cures[0]
    assert best.error is not None
    rejected = f" (rejected for {best.rejected} of {best.seeds} seeds)" if best.rejected else ""
    return f"On {broken.task} `int8` {after}; {best.method}, `{best.recipe}`, {with_interval(best.error)}{rejected}."


def _bits(found: Findings) -> list[str]:
    rows = [row for row in found.rows if row.bits is not None and row.bits < 8]
    methods = list(dict.fromkeys(row.method for row in rows))
    table = []
    for task in found.returns:
        of_task = [row for row in found.rows if row.task == task]
        fewest = min((row.weight_bits for row in of_task if row.weight_bits <= 8 and row.keeps(KEPT)), default=None)
        control = [] if found.control is None else [_error(of_task, found.control, "float32")]
        errors = [_error([row for row in rows if row.task == task], method) for method in methods]
        table.append((task, *control, *errors, fewest_bits(found, task), "none" if fewest is None else str(fewest)))
    goes_on = "" if found.control is None else GOES_ON.format(found.control)
    return [
        "### Fewer bits",
        "",
        f"Weights and activations of so many bits; observations and actions have 8.{goes_on} The last columns are the "
        f"fewest bits that keep {KEPT:.0%} of the return: by quantisation-aware training, at which and above which so "
        "much is kept, in brackets where the mean keeps it but not all of the interval; and by any method at all, 8 "
        "bits after training among them, by the mean. QuaRL found 5 to 6 bits to be enough, Kresse & Lampert (2025) 3 "
        "on most MuJoCo tasks, with more for observations.",
        "",
        *markdown_table(
            ("task", *([] if found.control is None else [found.control]), *methods, "fewest", "of any"), table
        ),
    ]


def _pruning(found: Findings) -> list[str]:
    table = []
    pruned = [row for row in found.rows if row.compression == "prune"]
    for row in pruned:
        same = [other for other in found.rows if (other.task, other.recipe) == (row.task, row.recipe)]
        # What went on has the normaliser that it went on with, if it did.
        dense = next((other for other in same if other.method == row.reference), None)
        times = "-"
        if dense is not None and row.act_us is not None and dense.act_us is not None:
            times = f"{row.act_us.value:.1f} / {dense.act_us.value:.1f}"
        sizes = "-"
        if dense is not None and row.model_bytes is not None and dense.model_bytes is not None:
            sizes = f"{report.size(row.model_bytes)} / {report.size(dense.model_bytes)}"
        error = "-" if row.error is None else with_interval(row.error)
        table.append((row.task, row.method, row.recipe, f"{row.sparsity:.0%}", error, sizes, times))
    machine = found.measured_on
    where = "" if machine is None else f" ({machine.cpu})"
    return [
        "### Pruning",
        "",
        *(_pruned(method, pruned) for method in dict.fromkeys(row.method for row in pruned)),
        "Zeros that are scattered make no smaller matrices, so they cost as much time as other weights; whole neurons "
        "are taken out by the converter. Models, and times of an action of the lowest seed's in "
        f"microseconds{where}: pruned / dense.",
        "",
        *markdown_table(("task", "method", "recipe", "zeros", "relative error", "model", "act p50"), table),
    ]


def _pruned(method: str, rows: list[Row]) -> str:
    """On which tasks so much is kept, as trained in float."""
    recipe = next(row.recipe for row in rows if row.method == method)
    of_method = [row for row in rows if (row.method, row.recipe) == (method, recipe)]
    kept = [row.task for row in of_method if row.keeps(KEPT)]
    lost = [
        f"{row.task} ({'-' if row.error is None else percent(row.error.value)})"
        for row in of_method
        if not row.keeps(KEPT)
    ]
    return (
        f"`{method}` (`{recipe}`) keeps {KEPT:.0%} of the return on {', '.join(kept) or 'none'}"
        + (f"; not on {', '.join(lost)}" if lost else "")
        + "."
    )


def _error(rows: list[Row], method: str, recipe: str | None = None) -> str:
    errors = [row.error for row in rows if row.method == method and recipe in (None, row.recipe)]
    return with_interval(errors[0]) if errors and errors[0] is not None else "-"
