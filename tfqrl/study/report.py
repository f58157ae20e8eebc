"""A study's report: text for the terminal, and one HTML page."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from functools import partial

from matplotlib.axes import Axes

from edge import report
from tfqrl.page import html_table, page, svg_grid
from tfqrl.study import weight_sections as sections
from tfqrl.study.outcome import Outcome
from tfqrl.study.tables import KEPT, Fewest, Findings, Row
from tfqrl.study.words import COLORS, interval, looks_of, number, with_interval

# % of return, below which a figure shows no more.
LOWEST = -20

HEADER = (
    *("task", "method", "recipe", "as trained", "return", "of each seed", "against", "relative error", "model"),
    *("zeros", "bits", "act p50"),
)


def text(found: Findings, failures: dict[str, str]) -> str:
    """For a terminal."""
    lines = [report.table(HEADER, [cells(row) for row in found.rows]), *sentences(found)]
    if failures:
        lines += ["", f"{len(failures)} cells were not done:", *(f"{name}: {why}" for name, why in failures.items())]
    return "\n".join(lines)


def cells(row: Row) -> list[str]:
    """A row of the table of everything."""
    return [
        row.task,
        row.method,
        row.recipe,
        number(row.trained_return),
        number(row.mean_return),
        ", ".join(map(number, row.each)) or "-",
        row.reference,
        "-" if row.error is None else with_interval(row.error),
        "-" if row.model_bytes is None else report.size(row.model_bytes),
        f"{row.sparsity:.0%}",
        f"{row.bits_per_weight:.3g}",
        "-" if row.act_us is None else f"{row.act_us.value:.2f} us",
    ]


def sentences(found: Findings) -> list[str]:
    """What is found, in words."""
    lines = []
    for mean in found.mean_errors:
        lines.append(
            f"{mean.method}, {mean.recipe}: mean relative error over {mean.tasks} tasks {with_interval(mean.error)} "
            f"for these policies, {interval(mean.over_tasks)} for tasks such as these."
            + (f" Without {', '.join(mean.left_out)}: no relative error." if mean.left_out else "")
        )
    lines += [f"{task}: {_fewest(fewest)}" for task, fewest in found.lowest_bits.items()]
    for row in (row for row in found.rows if row.failure is not None):
        lines.append(f"{row.task}, {row.method}, {row.recipe} was not made: {row.failure}")
    for row in (row for row in found.rows if row.incomplete > 0):
        lines.append(
            f"{row.task}, {row.method}, {row.recipe}: {row.incomplete} of {row.seeds} seeds are not as small as they "
            "were to be."
        )
    for row in (row for row in found.rows if row.rejected > 0):
        lines.append(
            f"{row.task}, {row.method}: `tfqrl convert` rejects {row.recipe} of {row.rejected} of {row.seeds} seeds."
        )
    return lines


def _fewest(fewest: Fewest | None) -> str:
    if fewest is None:
        return f"trained on grids, none of the widths that were tried keeps {KEPT:.0%} of the return."
    by = "with its whole interval" if fewest.certain else "by its mean; the interval reaches below"
    return f"trained on grids, {fewest.bits} bits are the fewest that keep {KEPT:.0%} of the return, {by}."


def study_page(found: Findings, outcomes: Sequence[Outcome], missing: int) -> str:
    """The report as HTML that needs nothing from outside."""
    episodes = len(outcomes[0].returns)
    done = f"{len(outcomes)} trainings"
    if missing:
        done += f"; {missing} are missing"
    parts = [
        f"<h1>{html.escape(found.title)}</h1>",
        f'<p class="verdict">{done}. Each policy played {episodes} episodes, the same ones for all.</p>',
        *_bullets(sentences(found)),
        *_conversion(found),
        *_qat(found),
        *_others(found),
        *sections.distributions(found, outcomes),
        *sections.return_by_bits(found),
        *sections.noise(outcomes),
        *sections.curves(found, outcomes),
        *_pareto(found),
        "<h2>Everything</h2>",
        html_table(HEADER, [cells(row) for row in found.rows]),
        '<p class="note">As trained: the mean return before conversion. Relative error: what the mean return is below '
        f"that of the method that it stands against, as it was trained, over the same seeds and episodes: "
        f"{html.escape(found.baseline)}, or what goes on from it without compression. Its 95 % interval is over seeds; "
        "with one seed it is over episodes, and says nothing of other trainings. float32 differs from what was trained "
        "by rounding alone: its errors are what chance makes of a task. Bits: of a weight, in the mean over all, of "
        "which those that are gone have none.</p>",
        "<h2>Conditions</h2>",
        *_conditions(outcomes, found),
    ]
    return page(found.title, "\n".join(parts))


def _bullets(lines: Sequence[str]) -> list[str]:
    return ["<ul>", *(f"<li>{html.escape(line)}</li>" for line in lines), "</ul>"]


def _conversion(found: Findings) -> list[str]:
    """Conversion after training: the baseline's recipes beside each other."""
    recipes = list(dict.fromkeys(row.recipe for row in found.rows if row.method == found.baseline))
    rows = []
    for task, value in found.returns.items():
        of_task = {row.recipe: row for row in found.rows if (row.task, row.method) == (task, found.baseline)}
        errors = [
            with_interval(error) if (row := of_task.get(recipe)) and (error := row.error) else "-" for recipe in recipes
        ]
        rows.append([task, f"{number(value.value)} [{number(value.low)}, {number(value.high)}]", *errors])
    overall = [mean for mean in found.mean_errors if mean.method == found.baseline]
    by_algorithm = ((f"mean of {algorithm}", means) for algorithm, means in found.algorithm_errors.items())
    for name, means in (*by_algorithm, ("mean", overall)):
        cells_of = {mean.recipe: f"{with_interval(mean.error)}, {mean.tasks} tasks" for mean in means}
        if cells_of:
            rows.append([name, "", *(cells_of.get(recipe, "-") for recipe in recipes)])
    return [
        "<h2>Conversion after training: relative error of the return</h2>",
        html_table(("task", "return as trained", *recipes), rows),
    ]


