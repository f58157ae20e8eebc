"""The parts of a study's page that are of weights: how they lie, what they cost, how noisy they are, how they came."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from tfqrl.compress.report import LOG_ALPHA_BINS
from tfqrl.page import html_table, svg_grid
from tfqrl.study.outcome import Outcome
from tfqrl.study.tables import KEPT, Findings
from tfqrl.study.words import COLORS, looks_of, number, percent, with_interval


def distributions(found: Findings, outcomes: Sequence[Outcome]) -> list[str]:
    """Distributions of the baseline's weights, and what 8 bits cost."""
    shown = {outcome.task: outcome for outcome in reversed(outcomes) if outcome.method == found.baseline}
    shown = dict(sorted(shown.items(), key=lambda item: item[1].algorithm))
    if not shown:
        return []

    def draw(axes: Axes, outcome: Outcome) -> None:
        for color, weights in zip(COLORS, outcome.weights):
            density = np.array(weights.counts) / max(1, sum(weights.counts)) / max(np.diff(weights.edges)[0], 1e-12)
            axes.stairs(density, weights.edges, color=color, label=f"{weights.layer} ±{weights.deviation:.2g}")
        error = [row.error for row in found.rows if (row.task, row.method, row.recipe) == (*key(outcome), "int8")]
        after = f", int8 {percent(error[0].value)}" if error and error[0] else ""
        axes.set_title(f"{outcome.task}{after}", fontsize=9)
        axes.set_yscale("log")
        axes.set_xlabel("weight")
        axes.legend(frameon=False, fontsize=6)

    def key(outcome: Outcome) -> tuple[str, str]:
        return outcome.task, outcome.method

    return [
        "<h2>Weights by algorithm</h2>",
        svg_grid([partial(draw, outcome=outcome) for outcome in shown.values()]),
        '<p class="note">Density of each layer\'s kernel, of the first seed; ± is its standard deviation, the '
        "figure above each the relative error of int8 after training.</p>",
    ]


# Methods that take weights away one by one, and bits.
BAYESIAN = ("svd", "vnq", "qabp")


def return_by_bits(found: Findings) -> list[str]:
    """What is left of the return against what is left of the weights, where some method takes weights away."""
    rows = [row for row in found.rows if row.error is not None]
    if not any(row.compression in BAYESIAN for row in rows):
        return []
    looks = looks_of(list(dict.fromkeys(row.label for row in rows)))
    tasks = list(dict.fromkeys(row.task for row in rows))

    def draw(axes: Axes, task: str) -> None:
        axes.axhline(100 * KEPT, color="#9aa7b4", linewidth=0.8, linestyle=":")
        for row in (row for row in rows if row.task == task and row.error):
            kept, error = 100 * (1 - row.error.value), row.error
            spread = [[100 * max(0.0, error.high - error.value)], [100 * max(0.0, error.value - error.low)]]
            axes.errorbar([row.coded_bits_per_weight], [kept], spread, capsize=2, markersize=4, **looks[row.label])
        axes.set_title(task, fontsize=9)
        axes.set_xscale("log")
        axes.set_xlabel("coded bits of a weight, mean over all")
        axes.set_ylabel("% of return")
        axes.set_ylim(-20, 130)

    def legend(axes: Axes) -> None:
        for name, look in looks.items():
            axes.scatter([], [], label=name, s=14, **look)
        axes.legend(frameon=False, fontsize=7, loc="center")
        axes.set_axis_off()

    table = [
        [
            *(row.task, row.method, row.recipe, f"{1 - row.sparsity:.1%}", f"{row.bits_per_weight:.3g}"),
            f"{row.coded_bits_per_weight:.3g}",
            *(number(row.mean_return), with_interval(row.error) if row.error else "-"),
        ]
        for row in rows
    ]
    return [
        "<h2>Return against bits</h2>",
        svg_grid([*(partial(draw, task=task) for task in tasks), legend]),
        html_table(("task", "method", "recipe", "not zero", "bits", "coded", "return", "relative error"), table),
        '<p class="note">Bits: of all weights in the mean, none of what is gone; where those that are left lie, and '
        "which of them have how many, is not counted. Coded: what an ideal coder needs for all of that, at the most. "
        f"The dotted line is {KEPT:.0%} of the return.</p>",
    ]


