"""Draw docs/RESULTS.md, its figures, and docs/actorq-scaling.md from the data in results/: `make results`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import actorq_scaling
from actorq_section import actors_section, end_to_end_section, faults_section, replay_section, returns_section
from algorithms_section import algorithms_section, figures
from compression_cost_section import compression_cost_section
from drawing import markdown_table
from qabp_section import qabp_section
from reference_runs import plan
from study_section import study_section
from training_speed_section import training_speed_section

from edge.records import from_plain
from tfqrl.study.tables import Findings

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "results", ROOT / "docs"


def main() -> None:
    """Write the page and its figures."""
    (DOCS / "figures").mkdir(exist_ok=True)
    for name, text in figures(load_all("algorithms")).items():
        (DOCS / "figures" / name).write_text(text)
    (DOCS / "RESULTS.md").write_text(page())
    there = [name for name in (*actorq_scaling.NEEDED, actorq_scaling.CHECKED) if (RESULTS / f"{name}.json").exists()]
    actorq_scaling.draw(DOCS / "actorq-scaling.md", {name: load(name) for name in there})


def page() -> str:
    """The page as Markdown."""
    return "\n".join(
        [
            "# Results",
            "",
            "Drawn from `results/` by `make results`; do not edit. Each section names the command that measured it.",
            "",
            *algorithms_section(plan(), load_all("algorithms")),
            "",
            *training_speed_section(load("training_speed")),
            "",
            *(
                compression_cost_section(load("compression_cost"))
                if (RESULTS / "compression_cost.json").exists()
                else []
            ),
            "",
            *(study_section(study("quarl")) if (RESULTS / "quarl" / "findings.json").exists() else []),
            "",
            *(qabp_section(study("qabp")) if (RESULTS / "qabp" / "findings.json").exists() else []),
            "",
            *(actors_section(load("actorq_actors")) if (RESULTS / "actorq_actors.json").exists() else []),
            "",
            *(end_to_end_section(load("actorq")) if (RESULTS / "actorq.json").exists() else []),
            "",
            *returns_section(plan(), load_all("algorithms")),
            "",
            *(faults_section(load("actorq_faults")) if (RESULTS / "actorq_faults.json").exists() else []),
            "",
            *(replay_section(load("actorq_replay")) if (RESULTS / "actorq_replay.json").exists() else []),
            "",
            *latency_section(load("edge_latency")),
            "",
            *jitter_section(load("loop_jitter")),
            "",
            *rollout_section(load("rollout")),
            "",
            *recipes_section(load_all("recipes")),
            "",
            *evaluations_section(load_all("evaluations")),
            "",
            *conversion_section(load("conversion")),
            "",
            *template_section(load("template")),
            "",
        ]
    )


def load(name: str) -> dict[str, Any]:
    """The data of one measurement."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def load_all(folder: str) -> list[dict[str, Any]]:
    """The data of measurements of one kind."""
    return [load(f"{folder}/{path.stem}") for path in sorted((RESULTS / folder).glob("*.json"))]


def study(name: str) -> Findings:
    """What studies/NAME.yaml found."""
    return from_plain(Findings, load(f"{name}/findings"), "findings.json")


def measured_by(result: dict[str, Any]) -> str:
    """The command and the commit."""
    return f"`{result['command']}` at commit {result['commit']}."


def latency_section(result: dict[str, Any]) -> list[str]:
    """What one action costs, beside the peers."""
    rows, conditions, quantisation = result["rows"], result["conditions"], result["host_quantisation"]
    names = list(rows[0]["median_us"])
    wanted = {
        "act / bare": "at most 1.5 (64-64), 1.3 (256-256)",
        "act float32 / bare float32": "the same",
        "onnxruntime / act": "at least 3",
        "stable-baselines3 / act": "at least 40",
    }
    return [
        "## What one action costs",
        "",
        f"{measured_by(result)} Medians over {result['blocks']} blocks of calls that take turns, microseconds. act: "
        "`edge.Policy.act` of an int8 policy, all its checks included; bare: `set_tensor`, `invoke`, `get_tensor`; "
        "onnxruntime: its int8 session, one thread; stable-baselines3: `predict` of PPO with the same network.",
        "",
        *markdown_table(
            ("network", *names),
            [(row["network"], *(f"{row['median_us'][name]:.2f}" for name in names)) for row in rows],
        ),
        "",
        "Ratios of the medians; in brackets the 5th and 95th percentile of the blocks' own ratios.",
        "",
        *markdown_table(
            ("ratio", *(row["network"] for row in rows), "wanted"),
            [
                (
                    name,
                    *(
                        f"{r['ratio']:.2f} [{r['p5']:.2f}, {r['p95']:.2f}]"
                        for r in (row["ratios"][name] for row in rows)
                    ),
                    text,
                )
                for name, text in wanted.items()
            ],
        ),
        "",
        f"Normalising and quantising 17 observations on the host, for integer input: {quantisation['ours_us']:.2f} us "
        f"(wanted: at most 2.5; plain numpy: {quantisation['plain_numpy_us']:.2f} us).",
        "",
        f"{machine(conditions)}; " + ", ".join(f"{name} {number}" for name, number in result["versions"].items()) + ".",
    ]


