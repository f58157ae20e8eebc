"""The sections of docs/RESULTS.md on ActorQ, from what its benchmarks and reference_runs.py left."""

from __future__ import annotations

from typing import Any

import numpy as np
from algorithms_section import MISSING, each_text, mean_text
from drawing import markdown_table
from reference_runs import ACTORQ, EPISODES, short

from tfqrl.actorq.stopwatch import shares

# By width of the network: int8 over float32 on the same interpreter, and over an eager PyTorch actor in float32.
WANTED = {2048: {"float32": 4.0, "torch float32": 5.0}, 512: {"float32": 1.4, "torch float32": 2.5}}
# Of an actor's time, pulling and loading at a push every 30 steps, of 512-512-512.
WANTED_SHARE = 0.02
# Memory is flat if a line through the second half of its samples rises by no more than this part of it in 10 minutes.
FLAT = 0.01
# Where acting is what takes time: 2048-2048-2048, a quarter of a sample learnt from for each inserted.
WANTED_GAIN = 2.0


def actors_section(result: dict[str, Any]) -> list[str]:
    """What an actor does in a second, and where its time goes."""
    rows, missed = [], []
    for measured in result["results"]:
        network = "-".join(map(str, measured["hidden"]))
        for actor in measured["actors"]:
            us = actor["us_per_step"]
            taking = (us["pull"] + us["load"]) / sum(us.values())
            rate = actor["steps_per_s"]
            rows.append(
                (
                    f"{measured['task']}, {network}: {actor['actor']}" + ", in place" * actor["in_place"],
                    f"{rate['median']:,.0f} ({rate['p25']:,.0f}..{rate['p75']:,.0f})",
                    *(f"{us[span]:.1f}" for span in us),
                    f"{taking:.1%}",
                )
            )
            if actor["actor"] == "int8" and measured["hidden"] == [512, 512, 512] and taking > WANTED_SHARE:
                missed.append(f"{measured['task']}, {network}: {taking:.1%} for pull and load of {WANTED_SHARE:.0%}")
        for over, least in WANTED.get(measured["hidden"][0], {}).items():
            ratio = measured["int8_over"][over]["median"]
            if ratio < least:
                missed.append(f"{measured['task']}, {network}: int8 over {over} {ratio:.2f} of {least:g}")
    spans = list(result["results"][0]["actors"][0]["us_per_step"])
    ratios = [
        (
            f"{measured['task']}, {'-'.join(map(str, measured['hidden']))}",
            *(
                f"{ratio['median']:.2f} ({ratio['p25']:.2f}..{ratio['p75']:.2f})"
                for ratio in measured["int8_over"].values()
            ),
        )
        for measured in result["results"]
    ]
    return [
        "## ActorQ: what an actor does in a second",
        "",
        f"`{result['command']}` at commit {result['commit']}. One actor on one thread, with a new policy every "
        f"{result['push_every']} steps: environment steps per second (median and quartiles of blocks by turns), and "
        "microseconds of a step by what they are spent on. "
        + ("Not reached: " + "; ".join(missed) + "." if missed else "All that was wanted is reached."),
        "",
        *_estimates(result),
        *markdown_table(("int8 over", *result["results"][0]["int8_over"]), ratios),
        "",
        *markdown_table(("actor", "steps/s", *spans, "pull and load"), rows),
    ]


def _estimates(result: dict[str, Any]) -> list[str]:
    largest = [measured for measured in result["results"] if measured["hidden"][0] == max(WANTED)]
    if not largest:
        return []
    estimates = ", ".join(f"{_if_streamed(measured):.2f} ({measured['task']})" for measured in largest)
    return [
        "A step reads all weights once, and those of the largest network are more than a core's own caches hold. An "
        "estimate of what there is to be had: if int8 read its weights at the bytes a second that float32 does, int8 "
        f"over float32 would be {estimates}.",
        "",
    ]