def noise(outcomes: Sequence[Outcome]) -> list[str]:
    """How much noise beside their signal the weights of Bayesian policies have, of the first seed."""
    shown = {(o.task, o.method): o for o in reversed(outcomes) if any(layer.log_alpha for layer in o.layers)}
    if not shown:
        return []

    def draw(axes: Axes, outcome: Outcome) -> None:
        for color, layer in zip(COLORS, outcome.layers):
            if layer.log_alpha is not None:
                share = np.array(layer.log_alpha) / max(1, sum(layer.log_alpha))
                axes.stairs(100 * share, LOG_ALPHA_BINS, color=color, label=layer.layer)
        axes.set_title(f"{outcome.task}, {outcome.method}", fontsize=9)
        axes.set_xlabel("log alpha")
        axes.set_ylabel("% of weights")
        axes.legend(frameon=False, fontsize=6)

    table = [
        [
            *(o.task, o.method, str(o.seed), layer.layer, "x".join(map(str, layer.shape))),
            *(f"{layer.left / layer.weights:.1%}", f"{layer.mean_bits:.2f}", str(layer.max_bits)),
            *(f"{layer.total_bits / 8:,.0f}", f"{layer.entropy_bits / 8:,.0f}", f"{layer.macs:,}"),
        ]
        for o in sorted(shown.values(), key=lambda o: (o.task, o.method))
        for layer in o.layers
    ]
    header = ("task", "method", "seed", "layer", "kernel", "left", "bits", "most", "bytes", "coded", "macs")
    return [
        "<h2>Noise of weights, and what it leaves</h2>",
        svg_grid([partial(draw, outcome=outcome) for outcome in shown.values()]),
        html_table(header, table),
        '<p class="note">log alpha: of noise over signal, as it was trained. Bytes: of the bits of all weights; coded: '
        "by an ideal coder, which has to say where they lie, too. Macs: once dead neurons are removed.</p>",
    ]


def curves(found: Findings, outcomes: Sequence[Outcome]) -> list[str]:
    """Evaluations during training, mean over seeds."""
    tasks = [task for task in found.returns if any(o.curve for o in outcomes if o.task == task)]
    if not tasks:
        return []

    def draw(axes: Axes, task: str) -> None:
        of_task = [o for o in outcomes if o.task == task and len(o.curve) > 1]
        # What goes on from the baseline begins where that ended.
        ends = max((o.deployed_steps for o in outcomes if (o.task, o.method) == (task, found.baseline)), default=0)
        for color, method in zip(COLORS * 4, dict.fromkeys(o.method for o in of_task)):
            group = [o for o in of_task if o.method == method]
            begin = ends if any(o.begins_with for o in group) else 0
            for o in group:
                steps, returns = zip(*o.curve)
                axes.plot(np.array(steps) + begin, returns, color=color, linewidth=0.5, alpha=0.4)
            if len({tuple(step for step, _ in o.curve) for o in group}) == 1:
                mean = np.mean([[value for _, value in o.curve] for o in group], axis=0)
                axes.plot([step + begin for step, _ in group[0].curve], mean, color=color, label=html.escape(method))
        axes.set_title(task, fontsize=9)
        axes.set_xlabel("steps")
        axes.set_ylabel("return")
        axes.legend(frameon=False, fontsize=6)

    return [
        "<h2>Learning curves</h2>",
        svg_grid([partial(draw, task=task) for task in tasks]),
        '<p class="note">Returns of evaluations during training, of what would have been deployed then; thin lines are '
        "seeds. Methods that go on from the baseline are drawn behind it.</p>",
    ]