def jitter_section(result: dict[str, Any]) -> list[str]:
    """The control loop at 1 kHz beside bare wake-ups."""
    rows = []
    for mode, row in result["rows"].items():
        for name, times in (
            ("bare wake-up", row["bare_wake_latency_us"]),
            ("loop's wake-up", row["loop_wake_latency_us"]),
            ("loop's work", row["loop_work_us"]),
        ):
            missed = {"bare wake-up": sum(row["bare_missed"]), "loop's wake-up": sum(row["loop_missed"])}.get(name)
            percentiles = (f"{times[key]:.0f}" for key in ("p50", "p90", "p99", "p99_9", "max"))
            rows.append((mode, name, *percentiles, "" if missed is None else str(missed)))
    seconds = next(iter(result["rows"].values()))["seconds_each"]
    warnings = sorted({warning for row in result["rows"].values() for warning in row["warnings"]})
    return [
        f"## The control loop at {result['rate_hz']:g} Hz",
        "",
        f"{measured_by(result)} {seconds:g} s of the loop (int8 policy 17-256-256-6, plant in memory) and of bare "
        "wake-ups at the same deadlines, in turns of two seconds; as an ordinary process, and with what `tfqrl-edge "
        "run` can ask of the kernel (SCHED_FIFO, locked memory, one core, no garbage collector). Microseconds; "
        "percentiles are means over the turns. A period is missed if it was over before its work was done, for bare "
        "wake-ups before the process woke. Wanted: "
        "no misses beyond what the bare wake-ups explain.",
        "",
        *markdown_table(("mode", "what", "p50", "p90", "p99", "p99.9", "max", "missed periods"), rows),
        "",
        *(f"- Refused here: {warning}" for warning in warnings),
        f"{machine(result['conditions'])}; kernel: {next(iter(result['rows'].values()))['kernel']}.",
    ]


def machine(conditions: dict[str, Any]) -> str:
    """The machine and its software in a line."""
    return (
        f"{conditions['cpu']}, {conditions['cores']} cores, load before {conditions['load_1min']:.2f}, "
        f"{conditions['kernel']}, Python {conditions['python']}, numpy {conditions['numpy']}"
    )


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


def recipes_section(results: list[dict[str, Any]]) -> list[str]:
    """Every recipe of every example policy."""
    lines = [
        "## What each recipe costs",
        "",
        "The policies in `examples/policies/`, which `tfqrl train ppo` made. Float and converted policy play the same "
        "100 episodes; equivalent: two one-sided t-tests at 5 % within 2 % of the float policy's return, the margin "
        "given in advance. Act: median of one action, all recipes in turns, over that of float32. Rejected: it broke "
        "the tolerance of its recipe ([converting.md](converting.md)) and is kept as `.rejected`.",
    ]
    for result in results:
        returns = result["rows"][0]["comparison"]["returns"]
        env = Path(result["command"][2]).parent.name
        lines += [
            "",
            f"**{env}**, float return {returns['float_mean']:.1f}, margin {returns['margin']:.1f}. "
            f"`{' '.join(result['command'])}`; {machine(result['conditions'])}.",
            "",
            *markdown_table(
                (
                    "recipe",
                    "file KiB",
                    "deflated model KiB",
                    "action error, mean",
                    "difference of return",
                    "verdict",
                    "act / float32",
                    "result",
                ),
                [recipe_row(row) for row in result["rows"]],
            ),
        ]
    return lines