def _qat(found: Findings) -> list[str]:
    rows = [row for row in found.rows if row.is_qat and row.error is not None]
    if not rows:
        return []
    tasks = list(dict.fromkeys(row.task for row in rows))
    widths = sorted({row.bits for row in rows if row.bits is not None}, reverse=True)

    def draw(axes: Axes, task: str) -> None:
        lines = [row for row in rows if row.task == task]
        axes.axhline(100, color="#9aa7b4", linewidth=0.8)
        axes.axhline(100 * KEPT, color="#9aa7b4", linewidth=0.8, linestyle=":")
        families = _families(lines)
        for color, (name, group) in zip(COLORS, families.items()):
            group = sorted(group, key=lambda row: row.bits or 0)
            kept = [100 * (1 - row.error.value) for row in group if row.error]
            spread = [
                [max(0.0, 100 * (row.error.high - row.error.value)) for row in group if row.error],
                [max(0.0, 100 * (row.error.value - row.error.low)) for row in group if row.error],
            ]
            axes.errorbar(
                [row.bits or 0 for row in group], kept, spread, color=color, marker="o", capsize=2, label=name
            )
        axes.set_title(task, fontsize=9)
        axes.set_xticks(widths)
        axes.set_xlabel("bits of weights")
        axes.set_ylabel("% of return")
        # Far beyond this error bars say no more.
        lowest = min(100 * (1 - row.error.value) for row in lines if row.error)
        axes.set_ylim(min(LOWEST, lowest - 10), 130)
        if len(families) > 1:
            axes.legend(frameon=False, fontsize=7)

    def cell(task: str, bits: int) -> str:
        fitting = [row for row in rows if row.task == task and row.bits == bits]
        texts = [with_interval(row.error) for row in fitting if row.error]
        if len(texts) > 1:
            texts = [f"{row.method} {text}" for row, text in zip(fitting, texts)]
        return "; ".join(texts) or "-"

    table = [[task, *(cell(task, bits) for bits in widths), fewest_bits(found, task)] for task in tasks]
    header = ("task", *(f"{bits} bits" for bits in widths), f"fewest for {KEPT:.0%}")
    return [
        "<h2>Quantisation-aware training: return by bits</h2>",
        svg_grid([partial(draw, task=task) for task in tasks]),
        html_table(header, table),
        '<p class="note">Of weights and activations; observations and actions have the bits that the study says. The '
        f"dotted line is {KEPT:.0%} of the return that they are compared with. The fewest bits are those at which, and "
        "above which, so much is kept; in brackets where the mean keeps it, but not all of the interval.</p>",
    ]


def fewest_bits(found: Findings, task: str) -> str:
    """For a table: in brackets where it is not certain."""
    if task not in found.lowest_bits:
        return "-"
    fewest = found.lowest_bits[task]
    if fewest is None:
        return "none"
    return str(fewest.bits) if fewest.certain else f"({fewest.bits})"


