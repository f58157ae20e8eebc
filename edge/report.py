"""Reports as text for a terminal. Their JSON is `edge.records.to_json` of the dataclass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.artifact import Artifact, Comparison, Layer
from edge.bench import BenchReport
from edge.compare import Comparison as ReportComparison
from edge.conditions import Thermal
from edge.energy import Energy
from edge.loop_report import LoopReport, RunReport
from edge.stats import Estimate, Histogram, Percentiles

VERDICTS = {
    "equivalent": "equivalent within ±{} (two one-sided tests, 5 %)",
    "better": "better, by more than {} (two one-sided tests, 5 %)",
    "worse": "worse, by more than {} (two one-sided tests, 5 %)",
    "undecided": "undecided: neither within ±{} nor beyond it (two one-sided tests, 5 %); play more episodes",
}
PERCENTILE_NAMES = ("p50", "p90", "p99", "p99.9", "max")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces: the first to the left, the others to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
        )
        for line in lines
    )


def size(n_bytes: float | None) -> str:
    """Bytes for people, in powers of 1024."""
    if n_bytes is None:
        return "unknown"
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    return f"{n_bytes / 1024:.1f} KiB" if n_bytes < 2**20 else f"{n_bytes / 2**20:.1f} MiB"


def joules(value: float) -> str:
    """Joules for people."""
    for unit, scale in (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} nJ"


def percentile_row(name: str, times: Percentiles | None) -> list[str]:
    """A row under `PERCENTILE_NAMES`."""
    if times is None:
        return [name, *["-"] * len(PERCENTILE_NAMES)]
    return [name, *(f"{value:.2f}" for value in (times.p50, times.p90, times.p99, times.p99_9, times.max))]


def bars(histogram: Histogram, width: int = 20) -> str:
    """A histogram without its last bin, the slowest thousandth, as a line of `width` characters, fuller for more."""
    groups = np.array_split(np.array(histogram.counts[:-1] or (0,)), width)
    heights = np.array([group.sum() for group in groups], np.float64)
    ramp = " .:-=+*#%@"
    # Anything at all is to be seen beside the highest.
    levels = np.ceil(heights / max(heights.max(), 1.0) * (len(ramp) - 1)).astype(int)
    return "|" + "".join(ramp[level] for level in levels) + "|"


def comparison_lines(comparison: Comparison) -> list[str]:
    """A comparison as sentences."""
    lines = []
    if comparison.agreement is not None:
        lines.append(f"same choice as float  {comparison.agreement:.2%} of {comparison.observations} observations")
    if comparison.max_action_error is not None and comparison.mean_action_error is not None:
        lines.append(
            f"action error          max {comparison.max_action_error:.3g}, mean {comparison.mean_action_error:.3g} "
            f"over {comparison.observations} observations"
        )
    if comparison.returns is not None:
        returns = comparison.returns
        low, high = returns.difference_interval
        lines += [
            f"return                float {returns.float_mean:.1f}, converted {returns.converted_mean:.1f} "
            f"over {returns.episodes} paired episodes",
            f"return difference     {returns.difference_mean:+.1f}, 95 % interval [{low:+.1f}, {high:+.1f}]",
        ]
        if returns.verdict is not None and returns.margin is not None:
            lines.append(f"verdict               {VERDICTS[returns.verdict].format(f'{returns.margin:.4g}')}")
    return lines


def info_text(artifact: Artifact, file_bytes: int) -> str:
    """What a policy file says of itself."""
    manifest, spec = artifact.manifest, artifact.manifest.spec
    action = f"one of {spec.action.n}" if spec.action.discrete else f"float32 {list(spec.action.shape)}"
    rate = "none named" if spec.control_rate_hz is None else f"{spec.control_rate_hz:g} Hz"
    runtimes = manifest.recipe.get("runtimes")
    loads_on = f", for {', '.join(map(str, runtimes))}" if isinstance(runtimes, list) and runtimes else ""
    compressed = "" if manifest.compressed_bytes is None else f", {size(manifest.compressed_bytes)} compressed"
    lines = [
        f"policy                {manifest.name}",
        f"recipe                {manifest.recipe['name']}{loads_on}",
        f"observation           {spec.observation.dtype} {list(spec.observation.shape)}",
        f"action                {action}",
        f"control rate          {rate}",
        f"size                  {size(file_bytes)} file, {size(manifest.flatbuffer_bytes)} model{compressed}",
        f"SHA-256 of the model  {manifest.flatbuffer_sha256}",
        *comparison_lines(manifest.comparison),
        f"golden pairs          {len(artifact.golden.actions)}",
        "versions              " + ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        *(f"note                  {note}" for note in manifest.notes),
        "",
        table(
            ("weights", "shape", "bits", "zero"),
            [_layer_row(layer) for layer in manifest.layers],
        ),
    ]
    return "\n".join(lines)


def _layer_row(layer: Layer) -> list[str]:
    return [layer.name, "x".join(map(str, layer.shape)), str(layer.weight_bits), f"{layer.sparsity:.1%}"]


def loop_text(report: LoopReport) -> str:
    """A loop report."""
    failsafes = ", ".join(f"{count} x {cause}" for cause, count in report.failsafes.items()) or "none"
    lines = [
        f"{report.ticks} ticks at {report.rate_hz:g} Hz in {report.duration_s:.2f} s, {report.missed_periods} periods "
        f"missed, failsafe actions: {failsafes}; stopped by {report.stopped_by}",
        table(
            ("microseconds", *PERCENTILE_NAMES, "smallest to p99.9"),
            [
                [*percentile_row("work", report.work_us), bars(report.work_histogram)],
                [*percentile_row("wake-up latency", report.wake_latency_us), bars(report.wake_latency_histogram)],
                [*percentile_row("period", report.period_us), bars(report.period_histogram)],
            ],
        ),
    ]
    if report.energy_j is not None:
        lines.append(f"energy                {joules(report.energy_j)}; {report.energy_scope}")
    if report.energy_error is not None:
        lines.append(f"warning: no energy was measured: {report.energy_error}")
    lines.append(f"kernel                {'; '.join((report.realtime.kernel, *report.realtime.asked))}")
    if report.failsafe_sent is False:
        lines.append("WARNING: the plant did not take the last failsafe action: its actuators may still be driven")
    lines += [f"warning: {warning}" for warning in report.realtime.warnings]
    lines += [f"plant error, {count} times: {text}" for text, count in report.plant_errors.items()]
    if report.log_dropped:
        lines.append(f"warning: {report.log_dropped} ticks are missing in the log")
    if report.log_error:
        lines.append(f"warning: {report.log_error}")
    return "\n".join(lines)


def counts_text(counts: dict[str, int]) -> str:
    """Counts in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())


