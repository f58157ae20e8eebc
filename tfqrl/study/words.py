"""How a study's numbers are written, and its methods drawn."""

from __future__ import annotations

from collections.abc import Sequence

from edge.stats import Estimate

COLORS = ("#c8501e", "#2c6e91", "#5a8f3c", "#8a5a9e", "#b08a1e", "#4a4f57", "#c04a7a", "#3a9a94")
MARKERS = "osD^v<>P"


def looks_of(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Color and marker of each, no two alike."""
    return {
        name: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i // len(COLORS) % len(MARKERS)]}
        for i, name in enumerate(names)
    }


def number(value: float | None) -> str:
    """A return for people."""
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def interval(estimate: Estimate) -> str:
    """The interval of a relative error."""
    return f"[{percent(estimate.low)}, {percent(estimate.high)}]"


def with_interval(estimate: Estimate) -> str:
    """A relative error with its interval."""
    return f"{percent(estimate.value)} {interval(estimate)}"


def percent(value: float) -> str:
    """With its sign, but for what is no different from zero."""
    text = f"{value:+.1%}"
    return "0.0%" if text in ("+0.0%", "-0.0%") else text