def _families(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Methods whose names differ in their number of bits alone."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.method.replace(str(row.bits), ""), []).append(row)
    return families


def _others(found: Findings) -> list[str]:
    rows = [row for row in found.rows if row.method != found.baseline and not row.is_qat]
    if not rows:
        return []
    return ["<h2>Other methods</h2>", html_table(HEADER, [cells(row) for row in rows])]


def _pareto(found: Findings) -> list[str]:
    """Return against size, latency and energy."""
    rows = [row for row in found.rows if row.error is not None and row.model_bytes is not None]
    if not rows:
        return []
    methods = list(dict.fromkeys(row.label for row in rows))
    looks = looks_of(methods)

    def draw(axes: Axes, label: str, cost: Callable[[Row], float | None]) -> None:
        for method, look in looks.items():
            points = [
                (x, max(LOWEST, 100 * (1 - row.error.value)))
                for row in rows
                if row.label == method and row.error and (x := cost(row)) is not None
            ]
            if points:
                axes.scatter(*zip(*points), s=14, **look)
        costs = [x for row in rows if (x := cost(row))]
        if costs and max(costs) > 10 * min(costs):
            axes.set_xscale("log")
        axes.set_ylim(LOWEST - 5, None)
        axes.set_xlabel(label)
        axes.set_ylabel("% of return")

    def legend(axes: Axes) -> None:
        for method, look in looks.items():
            axes.scatter([], [], label=method, s=14, **look)
        axes.legend(frameon=False, fontsize=7, ncols=2, loc="center")
        axes.set_axis_off()

    table = [
        [
            row.task,
            row.method,
            row.recipe,
            f"{1 - row.error.value:.1%}" if row.error else "-",
            report.size(row.model_bytes),
            "-" if row.act_us is None else f"{row.act_us.value:.2f} us",
            "-" if row.energy is None else report.energy_cell(row.energy),
            f"{row.rejected} of {row.seeds}" if row.rejected else "",
        ]
        for row in _best(rows)
    ]
    scopes = sorted({row.energy.scope for row in rows if row.energy is not None})
    return [
        "<h2>Return against size, latency and energy</h2>",
        svg_grid(
            [
                lambda axes: draw(axes, "kB of the model", lambda row: row.model_bytes and row.model_bytes / 1000),
                lambda axes: draw(axes, "microseconds an action", lambda row: row.act_us and row.act_us.value),
                lambda axes: draw(axes, "microjoules an action", _microjoules),
                legend,
            ]
        ),
        f'<p class="note">Each point is a policy on a task; what keeps less than {LOWEST} % is drawn there. Those that '
        "no other of their task betters, or equals, in mean return, size and latency:</p>",
        html_table(("task", "method", "recipe", "return kept", "model", "act p50", "energy/action", "rejected"), table),
        f'<p class="note">act: one call of <code>edge.Policy.act</code> on the last machine below. Energy: '
        f"{html.escape('; '.join(scopes) or 'not measured')}</p>",
    ]


def _microjoules(row: Row) -> float | None:
    if row.energy is None:
        return None
    # What was measured is above idle; an estimate knows nothing of idling.
    if row.energy.measured:
        return None if row.energy.net_j is None else 1e6 * row.energy.net_j.value
    return None if row.energy.gross_j is None else 1e6 * row.energy.gross_j


def _best(rows: Sequence[Row]) -> list[Row]:
    """Those that no other one of their task is at least as good as in everything, and better in something."""

    def costs(row: Row) -> tuple[float, float, float]:
        error, act_us = row.error, row.act_us
        return (
            math.inf if error is None else error.value,
            row.model_bytes or math.inf,
            math.inf if act_us is None else act_us.value,
        )

    def beaten(row: Row) -> bool:
        mine, others = costs(row), [costs(other) for other in rows if other.task == row.task]
        return any(theirs != mine and all(b <= a for a, b in zip(mine, theirs)) for theirs in others)

    return [row for row in rows if not beaten(row)]


def _conditions(outcomes: Sequence[Outcome], found: Findings) -> list[str]:
    lines = [f"Made by: {' '.join(found.command)}"]
    for conditions in dict.fromkeys((o.conditions.board, o.conditions.cpu, o.conditions.cores) for o in outcomes):
        lines.append("{}; {}, {} cores.".format(*conditions))
    if found.measured_on is not None:
        machine = found.measured_on
        lines.append(f"Latency and energy: {machine.board}; {machine.cpu}, {machine.cores} cores.")
    for versions in dict.fromkeys(tuple(outcome.versions.items()) for outcome in outcomes):
        lines.append(", ".join(f"{package} {version}" for package, version in versions) + ".")
    hours = sum(outcome.training_s for outcome in outcomes) / 3600
    lines.append(f"{hours:.1f} core-hours of training.")
    return [f'<p class="note">{html.escape(line)}</p>' for line in lines]
