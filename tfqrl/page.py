"""HTML pages that need nothing from outside: their style, tables and figures."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #d5dce4; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
p.note { color: #5a6a7a; font-size: .9rem; } .verdict { font-weight: 600; }
svg { width: 100%; height: auto; } .figures { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }
@media (max-width: 76rem) { table { display: block; overflow-x: auto; } }
@media (max-width: 44rem) { .figures { grid-template-columns: 1fr; } }
"""


def page(title: str, body: str) -> str:
    """A page of this style."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
{body}
</body></html>
"""


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def svg(draw: Callable[[Axes], None], width: float = 4.8) -> str:
    """A figure, `width` inches wide."""
    figure, axes = pyplot.subplots(figsize=(width, 2.8), layout="constrained")
    draw(axes)
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    pyplot.close(figure)
    # Only the element itself: a page may not hold the XML prologue.
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def svg_grid(draws: Sequence[Callable[[Axes], None]]) -> str:
    """Figures beside each other."""
    return '<div class="figures">' + "\n".join(f"<div>{svg(draw)}</div>" for draw in draws) + "</div>"
