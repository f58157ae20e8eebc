"""Draw docs/RESULTS.md and its figures from the data in results/: `make results`."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"


def main() -> None:
    """Write the page and its figures."""
    (DOCS / "figures").mkdir(exist_ok=True)
    (DOCS / "figures" / "ppo_vs_sb3.svg").write_text(ppo_figure(load("ppo_vs_sb3")))
    (DOCS / "RESULTS.md").write_text(page())


def page() -> str:
    """The page as Markdown."""
    return "\n".join(
        [
            "# Results",
            "",
            "Drawn from `results/` by `make results`; do not edit. Each section names the command that measured it.",
            "",
            *act_section(load("act_overhead")),
            "",
            *ppo_section(load("ppo_vs_sb3")),
            "",
            *rollout_section(load("rollout")),
            "",
        ]
    )


def load(name: str) -> dict[str, Any]:
    """The data of one measurement."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def measured_by(result: dict[str, Any]) -> str:
    """The command and the commit."""
    return f"`{result['command']}` at commit {result['commit']}."


def act_section(result: dict[str, Any]) -> list[str]:
    """What `act` costs beside the bare interpreter."""
    rows = result["rows"]
    conditions = rows[0]["conditions"]
    runtime = conditions["runtime"]
    return [
        "## What `edge.Policy.act` costs",
        "",
        f"{measured_by(result)} Medians over {result['blocks']} interleaved blocks of {result['calls']} calls, "
        f"microseconds. Bare: `set_tensor`, `invoke`, `get_tensor`. Wanted: at most 1.5.",
        "",
        *markdown_table(
            ("network", "recipe", "bare", "act", "ratio", "5 % .. 95 % of blocks"),
            [
                (
                    row["network"],
                    row["recipe"],
                    f"{row['bare_us']:.2f}",
                    f"{row['act_us']:.2f}",
                    f"{row['ratio']:.2f}",
                    " .. ".join(f"{value:.2f}" for value in row["ratio_p5_p95"]),
                )
                for row in rows
            ],
        ),
        "",
        f"{conditions['cpu']}, {conditions['cores']} cores, {runtime['name']} {runtime['version']}, "
        f"{runtime['threads']} thread, Python {conditions['python']}, numpy {conditions['numpy']}.",
    ]


def ppo_section(result: dict[str, Any]) -> list[str]:
    """PPO against stable-baselines3."""
    rows = []
    for library, trainings in by_library(result).items():
        returns = [statistics.mean(training["returns"]) for training in trainings]
        rows.append(
            (
                library,
                f"{statistics.median(t['steps_per_s'] for t in trainings):.0f}",
                f"{statistics.median(t['steady_steps_per_s'] for t in trainings):.0f}",
                f"{statistics.mean(returns):.0f}",
                ", ".join(f"{value:.0f}" for value in returns),
            )
        )
    ratios, versions = result["ratios"], result["versions"]
    return [
        "## PPO on HalfCheetah-v5 against stable-baselines3",
        "",
        f"{measured_by(result)} The same settings, 16 environments, one run, alternating. Environment steps per "
        "second, median over seeds, with and without the start (compilation); return of the final policy's most likely "
        "action over 20 episodes, the same for both.",
        "",
        *markdown_table(("library", "steps/s", "without start", "mean return", "by seed"), rows),
        "",
        f"Ratio of speeds {ratios['steps_per_s']:.1f}, without the start {ratios['steady_steps_per_s']:.1f}; "
        "wanted: at least 2, and a return not below by more than the spread of the seeds.",
        "",
        "![Learning curves](figures/ppo_vs_sb3.svg)",
        "",
        ", ".join(f"{name} {number}" for name, number in versions.items())
        + f"; {result['machine']['cpu']}, {result['machine']['cores']} cores.",
    ]


def rollout_section(result: dict[str, Any]) -> list[str]:
    """Ways of stepping and acting."""
    acting = list(dict.fromkeys(row["acting"] for row in result["rows"]))
    stepping = list(dict.fromkeys(row["stepping"] for row in result["rows"]))
    times = {
        (row["stepping"], row["acting"]): "{:.1f} ({:.1f} .. {:.1f})".format(row["step_us"], *row["quartiles_us"])
        for row in result["rows"]
    }
    return [
        "## Where the time of a rollout goes",
        "",
        f"{measured_by(result)} 16 copies of HalfCheetah-v5, a 64-64 policy; microseconds per environment step, "
        f"median over {result['blocks']} blocks in turns, and quartiles. Columns: what computes the action. "
        "What threads bring depends on the second core being free; on a shared machine it is not always.",
        "",
        *markdown_table(("stepping", *acting), [(way, *(times[way, act] for act in acting)) for way in stepping]),
    ]


def ppo_figure(result: dict[str, Any]) -> str:
    """Learning curves of every seed."""
    matplotlib.rcParams["svg.hashsalt"] = "tfqrl"
    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    colors = {"tfqrl": "#c8501e", "stable-baselines3": "#7a8896"}
    for library, trainings in by_library(result).items():
        for i, training in enumerate(trainings):
            steps, returns = zip(*training["curve"])
            millions = [step / 1e6 for step in steps]
            axes.plot(millions, returns, color=colors[library], label=None if i else library)
    axes.set_xlabel("million environment steps")
    axes.set_ylabel("mean return of the last\n100 training episodes")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return buffer.getvalue()


def by_library(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Trainings by library, in the order of the file."""
    libraries: dict[str, list[dict[str, Any]]] = {}
    for training in result["trainings"]:
        libraries.setdefault(training["library"], []).append(training)
    return libraries


def markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table, numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


if __name__ == "__main__":
    main()
