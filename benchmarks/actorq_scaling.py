"""Draw the tables of docs/actorq-scaling.md from results/: `make results`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from actorq_model import Costs, on_shared_cores, saturating_actors, simulate, throughput
from drawing import markdown_table

from tfqrl.actorq.options import Distribution
from tfqrl.agents.d4pg import D4PGConfig

# Between these the page is drawn.
BEGIN, END = "<!-- drawn by `make results`; do not edit -->", "<!-- end of what is drawn -->"
# What it is drawn from; without the last it has no check by whole trainings.
NEEDED, CHECKED = ("actorq_actors", "actorq_learner"), "actorq"
TASK = "dmc:walker-stand"
RATIOS = (0.25, 1.0, 4.0, 16.0)
PRECISIONS = ("float32", "float16", "int8")
# How many actors there are where a number is needed, and how much faster a learner with a device of its own would
# make updates than these cores: an assumption.
ACTORS, FASTER = 16, 20.0
MESSAGES = 200
GBIT = 1e9 / 8

Measured = dict[str, dict[str, Any]]


def costs(
    hidden: list[int], precision: str, ratio: float, actors: int, measured: Measured, *, faster: float = 1.0
) -> Costs:
    """Of a training with this network; `measured` are results by name."""
    acting = next(row for row in measured["actorq_actors"]["results"] if (row["task"], row["hidden"]) == (TASK, hidden))
    actor = next(row["us_per_step"] for row in acting["actors"] if row["actor"] == precision)
    learner = _learner(hidden, measured)
    us = {name: spread["median"] for name, spread in learner["us"].items()}
    message_us = measured["actorq_learner"]["message_us"]
    push_every = measured["actorq_actors"]["push_every"]
    config = D4PGConfig(env=TASK)
    distribution = Distribution(actors=actors, push_every=push_every, samples_per_insert=ratio)
    return Costs(
        step_s=(actor["environment"] + actor["inference"] + actor["assembly"]) / 1e6,
        send_s=message_us["send"]["median"] / 1e6,
        take_s=(actor["pull"] + actor["load"]) / 1e6 * push_every,
        receive_s=message_us["receive"]["median"] / 1e6,
        update_s=(us["sample"] + us["update"] / faster) / 1e6,
        call_s=us["call"] / 1e6,
        publish_s=us[f"publish {precision}"] / 1e6,
        cores=learner["cores"]["median"],
        push_every=push_every,
        samples_per_insert=ratio,
        batch_size=config.batch_size,
        updates_per_call=distribution.updates_per_call(config),
    )


def drawn(measured: Measured) -> list[str]:
    """The tables, as Markdown, from results by name."""
    networks = [row["hidden"] for row in measured["actorq_learner"]["results"]]
    check = [] if CHECKED not in measured else ["", *_check_table(measured)]
    return [
        *_costs_table(networks, measured),
        "",
        *_scaling_table(networks, measured),
        "",
        *_bytes_table(networks, measured),
        *check,
    ]


def _costs_table(networks: list[list[int]], measured: Measured) -> list[str]:
    rows = []
    for hidden in networks:
        for precision in PRECISIONS:
            it = costs(hidden, precision, 1.0, ACTORS, measured)
            us = (it.step_s, it.take_s, it.send_s, it.receive_s, it.update_s, it.call_s, it.publish_s)
            rows.append((f"{_name(hidden)}, {precision}", *(f"{seconds * 1e6:,.0f}" for seconds in us)))
    commands = [measured[name]["command"] for name in NEEDED]
    return [
        f"Microseconds, d4pg on {TASK}: of an actor alone on its core, the mean of `{commands[0]}`; of the learner "
        f"alone on two cores, and of a message the processor time on either side, the medians of `{commands[1]}`. An "
        "update is with the batch that is drawn for it.",
        "",
        *markdown_table(
            ("network", "step", "take a policy", "send", "receive", "update", "call", "make a policy"), rows
        ),
    ]


def _scaling_table(networks: list[list[int]], measured: Measured) -> list[str]:
    rows = []
    for hidden in networks:
        for ratio in RATIOS:
            here = {name: costs(hidden, name, ratio, ACTORS, measured) for name in PRECISIONS}
            fast = {name: costs(hidden, name, ratio, ACTORS, measured, faster=FASTER) for name in PRECISIONS}
            simulated = simulate(fast["int8"], ACTORS, MESSAGES)
            rows.append(
                (
                    f"{_name(hidden)}, {ratio:g}",
                    *(f"{saturating_actors(here[name]):.1f}" for name in ("float32", "int8")),
                    *(f"{saturating_actors(fast[name]):.1f}" for name in ("float32", "int8")),
                    f"{throughput(fast['int8'], ACTORS) / throughput(fast['float32'], ACTORS):.2f}",
                    f"{here['float32'].actor_step_s / here['int8'].actor_step_s:.2f}",
                    f"{throughput(fast['int8'], ACTORS):,.0f}",
                    f"{simulated.steps_per_s:,.0f}",
                    f"{simulated.staleness:.1f}",
                )
            )
    return [
        f"From how many actors on the learner is what limits, as it is here and with updates {FASTER:g} times as fast "
        f"(an assumption, for a learner with a device of its own), with as many updates to a call as {ACTORS} actors "
        f"have. With the fast learner and {ACTORS} actors: how much faster int8 is than float32, beside the same where "
        "nobody waits for a learner; steps a second with int8, of the formula and of a simulation of "
        f"{MESSAGES} messages of each actor; and how many updates old a policy is there when what it has done arrives.",
        "",
        *markdown_table(
            (
                *("network, samples per insert", "float32 saturates", "int8 saturates"),
                *(f"float32, {FASTER:g}x", f"int8, {FASTER:g}x", f"int8 / float32, {ACTORS} actors"),
                *("without a learner", "steps/s, formula", "simulated", "staleness"),
            ),
            rows,
        ),
    ]


def _bytes_table(networks: list[list[int]], measured: Measured) -> list[str]:
    rows = []
    up_bytes = measured["actorq_learner"]["transition_bytes"]
    for hidden in networks:
        for precision in PRECISIONS:
            it = costs(hidden, precision, 1.0, ACTORS, measured)
            size = _learner(hidden, measured)["push_bytes"][precision]
            call_s = it.updates_per_call * it.update_s + it.call_s + it.publish_s
            down, up = size / max(it.push_every * it.actor_step_s, call_s), up_bytes / it.actor_step_s
            rows.append(
                (
                    f"{_name(hidden)}, {precision}",
                    f"{size:,}",
                    f"{down / 1e6:.1f}",
                    f"{up / 1e6:.2f}",
                    f"{GBIT / max(down, up):,.1f}",
                )
            )
    return [
        "What goes over a network at the worst: an actor takes every policy that the learner here can make (at one "
        "sample per insert), as long as that is not more than one with each message, and none of them shares it with "
        "another one on its machine (they do, where they ask for the same). Megabytes a second from the learner and to "
        "it, and for how many actors its link of 1 Gbit/s is enough.",
        "",
        *markdown_table(
            ("network", "bytes of a policy", "MB/s down, an actor", "MB/s up, an actor", "actors at 1 Gbit/s"), rows
        ),
    ]


def _check_table(measured: Measured) -> list[str]:
    end_to_end = measured[CHECKED]
    cores, actors = end_to_end["conditions"]["cores"], end_to_end["actors"]
    cells = {(row["network"], row["samples_per_insert"], row["precision"]): row for row in end_to_end["results"]}
    rows = []
    for network, ratio in dict.fromkeys((network, ratio) for network, ratio, _ in cells):
        hidden = [int(size) for size in network.split("-")]
        found, predicted = {}, {}
        for precision in ("float32", "int8"):
            took_s = [each["s_per_1000_steps"] for each in cells[network, ratio, precision]["trainings"]]
            found[precision] = 1000 / float(np.median(took_s))
            predicted[precision] = on_shared_cores(costs(hidden, precision, ratio, actors, measured), actors, cores)
        rows.append(
            (
                f"{network}, {ratio:g}",
                *(f"{found[name]:,.0f} of {predicted[name]:,.0f}" for name in found),
                f"{found['int8'] / found['float32']:.2f}",
                f"{predicted['int8'] / predicted['float32']:.2f}",
            )
        )
    return [
        f"How good the model is: steps a second that trainings with {actors} actors made on the {cores} cores that "
        f"they share with the learner (`{end_to_end['command']}`), of what the costs above come to if no core is ever "
        "idle; and how much faster int8 is.",
        "",
        *markdown_table(
            ("network, samples per insert", "float32", "int8", "int8 / float32, measured", "by the model"), rows
        ),
    ]


def _learner(hidden: list[int], measured: Measured) -> dict[str, Any]:
    row: dict[str, Any] = next(row for row in measured["actorq_learner"]["results"] if row["hidden"] == hidden)
    return row


def _name(hidden: list[int]) -> str:
    return "-".join(map(str, hidden))


def redrawn(page: str, lines: list[str]) -> str:
    """The page, with these lines between BEGIN and END."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return "\n".join([before + BEGIN, "", *lines, "", END + after])


def draw(path: Path, measured: Measured) -> None:
    """Write the page anew."""
    path.write_text(redrawn(path.read_text(), drawn(measured)))