def _if_streamed(measured: dict[str, Any]) -> float:
    """An estimate of int8 over float32, if int8 read weights as many bytes a second as float32 does."""
    actors = {actor["actor"]: actor for actor in measured["actors"]}
    small, large = actors["int8"], actors["float32"]
    streaming_us = large["us_per_step"]["inference"] * small["push_bytes"] / large["push_bytes"]
    rest_us = sum(us for span, us in small["us_per_step"].items() if span != "inference")
    return float(sum(large["us_per_step"].values()) / (rest_us + streaming_us))


def end_to_end_section(result: dict[str, Any]) -> list[str]:
    """Seconds of a thousand steps of whole trainings."""
    cells = {
        (row["network"], row["samples_per_insert"], row["precision"]): row["trainings"] for row in result["results"]
    }
    precisions = list(dict.fromkeys(precision for _, _, precision in cells))
    rows, missed = [], []
    for network, ratio in dict.fromkeys((network, ratio) for network, ratio, _ in cells):
        seconds = {
            precision: np.array([each["s_per_1000_steps"] for each in cells[network, ratio, precision]])
            for precision in precisions
        }
        gain = seconds["float32"] / seconds["int8"]
        busy = [1 - shares(each["learner"])["wait"] for each in cells[network, ratio, "int8"]]
        rows.append(
            (
                network,
                f"{ratio:g}",
                *(f"{np.median(seconds[precision]):.2f}" for precision in precisions),
                f"{np.median(gain):.2f} ({gain.min():.2f}..{gain.max():.2f})",
                f"{np.median(busy):.0%}",
            )
        )
        if network.startswith("2048") and ratio == 0.25 and np.median(gain) < WANTED_GAIN:
            missed.append(f"{network} at {ratio:g}: {np.median(gain):.2f} of {WANTED_GAIN:g}")
    header = ("network", "samples per insert", *(f"{precision}, s" for precision in precisions))
    return [
        "## ActorQ: end to end",
        "",
        f"`{result['command']}` at commit {result['commit']}. d4pg on {result['env']} by `tfqrl actorq` with "
        f"{result['actors']} actors, whose cores the learner shares: seconds for a thousand environment steps, medians "
        f"of {len(next(iter(cells.values())))} trainings by turns; how much faster int8 is than float32; the part of "
        "its time that the learner is not waiting for transitions. "
        + ("Not reached: " + "; ".join(missed) + "." if missed else "What was wanted is reached."),
        "",
        *markdown_table((*header, "float32 / int8", "learner busy, int8"), rows),
    ]


def replay_section(result: dict[str, Any]) -> list[str]:
    """What the learner waits for batches, by where the replay is."""
    rows = [
        (
            f"{row['place']}, {row['updates']}",
            *(
                f"{row[name]['median']:,.0f} ({row[name]['p25']:,.0f}..{row[name]['p75']:,.0f})"
                for name in ("wait_us", "cpu_us")
            ),
        )
        for row in result["results"]
    ]
    return [
        "## ActorQ: where the replay is",
        "",
        f"`{result['command']}` at commit {result['commit']}. Microseconds that a learner on {result['env']} waits for "
        "the batches of a call of updates, and that the processors of its process and the replay's take for them; "
        "medians and quartiles of blocks by turns. tfqrl has the replay with the learner.",
        "",
        *markdown_table(("replay, updates to a call", "waited", "of processors"), rows),
    ]


