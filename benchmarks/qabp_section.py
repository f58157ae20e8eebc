"""The section of docs/RESULTS.md on studies/qabp.yaml, from the findings of `tfqrl study`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np
from drawing import markdown_table

from edge import report
from edge.stats import Estimate, mean_estimate
from tfqrl.study.tables import KEPT, Findings, Row
from tfqrl.study.words import number, with_interval

# What QABP is measured against, by method and recipe, as it was named before the study was run: with 90 % of the
# weights gone, and with 97 %.
RIVALS = {
    "qabp": (
        ("more", "int8"),
        ("qat-4", "int8x4"),
        ("prune-qat", "int8x4"),
        ("prune-qat-er", "int8x4"),
        ("svdpg", "int8"),
        ("vnq-90", "int8x4"),
    ),
    "qabp-97": (("prune-qat-97", "int8x4"), ("prune-qat-er-97", "int8x4")),
}
SHOWN = (
    "float",
    "more",
    "qat-4",
    "prune-qat",
    "prune-qat-er",
    "prune-qat-97",
    "prune-qat-er-97",
    "svdpg",
    "vnq",
    "vnq-90",
    *RIVALS,
)
# Each differs from qabp in one thing, or from the one that is named in DIFFERS_FROM.
ABLATED = {
    "qabp": "the method",
    "no-tuning": "no training on the fixed grid at the end: weights are rounded",
    "no-warm-up": "divergence, wished sparsity and the grid's noise count fully at once, and not more and more",
    "drawn-targets": "targets by a drawn policy, and not by the means",
    "drawn-acting": "acting by a drawn policy",
    "protected": "the first and the last layer lose nothing",
    "one-step": "one step for all layers",
    "no-controller": "a fixed weight of the divergence, over the transitions so far",
    "fixed-kl": "a fixed weight of the divergence, over 100,000 transitions whatever was learnt from",
    "last": "the last policy, and not the one that was evaluated best",
}
DIFFERS_FROM = {"fixed-kl": "no-controller"}
# Weights that are to be gone, and the most bits of one that is left.
WANTED_SPARSITY = 0.9
WANTED_BITS = 4


@dataclass(frozen=True)
class Pairing:
    """QABP against another method: the difference of their returns, over the seeds that both have."""

    ours: Row
    other: Row

    @property
    def difference(self) -> Estimate | None:
        """Of the mean returns of each seed, ours less the other's; None with fewer than two seeds."""
        ours, theirs = (dict(zip(row.of_seeds, row.each)) for row in (self.ours, self.other))
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        return mean_estimate(np.array(differences)) if len(differences) > 1 else None

    @property
    def verdict(self) -> str:
        """Who has won."""
        if self.difference is None:
            return "too few seeds yet"
        bits = "more bits, " if self.ours.coded_bits_per_weight > self.other.coded_bits_per_weight else ""
        if self.difference.value < 0:
            return bits + ("returns less" if self.difference.high < 0 else "returns less in the mean")
        return bits + ("returns more" if self.difference.low > 0 else "returns at least as much in the mean")

    @property
    def won(self) -> bool:
        """Whether QABP returns at least as much in the mean, in no more bits."""
        return self.verdict.startswith("returns") and "less" not in self.verdict


def qabp_section(found: Findings) -> list[str]:
    """What Bayesian policies keep of the return in how many bits, beside the others."""
    tasks = list(found.returns)
    pairings = [pairing for task in tasks for pairing in _pairings(found, task)]
    return [
        f"## {found.title}",
        "",
        f"`{shlex.join(found.command)}`; each training is in `results/qabp/cells/`; learning curves, return against "
        "bits and the noise of weights are in `results/qabp/report.html`. All go on from the same float policy of a "
        f"seed, the one that was evaluated best, as `{found.control}` does without compression. Bits are of a weight, "
        "in the mean over all, as papers count them: none of those that are gone, and without where the others lie, "
        "and which of them have how many. Coded: what an ideal coder needs for all of that; of `svdpg` and "
        f"`{found.control}` int8's 8 bits of each weight that is left, and where it is. Deflated: the model, as zlib "
        "compresses it. Of dense: the mean return as a "
        "part of the float policy's that all went on from; relative error: against what went on without compression, "
        "with its 95 % interval over seeds.",
        "",
        *(line for task in tasks for line in (_verdict(found, task), "")),
        *markdown_table(
            (
                "task, method",
                "recipe",
                "return",
                "of each seed",
                "of dense",
                "relative error",
                "zeros",
                "bits",
                "coded",
                "deflated",
            ),
            [_cells(found, row) for task in tasks for row in _rows(found, task, SHOWN)],
        ),
        "",
        "QABP against what is of its size, as it was named before the study was run: the difference of the returns, "
        "QABP's less the other's, with its 95 % interval over seeds, uncorrected for their number: of twenty without "
        "any difference one would lie beside 0.",
        "",
        *markdown_table(
            ("task", "QABP", "against", "difference", "coded bits", "the other's", "QABP"),
            [
                (
                    *(pairing.ours.task, pairing.ours.method, pairing.other.label),
                    "-" if pairing.difference is None else _with_interval(pairing.difference),
                    *(f"{row.coded_bits_per_weight:.3g}" for row in (pairing.ours, pairing.other)),
                    pairing.verdict,
                )
                for pairing in pairings
            ],
        ),
        "",
        *_ablation(found),
    ]


