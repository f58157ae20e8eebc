"""The section of docs/RESULTS.md on the algorithms, from what benchmarks/reference_runs.py left."""

from __future__ import annotations

import re
import statistics
from typing import Any

from drawing import axes_of_curves, markdown_table, svg
from reference_runs import EPISODES, FIRST_SEED, OURS, short

SB3 = "stable-baselines3"
MISSING = "missing"
COLORS = {
    "ppo": "#c8501e",
    "a2c": "#8a6d1d",
    "dqn": "#3f7d4e",
    "ddpg": "#7a5195",
    "td3": "#2a6f97",
    "sac": "#b5446e",
    "d4pg": "#4d4d4d",
}

Results = list[dict[str, Any]]


def algorithms_section(plan: dict[str, Any], results: Results) -> list[str]:
    """Table and figures.

    Args:
      plan: reference_runs.yaml.
      results: the files in results/algorithms/.
    """
    ours = [entry for entry in plan["runs"] if entry.get("library", OURS) == OURS]
    envs = list(dict.fromkeys(entry["env"] for entry in ours))
    ordered = sorted(ours, key=lambda entry: envs.index(entry["env"]))
    results = [result for result in results if result["library"] in (OURS, SB3)]
    commits = sorted({attempt["commit"] for result in results for attempt in result["attempts"]})
    measured = f" at commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}" if commits else ""
    lines = [
        "## Algorithms",
        "",
        f"`python benchmarks/reference_runs.py --runs FOLDER`{measured}. Each run is `tfqrl train` with the zoo's "
        f"configuration (`tfqrl zoo`); then the final policy, without exploration, plays {EPISODES} episodes, the same "
        f"ones for all (seeds from {FIRST_SEED:,}). Return: mean over seeds of training, ± their standard deviation. "
        "Each: that of every seed that is here, of those planned. Steps/s: median over the seeds, of all environment "
        "steps and updates, on the cores that the result names; not a comparison. Published: with its ±, its number of "
        "steps if that is another, and its source; what that is, and what its ± means, is said in "
        "`benchmarks/reference_runs.yaml`. SB3: stable-baselines3 here, with the same settings and episodes."
        + (" A commit with +: there were changes that were not committed." if "+" in measured else ""),
        "",
        *markdown_table(
            ("environment", "algorithm", "steps", "return", "each", "published", "SB3", "steps/s"),
            [_row(entry, plan, results) for entry in ordered],
        ),
    ]
    for env in envs:
        if _curves(env, results):
            lines += ["", f"![Learning curves on {env}](figures/{figure_name(env)})"]
    return lines


def figures(results: Results) -> dict[str, str]:
    """Learning curves of every seed, a figure for each environment that has any: file names and SVG."""
    results = [result for result in results if result["library"] in (OURS, SB3)]
    envs = dict.fromkeys(result["env"] for result in results)
    return {figure_name(env): _figure(_curves(env, results)) for env in envs if _curves(env, results)}


def figure_name(env: str) -> str:
    """The file of an environment's learning curves."""
    return f"algorithms-{re.sub('[:/]', '-', env)}.svg"


def _row(entry: dict[str, Any], plan: dict[str, Any], results: Results) -> tuple[str, ...]:
    runs = _matching(entry, OURS, results)
    peers = _matching(entry, SB3, results)
    peer_planned = any(
        other.get("library") == SB3 and _task(other) == _task(entry) for other in plan["runs"] if other is not entry
    )
    return (
        entry["env"],
        " ".join([entry["algorithm"], *([f"`{entry['options']}`"] if "options" in entry else [])]),
        short(entry["steps"]),
        mean_text(runs),
        each_text(runs, len(entry["seeds"])),
        "; ".join(_published_text(figure, entry["steps"]) for figure in _published(entry, plan)) or "none",
        mean_text(peers) if peers or peer_planned else "",
        f"{statistics.median(run['steps_per_s'] for run in runs):,.0f}" if runs else MISSING,
    )


def _task(entry: dict[str, Any]) -> tuple[str, str, int, str]:
    return entry["algorithm"], entry["env"], entry["steps"], entry.get("options", "")


def _matching(entry: dict[str, Any], library: str, results: Results) -> Results:
    return [result for result in results if result["library"] == library and _task(result) == _task(entry)]


def _published(entry: dict[str, Any], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Figures at this number of steps; if there are none, those at others."""
    figures = [figure for figure in plan["published"] if _task(figure)[:2] == _task(entry)[:2]]
    return [figure for figure in figures if figure["steps"] == entry["steps"]] or figures


def mean_text(runs: Results) -> str:
    """Mean and deviation of what seeds returned."""
    means = [statistics.mean(run["returns"]) for run in runs]
    if not means:
        return MISSING
    spread = f" ± {statistics.stdev(means):.1f}" if len(means) > 1 else ""
    return f"{statistics.mean(means):.1f}{spread}"


def each_text(runs: Results, planned: int) -> str:
    """What each seed returned, and how many are missing of those that are planned."""
    means = ", ".join(f"{statistics.mean(run['returns']):.1f}" for run in runs)
    return means if len(runs) == planned else f"{means} ({len(runs)} of {planned})".lstrip()


def _published_text(figure: dict[str, Any], steps: int) -> str:
    spread = f" ± {figure['spread']}" if "spread" in figure else ""
    other = "" if figure["steps"] == steps else f" at {short(figure['steps'])}"
    return f"{figure['return']}{spread}{other} ({figure['source']})"


def _curves(env: str, results: Results) -> Results:
    return [result for result in results if result["env"] == env and result["curve"]]


def _figure(runs: Results) -> str:
    figure, axes = axes_of_curves()
    labelled = set()
    for run in sorted(
        runs,
        key=lambda run: (
            run["library"] != OURS,
            run.get("options", ""),
            list(COLORS).index(run["algorithm"]),
            run["steps"],
        ),
    ):
        peer = run["library"] != OURS
        options = run.get("options", "")
        label = ", ".join(filter(None, [run["algorithm"], short(run["steps"]), options, SB3 if peer else ""]))
        steps, returns = zip(*run["curve"])
        axes.plot(
            [step / 1e6 for step in steps],
            returns,
            color=COLORS[run["algorithm"]],
            linestyle=":" if peer else "--" if options else "-",
            # Longer trainings begin like the shorter ones: they are drawn behind them.
            alpha=0.4 if any(r["steps"] < run["steps"] and r["algorithm"] == run["algorithm"] for r in runs) else 1.0,
            label=None if label in labelled else label,
        )
        labelled.add(label)
    axes.legend(frameon=False)
    return svg(figure)