def faults_section(result: dict[str, Any]) -> list[str]:
    """What became of a training whose actors were killed."""
    account = result["account"]
    replaced = ", ".join(f"{count} {why}" for why, count in result["replaced"].items() if count)
    books = ", ".join(f"{count:,} {what}" for what, count in account.items())
    half = result["memory_mib"][len(result["memory_mib"]) // 2 :]
    rows, missed = [], []
    for kind, growth in result["memory_growth_mib_per_10_min"].items():
        mean = float(np.mean([sample[kind] for sample in half]))
        rows.append((f"{kind}s together" if kind == "actor" else kind, f"{mean:,.0f}", f"{growth:+.1f}"))
        if growth > FLAT * mean:
            missed.append(f"memory of the {kind} processes grew by {growth:.1f} MiB in 10 minutes, {growth / mean:.1%}")
    for failed, text in (
        (result["exit_code"] != 0, f"exit code {result['exit_code']}"),
        (not result["balanced"], "the books do not balance"),
        (result["processes_left"] > 0, f"{result['processes_left']} processes were left"),
    ):
        missed += [text] * failed
    return [
        "## ActorQ: actors that are killed",
        "",
        f"`{result['command']}` at commit {result['commit']}. An actor of {result['actors']} on two cores gets SIGKILL "
        f"every {result['every_s']:g} s, for {result['minutes']:g} minutes: {result['kills']} killed; replaced: "
        f"{replaced}. Transitions: {books}; inserted = stepped - lost - refused - unfinished. Resident memory in MiB, "
        f"mean of the second half and the rise of a line through it; flat is a rise of at most {FLAT:.0%}. "
        + ("Not reached: " + "; ".join(missed) + "." if missed else "The books balance, and nothing is left or grows."),
        "",
        *markdown_table(("processes", "MiB", "in 10 minutes"), rows),
    ]


def returns_section(plan: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """What policies return that were trained with actors of the one precision and the other.

    Args:
      plan: reference_runs.yaml.
      results: the files in results/algorithms/.
    """
    planned = [entry for entry in plan["runs"] if entry.get("library") == ACTORQ]
    by_task: dict[tuple[str, str, int], dict[str, list[dict[str, Any]]]] = {}
    for entry in planned:
        runs = [
            result
            for result in results
            if all(result[key] == entry[key] for key in ("library", "algorithm", "env", "steps", "options"))
        ]
        precision = entry["options"].split()[-1]
        by_task.setdefault((entry["algorithm"], entry["env"], entry["steps"]), {})[precision] = runs
    rows, missed = [], []
    for (algorithm, env, steps), runs_of in by_task.items():
        seeds = len(next(entry["seeds"] for entry in planned if entry["env"] == env))
        cells, means = [], {}
        for precision, runs in runs_of.items():
            means[precision] = np.array([np.mean(run["returns"]) for run in runs])
            cells += [mean_text(runs), each_text(runs, seeds)]
        difference = MISSING
        if all(len(found) == seeds for found in means.values()):
            gained = means["int8"].mean() - means["float32"].mean()
            spread = max(found.std(ddof=1) for found in means.values())
            difference = f"{gained:+.1f}"
            if gained < -spread:
                missed.append(f"{env}: {-gained:.1f} below, the spread is {spread:.1f}")
        rows.append((f"{algorithm} on {env}, {short(steps)}", *cells, difference))
    return [
        "## ActorQ: what 8 bits in actors cost in return",
        "",
        f"`python benchmarks/reference_runs.py --runs FOLDER --only {ACTORQ}`. `tfqrl actorq` with "
        f"`{planned[0]['options'].rsplit(' --', 1)[0]}` and actors in float32 and in int8; the final policy, in "
        f"float32 and without exploration, plays {EPISODES} episodes. Return: mean over seeds of training, ± their "
        "standard deviation, and each. Wanted: int8 not below float32 by more than the larger of the two deviations. "
        + ("Not reached: " + "; ".join(missed) + "." if missed else _so_far(rows)),
        "",
        *markdown_table(("training", "float32 actors", "each", "int8 actors", "each", "difference"), rows),
    ]


def _so_far(rows: list[tuple[str, ...]]) -> str:
    missing = sum(row[-1] == MISSING for row in rows)
    if missing == len(rows):
        return "Nothing can be compared yet."
    return "That is so." if not missing else "That is so of those that are complete."
