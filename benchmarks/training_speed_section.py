"""The section of docs/RESULTS.md on how fast trainings are, from what training_speed.py measured."""

from __future__ import annotations

from typing import Any

from drawing import markdown_table

# The part of a bare matrix product's operations per second that SAC's update should reach.
WANTED_ARITHMETIC = 0.7


def training_speed_section(result: dict[str, Any]) -> list[str]:
    """Steps per second beside the peers', and what the parts reach by themselves."""
    rows, floors, versions = result["rows"], result["floors"], result["versions"]
    short = [row for row in rows if row["wanted"] and row["tfqrl_ratio"]["median"] < row["wanted"]]
    return [
        "## Training speed",
        "",
        f"`{result['command']}` at commit {result['commit']}. Environment steps per second in the steady state "
        "(without random steps at the beginning, compilation and the first updates), with the same settings and "
        "networks; all that a training does counts, except checkpoints of tfqrl. Each training is a process with "
        f"{result['threads']} cores and threads; they take turns, block by block, {result['rounds']} of each: medians "
        "and quartiles. tfqrl makes 32 updates a call (DQN 8) where nothing else is said, and acts by weights that are "
        "at most so many updates old; 1 update a call is what SBX and stable-baselines3 do by default. Faster by: "
        "tfqrl's speed over that of the row, in the same round.",
        "",
        *markdown_table(
            ("training", "steps/s", "tfqrl faster by", "wanted", ""),
            [training_row(row) for row in rows],
        ),
        "",
        "Everything is as fast as wanted."
        if not short
        else "Slower than wanted: "
        + "; ".join(
            f"{row['work']} against {row['contender']}, {row['tfqrl_ratio']['median']:.2f} of {row['wanted']:g}"
            for row in short
        )
        + ".",
        "",
        "### What the parts reach",
        "",
        *arithmetic_lines(floors["arithmetic"]),
        "",
        "Environments alone, with random actions drawn before:",
        "",
        *markdown_table(
            ("environment", "steps/s"),
            [(name, spread(values, 0)) for name, values in floors["stepping_steps_per_s"].items()],
        ),
        "",
        "Where the time of a step goes in a training of tfqrl with SAC, with 32 updates a call; microseconds. The "
        "loop: what is none of the others, such as copying observations.",
        "",
        *markdown_table(("part", "us"), [(name, spread(values, 1)) for name, values in floors["sac_step_us"].items()]),
        "",
        ", ".join(f"{name} {number}" for name, number in versions.items())
        + f"; {result['machine']['cpu']}, {result['machine']['cores']} cores, load before "
        + f"{result['machine']['load_1min']:.2f}.",
    ]


def training_row(row: dict[str, Any]) -> tuple[str, ...]:
    """One training."""
    ratio, wanted = row["tfqrl_ratio"], row["wanted"]
    reached = "" if wanted is None else "reached" if ratio["median"] >= wanted else "not reached"
    return (
        f"{row['work']}, {row['contender']}",
        spread(row["steps_per_s"], 0),
        "" if row["contender"] == "tfqrl" else spread(ratio, 2),
        "" if wanted is None else f"{wanted:g}",
        reached,
    )


def arithmetic_lines(arithmetic: dict[str, Any]) -> list[str]:
    """The update of SAC beside a bare matrix product."""
    ratio = arithmetic["SAC update / product"]["median"]
    reached = "reached" if ratio >= WANTED_ARITHMETIC else "not reached"
    return [
        "The update of SAC alone, 32 of them a call, beside a compiled loop of products of 256 x 256 matrices in "
        "float32, in turns. Operations are those of the update's matrix products, counted from their shapes "
        "(`benchmarks/training_floors.py`). Wanted: at least "
        f"{WANTED_ARITHMETIC:g} of the product's operations per second; {reached}.",
        "",
        *markdown_table(("", "median (quartiles)"), [(name, spread(values, 2)) for name, values in arithmetic.items()]),
    ]


def spread(values: dict[str, Any], digits: int) -> str:
    """A summary's median, and its quartiles in brackets."""
    low, high = values["quartiles"]
    return f"{values['median']:.{digits}f} ({low:.{digits}f} .. {high:.{digits}f})"
