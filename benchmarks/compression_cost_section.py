"""The section of docs/RESULTS.md on what compression costs in training, from what compression_cost.py measured."""

from __future__ import annotations

from typing import Any

from drawing import markdown_table
from training_speed_section import spread

# What is wanted of these.
BAYESIAN = {"svd": 2.0, "vnq": 2.0, "qabp": 2.0}


def compression_cost_section(result: dict[str, Any]) -> list[str]:
    """The time of a step with each method, over that in float."""
    wanted = {method: BAYESIAN.get(method, result["wanted"]) for method in (row["contender"] for row in result["rows"])}
    methods = list(dict.fromkeys(row["contender"] for row in result["rows"]))
    works = list(dict.fromkeys(row["work"] for row in result["rows"]))
    rows = {(row["work"], row["contender"]): row for row in result["rows"]}
    first, *others = methods
    above = [
        f"{work} with {method}, {rows[work, method]['tfqrl_ratio']['median']:.2f}"
        for work in works
        for method in others
        if rows[work, method]["tfqrl_ratio"]["median"] > wanted[method]
    ]
    return [
        "## What compression costs in training",
        "",
        f"`{result['command']}` at commit {result['commit']}. The same trainings as above, in float and with "
        f"`--compress`: the time of a step over that in float, by turns in one run, medians and quartiles of "
        f"{result['rounds']} blocks. Quantisation-aware training is on its grids all the time. Wanted: at most "
        f"{result['wanted']:g}, of Bayesian ones ({', '.join(BAYESIAN)}) 2; "
        + ("above it: " + "; ".join(above) + "." if above else "reached everywhere."),
        "",
        *markdown_table(
            ("training", "float, steps/s", *others),
            [
                (
                    work,
                    spread(rows[work, first]["steps_per_s"], 0),
                    *(spread(rows[work, method]["tfqrl_ratio"], 2) for method in others),
                )
                for work in works
            ],
        ),
    ]
