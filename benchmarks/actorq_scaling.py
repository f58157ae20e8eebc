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
TASK = "dmc:walker-stand"
RATIOS = (0.25, 1.0, 4.0, 16.0)
ACTORS = (1, 4, 16, 64, 256)
PRECISIONS = ("float32", "float16", "int8")
# The paper's learner trains beside the actors on a graphics card: so much faster than here, as an assumption.
FASTER = 20.0
MESSAGES = 200
GBIT = 1e9 / 8


def costs(
    hidden: list[int], precision: str, ratio: float, actors: int, measured: dict[str, Any], *, faster: float = 1.0
) -> Costs:
    """Of a training with this network; `measured` are the results of actorq_actors and actorq_learner by name."""
    acting = next(row for row in measured["actorq_actors"]["results"] if (row["task"], row["hidden"]) == (TASK, hidden))
    actor = next(row["us_per_step"] for row in acting["actors"] if row["actor"] == precision)
    learner_row = next(row for row in measured["actorq_learner"]["results"] if row["hidden"] == hidden)
    learner = {name: spread["median"] / 1e6 for name, spread in learner_row["us"].items()}
    push_every = measured["actorq_actors"]["push_every"]
    config = D4PGConfig(env=TASK)
    distribution = Distribution(actors=actors, push_every=push_every, samples_per_insert=ratio)
    return Costs(
        step_s=(actor["environment"] + actor["inference"] + actor["assembly"]) / 1e6,
        send_s=measured["send_s"],
        take_s=(actor["pull"] + actor["load"]) / 1e6 * push_every,
        receive_s=learner["receive"],
        update_s=(learner["sample"] + learner["update"]) / faster,
        call_s=learner["report"],
        publish_s=learner[f"publish {precision}"],
        push_every=push_every,
        samples_per_insert=ratio,
        batch_size=config.batch_size,
        updates_per_call=distribution.updates_per_call(config),
    )


def send_s(end_to_end: dict[str, Any]) -> float:
    """Of a message of an actor, from whole trainings; the median."""
    push_every = Distribution().push_every
    return float(
        np.median(
            [
                training["actors"]["insert"] / (training["steps"] / push_every)
                for row in end_to_end["results"]
                for training in row["trainings"]
            ]
        )
    )


def drawn(measured: dict[str, Any]) -> list[str]:
    """The tables, as Markdown, from the results of actorq_actors, actorq_learner and actorq by name."""
    measured = {**measured, "send_s": send_s(measured["actorq"])}
    networks = [row["hidden"] for row in measured["actorq_learner"]["results"]]
    return [
        *_costs_table(networks, measured),
        "",
        *_scaling_table(networks, measured),
        "",
        *_bytes_table(networks, measured),
        "",
        *_check_table(measured),
    ]


def _costs_table(networks: list[list[int]], measured: dict[str, Any]) -> list[str]:
    rows = []
    for hidden in networks:
        for precision in PRECISIONS:
            it = costs(hidden, precision, 1.0, 4, measured)
            us = (it.step_s, it.take_s, it.send_s, it.receive_s, it.update_s, it.call_s, it.publish_s)
            rows.append((f"{_name(hidden)}, {precision}", *(f"{seconds * 1e6:,.0f}" for seconds in us)))
    commands = [measured[name]["command"] for name in ("actorq_actors", "actorq_learner", "actorq")]
    return [
        f"Microseconds, d4pg on {TASK}; medians of `{commands[0]}` (one thread), `{commands[1]}` (the learner has two "
        f"cores to itself) and `{commands[2]}` (sending).",
        "",
        *markdown_table(
            ("network", "step", "take a policy", "send", "receive", "update", "report", "make a policy"), rows
        ),
    ]