def _with_interval(estimate: Estimate) -> str:
    """A return and its interval."""
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def _rows(found: Findings, task: str, methods: tuple[str, ...]) -> list[Row]:
    return [row for method in methods for row in found.rows if (row.task, row.method) == (task, method)]


def _pairings(found: Findings, task: str) -> list[Pairing]:
    rows = {(row.method, row.recipe): row for row in found.rows if row.task == task}
    return [
        Pairing(rows[method, "int8x4"], rows[rival])
        for method, rivals in RIVALS.items()
        for rival in rivals
        if (method, "int8x4") in rows and rival in rows
    ]


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
        f"{row.coded_bits_per_weight:.3g}",
        "-" if row.deflated_bytes is None else report.size(row.deflated_bytes),
    )


def _verdict(found: Findings, task: str) -> str:
    """Whom QABP beats in no more bits, and what it keeps of the dense return."""
    pairings = _pairings(found, task)
    named, known = sum(map(len, RIVALS.values())), [pairing for pairing in pairings if pairing.difference is not None]
    if len(known) < named:
        return f"{task}: {named - len(known)} of {named} pairings are still to be measured."
    won, lost = ([pairing for pairing in known if pairing.won is which] for which in (True, False))
    above = sum(pairing.verdict == "returns more" for pairing in won)
    others = "; ".join(f"{pairing.ours.method} against {pairing.other.label}: {pairing.verdict}" for pairing in lost)
    return " ".join(
        [
            f"{task}: in no more coded bits QABP returns at least as much in the mean as the other in {len(won)} of "
            f"{named} pairings, in {above} of them with an interval above 0{f' ({others})' if others else ''}.",
            *(_kept(found, row) for row in _rows(found, task, tuple(RIVALS))),
        ]
    )


def _kept(found: Findings, row: Row) -> str:
    """What of the dense return is kept, where so much is gone as was wanted."""
    kept = (row.mean_return or 0.0) / found.returns[row.task].value
    if row.sparsity < WANTED_SPARSITY or row.max_bits > WANTED_BITS:
        return f"{row.method} has {row.sparsity:.1%} of weights gone, and up to {row.max_bits} bits: too much is left."
    return (
        f"{row.method}, with {row.sparsity:.1%} of weights gone and {row.max_bits} bits at the most, keeps {kept:.1%} "
        f"of the dense return; wanted were {KEPT:.0%}: {'reached' if kept >= KEPT else 'not reached'}."
    )


def _ablation(found: Findings) -> list[str]:
    rows = [row for row in found.rows if row.method in ABLATED]
    tasks = {row.task for row in rows if row.method not in RIVALS}
    if not tasks:
        return []
    (task,) = tasks
    variants = {row.method: row for row in _rows(found, task, tuple(ABLATED))}
    return [
        f"### What of it matters, on {task}",
        "",
        "Difference: of the return, from `qabp`'s (of `fixed-kl`, from `no-controller`'s), with its 95 % interval over "
        "seeds.",
        "",
        *markdown_table(
            (
                "variant",
                "what is different",
                "return",
                "of each seed",
                "of dense",
                "difference",
                "zeros",
                "bits",
                "coded",
                "deflated",
            ),
            [
                (method, ABLATED[method], *cells[2:5], _change(row, variants), *cells[6:])
                for method, row in variants.items()
                for cells in [_cells(found, row)]
            ],
        ),
    ]


def _change(row: Row, variants: dict[str, Row]) -> str:
    """What a variant changes in the return."""
    basis = variants.get(DIFFERS_FROM.get(row.method, "qabp"))
    difference = None if basis is None or basis is row else Pairing(row, basis).difference
    return "-" if difference is None else _with_interval(difference)