def recipe_row(row: dict[str, Any]) -> tuple[str, ...]:
    """One recipe of one policy."""
    comparison, returns = row["comparison"], row["comparison"]["returns"]
    low, high = returns["difference_interval"]
    if comparison["agreement"] is not None:
        error = f"{comparison['agreement']:.2%} the same"
    else:
        error = f"{comparison['relative_action_error']:.3%}"
    return (
        row["recipe"]["name"],
        f"{row['file_bytes'] / 1024:.1f}",
        f"{row['compressed_bytes'] / 1024:.1f}",
        error,
        f"{returns['difference_mean']:+.1f} [{low:+.1f}, {high:+.1f}]",
        returns["verdict"],
        f"{row['act_of_float32']['value']:.2f}",
        "rejected" if row["rejection"] else "ok",
    )


def evaluations_section(results: list[dict[str, Any]]) -> list[str]:
    """A second look, on fresh episodes, at policies of which single episodes fail."""
    rows = []
    for result in results:
        converted, pair = result["policies"][1], result["pair"]
        returns = converted["returns"]
        mean = converted["mean"]["value"]
        failed = sum(value < mean - 0.2 * abs(mean) for value in returns)
        difference = pair["difference"]
        rows.append(
            (
                "/".join(Path(converted["path"]).parts[-2:]),
                str(len(returns)),
                f"{failed / len(returns):.1%}",
                f"{difference['value']:+.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}]",
                f"{pair['margin']:.1f}",
                pair["verdict"],
            )
        )
    return [
        "### Where 100 episodes do not decide",
        "",
        "A policy that falls in one of a hundred episodes, whatever its bits, may have an interval wider than the "
        "margin: which episodes fail is chance, and differs between two policies that are equally good. So those "
        "again, undecided or not above, against the float policy on other episodes (seeds from "
        f"{results[0]['first_seed']:,}). Failed: returns lower than the mean by a fifth of it.",
        "",
        *markdown_table(("policy", "episodes", "failed", "difference of return", "margin", "verdict"), rows),
        "",
        "Each by `" + " ".join(results[0]["command"]) + "` and its like.",
    ]


def conversion_section(result: dict[str, Any]) -> list[str]:
    """How long a conversion takes."""
    rows = [
        (row["what"], f"{row['bytes']:,}", *(f"{row['seconds'][key]:.2f}" for key in ("median", "min", "max")))
        for row in result["rows"]
    ]
    return [
        "## How long a conversion takes",
        "",
        f"{measured_by(result)} Seconds, over {result['rounds']} rounds in turns, for a policy 17-256-256-6: all of "
        "`converters.convert`, with calibration on 10,000 observations and comparison on 5,000, but without episodes; "
        "flatbuffer: TensorFlow's converter alone. Wanted: under 3. Bytes: of the model, with a normaliser except "
        "in float32.",
        "",
        *markdown_table(("", "bytes", "median", "min", "max"), rows),
        "",
        f"{machine(result['conditions'])}.",
    ]


def template_section(result: dict[str, Any]) -> list[str]:
    """New weights in a flatbuffer without converting, and acting with it."""

    def cell(times: dict[str, float], digits: int) -> str:
        return f"{times['median']:.{digits}f} ({times['p5']:.{digits}f} .. {times['p95']:.{digits}f})"

    def rows(kind: str, head: tuple[str, ...], digits: int) -> list[tuple[str, ...]]:
        return [
            (*(str(row[name]) for name in head), *(cell(times, digits) for times in row["us"].values()))
            for row in result[kind]
        ]

    written, acted = ("network", "recipe", "bytes"), ("network", "batch")
    return [
        "## New weights in a policy, without converting",
        "",
        f"{measured_by(result)} Microseconds; median over blocks in turns, 5th and 95th percentile. convert: all that "
        "makes a flatbuffer of a network; write: other weights and another normaliser in place of the last ones, which "
        "gives the same bytes; reload: copying them and building the interpreter.",
        "",
        *markdown_table((*written, *result["rows"][0]["us"]), rows("rows", written, 0)),
        "",
        "Acting on a batch of normalised observations, microseconds a batch: `tfqrl.networks.HostNetwork` (numpy), and "
        "interpreters for flatbuffers of templates, resized to the batch.",
        "",
        *markdown_table((*acted, *result["acting"][0]["us"]), rows("acting", acted, 1)),
        "",
        f"{machine(result['conditions'])}.",
    ]


if __name__ == "__main__":
    main()