def run_text(report: RunReport) -> str:
    """A run report."""
    lines = [loop_text(report.loop)]
    if report.returns:
        mean = sum(report.returns) / len(report.returns)
        lines.append(f"{len(report.returns)} episodes finished, mean return {mean:.1f}")
    if report.counts:
        lines.append("plant                 " + counts_text(report.counts))
    return "\n".join(lines)


BENCH_HEADER = (
    "contender",
    "act p50 us",
    "act p99",
    "act p99.9",
    "invoke p50",
    "first action",
    "memory",
    "energy/action",
)


def bench_rows(report: BenchReport) -> list[list[str]]:
    """The rows under `BENCH_HEADER`."""
    return [
        [
            entry.label,
            _interval(entry.act_us.p50),
            _interval(entry.act_us.p99),
            f"{entry.act_us.p99_9.value:.2f}",
            _interval(entry.invoke_us.p50),
            f"{entry.cold_start.first_action_ms:.0f} ms",
            size(entry.cold_start.resident_bytes),
            energy_cell(entry.energy),
        ]
        for entry in report.entries
    ]


def energy_cell(energy: Energy) -> str:
    """Energy per action in a word or two."""
    if energy.net_j is not None:
        return f"{joules(energy.net_j.value)} [{joules(energy.net_j.low)}, {joules(energy.net_j.high)}]"
    if energy.gross_j is not None and not energy.measured:
        return f"{joules(energy.gross_j)} (ESTIMATE)"
    return energy.failure or "unknown"


