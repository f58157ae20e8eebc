"""The section of docs/RESULTS.md on studies/quarl.yaml, from the findings of `tfqrl study`."""

from __future__ import annotations

import shlex

from drawing import markdown_table

from edge import report
from tfqrl.study.report import number, percent, with_interval
from tfqrl.study.tables import KEPT, Findings, Row

# What 8 bits may cost, in the mean and on a task.
MARGIN = 0.02


def study_section(found: Findings) -> list[str]:
    """What conversion costs, how few bits are enough, and what pruning brings."""
    return [
        f"## {found.title}",
        "",
        f"`{shlex.join(found.command)}`; each training is in `results/quarl/cells/`, the report with all figures is "
        "`results/quarl/report.html`. Relative errors are of mean returns over the same episodes, against the policy "
        "as it was trained in float; intervals of 95 % are over seeds, or over episodes where there is one seed.",
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
        kept = "within" if mean.error.value <= MARGIN else "beyond"
        sentences.append(
            f"Converted to `int8` after training, the mean relative error over {mean.tasks} tasks is "
            f"{with_interval(mean.error)}, {kept} the {MARGIN:.0%} that were wanted (QuaRL's table: 2 to 5 %)."
        )
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
        after = [_error(of_task, found.baseline, recipe) for recipe in recipes]
        table.append((task, number(value.value), *after, *(_error(of_task, method, "int8") for method in trained)))
    overall = [means.get((found.baseline, recipe)) for recipe in recipes] + [means.get((m, "int8")) for m in trained]
    table.append(("mean", "", *("-" if mean is None else with_interval(mean.error) for mean in overall)))
    return [
        "### 8 bits",
        "",
        " ".join(sentences),
        "",
        *markdown_table(("task", "return", *recipes, *(f"{method}, int8" for method in trained)), table),
    ]


def _cure(broken: Row, found: Findings) -> str:
    """What brings the return of a policy back that 8 bits broke, or that nothing does."""
    after = "cannot be made of all seeds" if broken.error is None else f"costs {percent(broken.error.value)}"
    cures = [
        row
        for row in found.rows
        if row.task == broken.task
        and row is not broken
        and row.error is not None
        and row.error.value <= MARGIN
        and ((row.is_qat and row.bits == 8) or (row.method == broken.method and row.recipe.startswith(("int", "dyn"))))
    ]
    if not cures:
        return f"On {broken.task} `int8` {after}, and nothing in the table cures it."
    best = min(cures, key=lambda row: row.error.value if row.error else 0.0)
    assert best.error is not None
    return f"On {broken.task} `int8` {after}; {best.method}, `{best.recipe}`, {percent(best.error.value)}."


def _bits(found: Findings) -> list[str]:
    rows = [row for row in found.rows if row.bits is not None and row.bits < 8]
    methods = list(dict.fromkeys(row.method for row in rows))
    table = []
    for task in found.returns:
        of_task = [row for row in rows if row.task == task]
        fewest = [row.bits for row in of_task if row.bits and row.error and row.error.value <= 1 - KEPT]
        table.append(
            (
                task,
                *(_error(of_task, method) for method in methods),
                str(found.lowest_bits.get(task) or "-"),
                str(min(fewest, default="-")),
            )
        )
    return [
        "### Fewer bits",
        "",
        "Weights and activations of so many bits; observations and actions have 8. The last columns are the fewest "
        f"bits that keep {KEPT:.0%} of the return, by quantisation-aware training alone, and by any method. QuaRL "
        "found 5 to 6 bits to be enough, Kresse & Lampert (2025) 3 on most MuJoCo tasks, with more for observations.",
        "",
        *markdown_table(("task", *methods, "fewest", "of any"), table),
    ]


def _pruning(found: Findings) -> list[str]:
    table = []
    for row in found.rows:
        if row.compression != "prune":
            continue
        same = [other for other in found.rows if (other.task, other.recipe) == (row.task, row.recipe)]
        dense = next((other for other in same if other.method == found.baseline), None)
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
        "Zeros that are scattered make no smaller matrices, so they cost as much time as other weights; whole neurons "
        f"are taken out by the converter. Models and times of an action in microseconds{where}: pruned / dense.",
        "",
        *markdown_table(("task", "method", "recipe", "zeros", "relative error", "model", "act p50"), table),
    ]


def _error(rows: list[Row], method: str, recipe: str | None = None) -> str:
    errors = [row.error for row in rows if row.method == method and recipe in (None, row.recipe)]
    return with_interval(errors[0]) if errors and errors[0] is not None else "-"
