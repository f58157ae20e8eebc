"""The section of docs/RESULTS.md on studies/qabp.yaml, from the findings of `tfqrl study`."""

from __future__ import annotations

import shlex

from drawing import markdown_table

from tfqrl.study.tables import KEPT, Findings, Row
from tfqrl.study.words import number, with_interval

OURS = ("qabp", "qabp-97")
OTHERS = ("float", "qat-4", "prune-qat", "prune-qat-97", "svdpg", "vnq")
# Each differs from qabp in one thing; fixed-kl from no-controller.
ABLATED = {
    "qabp": "the method",
    "no-tuning": "no training on the fixed grid at the end: weights are rounded",
    "no-warm-up": "the divergence counts fully at once, and not more and more until half of the training",
    "drawn-targets": "targets by a drawn policy, and not by the means",
    "drawn-acting": "acting by a drawn policy",
    "protected": "the first and the last layer lose nothing",
    "one-step": "one step for all layers",
    "no-controller": "a fixed weight of the divergence, over the transitions so far",
    "fixed-kl": "a fixed weight of the divergence, over 100,000 transitions whatever was learnt from",
    "last": "the last policy, and not the one that was evaluated best",
}
# Weights that are to be gone.
WANTED_SPARSITY = 0.9


def qabp_section(found: Findings) -> list[str]:
    """What Bayesian policies keep of the return in how many bits, beside the others."""
    tasks = list(found.returns)
    return [
        f"## {found.title}",
        "",
        f"`{shlex.join(found.command)}`; each training is in `results/qabp/cells/`; learning curves, return against "
        "bits and the noise of weights are in `results/qabp/report.html`. All go on from the same float policy of a "
        f"seed, as `{found.control}` does without compression. Bits are of a weight, in the mean over all, of which "
        "those that are gone have none: total bits without where weights lie. Of dense: the mean return as a part of "
        "the float policy's that all went on from; relative error: against what went on without compression, with its "
        "95 % interval over seeds.",
        "",
        " ".join(_verdict(found, task) for task in tasks),
        "",
        *markdown_table(
            ("task, method", "recipe", "return", "of each seed", "of dense", "relative error", "zeros", "bits"),
            [_cells(found, row) for task in tasks for row in _rows(found, task, (*OTHERS, *OURS))],
        ),
        "",
        *_ablation(found),
    ]


def _rows(found: Findings, task: str, methods: tuple[str, ...]) -> list[Row]:
    return [row for method in methods for row in found.rows if (row.task, row.method) == (task, method)]


def _cells(found: Findings, row: Row) -> tuple[str, ...]:
    return (
        f"{row.task}: {row.method}",
        row.recipe,
        number(row.mean_return),
        ", ".join(map(number, row.each)) or "-",
        "-" if row.mean_return is None else f"{row.mean_return / found.returns[row.task].value:.1%}",
        "-" if row.error is None else with_interval(row.error),
        f"{row.sparsity:.1%}",
        f"{row.bits_per_weight:.3g}",
    )


def _verdict(found: Findings, task: str) -> str:
    """Whether some QABP of no more bits returns at least as much as each other, and what it keeps."""
    ours = [row for row in _rows(found, task, OURS) if row.mean_return is not None]
    if not ours:
        return f"{task}: QABP is missing."
    dense = found.returns[task].value
    unbeaten = []
    others = [row for row in _rows(found, task, OTHERS) if row.mean_return is not None and row.recipe != "float32"]
    for other in others:
        smaller = [row for row in ours if row.bits_per_weight <= other.bits_per_weight]
        best = max((row.mean_return or 0.0 for row in smaller), default=None)
        if best is None:
            unbeaten.append(f"{other.label} has fewer bits than each of them")
        elif best < (other.mean_return or 0.0):
            unbeaten.append(f"{other.label} returns {number(other.mean_return)}, QABP of no more bits {number(best)}")
    pruned = [row for row in ours if row.sparsity >= WANTED_SPARSITY and row.bits_per_weight <= 4]
    kept = max(((row.mean_return or 0.0) / dense for row in pruned), default=0.0)
    reached = "reached" if kept >= KEPT else "not reached"
    beats = "QABP of no more bits returns at least as much as every other compressed policy"
    return (
        f"{task}: {'; '.join(unbeaten) or beats}. With {WANTED_SPARSITY:.0%} of weights gone it keeps {kept:.1%} of "
        f"the dense return; wanted were {KEPT:.0%}: {reached}."
    )


def _ablation(found: Findings) -> list[str]:
    rows = [row for row in found.rows if row.method in ABLATED]
    tasks = {row.task for row in rows if row.method not in OURS}
    if not tasks:
        return []
    (task,) = tasks
    return [
        f"### What of it matters, on {task}",
        "",
        *markdown_table(
            ("variant", "what is different", "return", "of each seed", "of dense", "zeros", "bits"),
            [
                (row.method, ABLATED[row.method], *cells[2:5], *cells[6:])
                for row in _rows(found, task, tuple(ABLATED))
                for cells in [_cells(found, row)]
            ],
        ),
    ]