def _scaling_table(networks: list[list[int]], measured: dict[str, Any]) -> list[str]:
    rows = []
    for hidden in networks:
        for ratio in RATIOS:
            by_precision = {name: costs(hidden, name, ratio, 16, measured) for name in PRECISIONS}
            fast = {name: costs(hidden, name, ratio, 16, measured, faster=FASTER) for name in PRECISIONS}
            simulated = simulate(fast["int8"], 16, MESSAGES)
            alone = by_precision["float32"].actor_step_s / by_precision["int8"].actor_step_s
            rows.append(
                (
                    f"{_name(hidden)}, {ratio:g}",
                    *(f"{saturating_actors(by_precision[name]):.1f}" for name in ("float32", "int8")),
                    *(f"{saturating_actors(fast[name]):.1f}" for name in ("float32", "int8")),
                    f"{throughput(fast['int8'], 16) / throughput(fast['float32'], 16):.2f}",
                    f"{alone:.2f}",
                    f"{throughput(fast['int8'], 16):,.0f}",
                    f"{simulated.steps_per_s:,.0f}",
                    f"{simulated.staleness:.1f}",
                )
            )
    return [
        f"From how many actors on the learner is what limits, as it is here and with updates {FASTER:g} times as fast "
        "(an assumption, for a learner with a device of its own); with that one and 16 actors, how much faster int8 is "
        "than float32, beside the same where nobody waits for a learner; and steps a second of the formula and of a "
        f"simulation of {MESSAGES} messages of each actor, with how many updates old a policy is when what it has done "
        "arrives.",
        "",
        *markdown_table(
            (
                *("network, samples per insert", "float32 saturates", "int8 saturates"),
                *(f"float32, {FASTER:g}x", f"int8, {FASTER:g}x", "int8 / float32, 16 actors", "without a learner"),
                *("steps/s, formula", "simulated", "staleness"),
            ),
            rows,
        ),
    ]


def _bytes_table(networks: list[list[int]], measured: dict[str, Any]) -> list[str]:
    rows = []
    for hidden in networks:
        learner = next(row for row in measured["actorq_learner"]["results"] if row["hidden"] == hidden)
        for precision in PRECISIONS:
            it = costs(hidden, precision, 1.0, 1, measured)
            # A machine pulls a policy once for all of its actors, at the most as often as one of them sends.
            down = learner["push_bytes"][precision] / (it.push_every * it.actor_step_s)
            up = learner["transition_bytes"] / it.actor_step_s
            rows.append(
                (
                    f"{_name(hidden)}, {precision}",
                    f"{learner['push_bytes'][precision]:,}",
                    f"{down / 1e6:.1f}",
                    f"{up / 1e6:.2f}",
                    f"{GBIT / down:,.0f}",
                    f"{GBIT / up:,.0f}",
                )
            )
    return [
        "What goes over a network, if every message brings a new policy: megabytes a second to each machine with "
        "actors, and from each actor; how many machines a link of 1 Gbit/s of the learner then serves (Ray's nodes "
        "hand objects on to each other, so it is more), and from how many actors it takes transitions.",
        "",
        *markdown_table(
            ("network", "bytes of a policy", "MB/s down, a machine", "MB/s up, an actor", "machines", "actors"), rows
        ),
    ]


def _check_table(measured: dict[str, Any]) -> list[str]:
    end_to_end = measured["actorq"]
    cells = {(row["network"], row["samples_per_insert"], row["precision"]): row for row in end_to_end["results"]}
    rows = []
    for network, ratio in dict.fromkeys((network, ratio) for network, ratio, _ in cells):
        hidden = [int(size) for size in network.split("-")]
        found, predicted = {}, {}
        for precision in ("float32", "int8"):
            took_s = [each["s_per_1000_steps"] for each in cells[network, ratio, precision]["trainings"]]
            found[precision] = 1000 / float(np.median(took_s))
            it = costs(hidden, precision, ratio, end_to_end["actors"], measured)
            predicted[precision] = on_shared_cores(it, end_to_end["actors"], 2)
        rows.append(
            (
                f"{network}, {ratio:g}",
                *(f"{found[name]:,.0f} of {predicted[name]:,.0f}" for name in found),
                f"{found['int8'] / found['float32']:.2f}",
                f"{predicted['int8'] / predicted['float32']:.2f}",
            )
        )
    return [
        f"How good the model is: steps a second that trainings with {end_to_end['actors']} actors made on the two "
        "cores that they share with the learner, of what the costs above allow if no core is ever idle; and how much "
        "faster int8 is.",
        "",
        *markdown_table(
            ("network, samples per insert", "float32", "int8", "int8 / float32, measured", "by the model"), rows
        ),
    ]


def _name(hidden: list[int]) -> str:
    return "-".join(map(str, hidden))


def redrawn(page: str, lines: list[str]) -> str:
    """The page, with these lines between BEGIN and END."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return "\n".join([before + BEGIN, "", *lines, "", END + after])


def draw(path: Path, measured: dict[str, Any]) -> None:
    """Write the page anew."""
    path.write_text(redrawn(path.read_text(), drawn(measured)))
