"""The demo's report."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from edge.bench import BenchReport
from edge.loop_report import LoopReport
from edge.stats import Histogram
from tfqrl.page import html_table, page, svg

COLORS = {"float32": "#9aa7b4", "int8": "#c8501e"}


@dataclass(frozen=True)
class DemoFigures:
    """What the page shows.

    Attributes:
      env: the task.
      curve: (steps, mean return of the last 100 training episodes).
      loop: the real-time run.
      bench: float and int8 policy side by side.
      header: of the table.
      rows: of the table, one a recipe.
      verdict: one sentence.
    """

    env: str
    curve: Sequence[tuple[float, float]]
    loop: LoopReport
    bench: BenchReport
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdict: str


def demo_page(figures: DemoFigures) -> str:
    """The page as HTML that needs nothing from outside."""
    loop, first = figures.loop, figures.bench.entries[0]
    conditions = figures.bench.conditions
    failsafes = sum(loop.failsafes.values())
    machine = (
        f"{conditions.board}; {conditions.cpu}, {conditions.cores} cores, governor "
        f"{conditions.governor or 'not shown'}, load {conditions.load_1min:.2f}. {conditions.kernel}, "
        f"Python {conditions.python}, numpy {conditions.numpy}, tfqrl {conditions.tfqrl}, "
        f"{first.runtime}."
    )
    body = f"""<h1>tfqrl demo: {html.escape(figures.env)}</h1>
<p class="verdict">{html.escape(figures.verdict)}</p>
{html_table(figures.header, figures.rows)}
<p class="note">Return: mean over paired episodes; difference: converted minus float on the same seeds.
act: one call of <code>edge.Policy.act</code>, all checks included ({first.act_us.percentiles.n} calls).
Energy: {html.escape(first.energy.scope)}. Memory: a whole process with one policy in it.</p>
<h2>Learning</h2>
{svg(lambda axes: _draw_curve(axes, figures.curve), width=9.6)}
<div class="figures">
<div><h2>Latency of act</h2>{svg(lambda axes: _draw_latency(axes, figures.bench))}</div>
<div><h2>Control loop at {loop.rate_hz:g} Hz: wake-up latency</h2>
{svg(lambda axes: _draw_jitter(axes, loop.wake_latency_histogram))}</div>
</div>
<p class="note">The loop ran {loop.ticks} ticks in {loop.duration_s:.1f} s, missed {loop.missed_periods} periods and
applied the failsafe action {failsafes} times.</p>
<h2>Conditions</h2><p class="note">{html.escape(machine)}</p>"""
    return page(f"tfqrl demo: {figures.env}", body)


def _draw_curve(axes: Axes, curve: Sequence[tuple[float, float]]) -> None:
    axes.plot([steps / 1e6 for steps, _ in curve], [value for _, value in curve], color=COLORS["int8"])
    axes.set_xlabel("million environment steps")
    axes.set_ylabel("mean return of the last\n100 training episodes")


def _draw_latency(axes: Axes, bench: BenchReport) -> None:
    for entry in bench.entries:
        _draw_histogram(axes, entry.act_us.histogram, COLORS[entry.recipe], entry.recipe)
    axes.set_xlim(0, max(entry.act_us.percentiles.p99_9 for entry in bench.entries) * 1.05)
    axes.set_xlabel("microseconds, up to p99.9")
    axes.set_ylabel("calls")
    axes.legend(frameon=False)


def _draw_jitter(axes: Axes, histogram: Histogram) -> None:
    _draw_histogram(axes, histogram, COLORS["int8"], "int8")
    axes.set_xlabel("microseconds after the deadline, up to p99.9")
    axes.set_ylabel("ticks")


def _draw_histogram(axes: Axes, histogram: Histogram, color: str, label: str) -> None:
    # The last bin is the slowest thousandth, which would stretch the axis.
    axes.stairs(histogram.counts[:-1], histogram.edges_us[:-1], color=color, label=label, fill=True, alpha=0.7)