def bench_notes(report: BenchReport) -> list[str]:
    """What a reader of the table has to know."""
    conditions, first = report.conditions, report.entries[0]
    energy = first.energy
    lines = [
        f"{first.act_us.percentiles.n} calls of each in {report.sessions} sessions (fresh processes) of "
        f"{report.rounds} turns, after {report.warmup} to warm up; percentiles are means over sessions, with 95 % "
        "intervals by bootstrap over sessions",
        f"reading the clock takes {report.clock_us:.3f} us of each; its step is {report.clock_step_us:.3f} us",
        "first action: from starting a process, imports and all; memory: of that process then",
        f"energy: {energy.scope}"
        + (
            f"; above idle, {energy.windows} pairs of windows of {energy.window_s:g} s, idle {energy.idle_w:.3g} W "
            f"(sd {energy.idle_sd_w:.2g} W)"
            if energy.idle_w is not None
            else ""
        ),
        f"runtime: {', '.join(dict.fromkeys(str(entry.runtime) for entry in report.entries))}",
        f"machine: {conditions.board}; {conditions.cpu}, {conditions.cores} core(s), governor "
        f"{conditions.governor or 'not shown'}, load {conditions.load_1min:.2f}; before {_thermal(report.before)}; "
        f"after {_thermal(report.after)}",
        f"software: {conditions.kernel}, Python {conditions.python}, numpy {conditions.numpy}, "
        f"tfqrl {conditions.tfqrl}",
    ]
    return lines + [f"warning: {warning}" for warning in report.warnings]


def bench_text(report: BenchReport) -> str:
    """A bench report for a terminal."""
    lines = [table(BENCH_HEADER, bench_rows(report)), *bench_notes(report)]
    for entry in report.entries:
        if entry.at_rate is not None:
            lines += ["", f"{entry.label} in the control loop:", loop_text(entry.at_rate)]
    return "\n".join(lines)


def bench_markdown(report: BenchReport) -> str:
    """A bench report as Markdown."""
    rows = [BENCH_HEADER, ["---", *["---:"] * (len(BENCH_HEADER) - 1)], *bench_rows(report)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- {note}" for note in bench_notes(report))]
    for entry in report.entries:
        if entry.at_rate is not None:
            lines += ["", f"{entry.label} in the control loop:", "", "```", loop_text(entry.at_rate), "```"]
    return "\n".join(lines) + "\n"


def compare_text(comparison: ReportComparison) -> str:
    """A comparison of two bench reports."""
    rows = [
        [
            f"{d.label}: {d.figure}",
            f"{d.a.value:.4g} [{d.a.low:.4g}, {d.a.high:.4g}]",
            f"{d.b.value:.4g} [{d.b.low:.4g}, {d.b.high:.4g}]",
            f"{d.ratio.value:.2f} [{d.ratio.low:.2f}, {d.ratio.high:.2f}]" if d.carried else "not shown to differ",
        ]
        for d in comparison.differences
    ]
    lines = [table(("figure", "a", "b", "b / a"), rows)] if rows else ["The reports have no contender in common."]
    lines += [f"only in a: {label}" for label in comparison.only_a]
    lines += [f"only in b: {label}" for label in comparison.only_b]
    lines += [f"{name}: a {a}; b {b}" for name, a, b in comparison.conditions]
    lines += [f"warning: {warning}" for warning in comparison.warnings]
    lines.append(
        "The intervals are over the fresh processes of each run (energy: over windows). What changes over hours, or "
        "with a restart of the machine, is not in them."
    )
    return "\n".join(lines)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _thermal(thermal: Thermal) -> str:
    parts = [
        "temperature not shown" if thermal.temperature_c is None else f"{thermal.temperature_c:.1f} C",
        "clock not shown" if thermal.clock_mhz is None else f"{thermal.clock_mhz:.0f} MHz",
    ]
    if thermal.throttled is not None:
        parts.append(", ".join(thermal.throttled) or "not throttled")
    return ", ".join(parts)
