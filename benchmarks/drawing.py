"""Tables and figures of docs/RESULTS.md."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table, numbers to the right."""
    if any(len(row) != len(header) for row in rows):
        raise ValueError(f"rows have {sorted({len(row) for row in rows})} cells, and the header {len(header)}")
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def axes_of_curves() -> tuple[Figure, Axes]:
    """An empty figure for learning curves."""
    matplotlib.rcParams["svg.hashsalt"] = "tfqrl"
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    axes.set_xlabel("million environment steps")
    axes.set_ylabel("mean return of the last\n100 training episodes")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg(figure: Figure) -> str:
    """The figure, which is closed; equal figures are equal text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return buffer.getvalue()
