"""Two bench reports side by side: between boards, runtimes, dates or versions."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.bench import SCHEMA_VERSION, BenchReport, Entry
from edge.errors import UnknownNameError, UserError
from edge.files import read_bounded
from edge.records import from_plain
from edge.stats import Estimate

# A report of a dozen contenders has a twentieth of a megabyte.
MAX_BYTES = 16 * 2**20


class ReportError(UserError):
    """A file that is not a bench report that this version reads."""


@dataclass(frozen=True)
class Difference:
    """One figure of the same contender in both reports.

    Attributes:
      label: which contender.
      figure: what was measured, with its unit.
      a, b: with their intervals.
      ratio: b / a with the widest interval that the two allow.
      carried: whether that interval excludes 1. If not, the reports do not show a difference.
    """

    label: str
    figure: str
    a: Estimate
    b: Estimate
    ratio: Estimate
    carried: bool


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
      conditions: what differs in the conditions: name, in a, in b.
      differences: one for each figure of each contender that is in both.
      only_a, only_b: contenders that are in one report alone.
      warnings: of both reports, and of models that have the same name and are not the same.
    """

    conditions: tuple[tuple[str, str, str], ...]
    differences: tuple[Difference, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    warnings: tuple[str, ...]


def read(path: str | Path) -> BenchReport:
    """The report in a JSON file.

    Raises:
      ReportError: it cannot be read, is no report, or one of another version.
    """
    try:
        plain = json.loads(read_bounded(path, MAX_BYTES))
    except OSError as error:
        raise ReportError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path} is not JSON. Give what `tfqrl-edge bench --json` wrote.") from error
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version != SCHEMA_VERSION:
        raise ReportError(
            f"{path} is no bench report of version {SCHEMA_VERSION} (it says {version!r}). Give what `tfqrl-edge bench "
            "--json` wrote, with the same version of tfqrl for both."
        )
    try:
        report = from_plain(BenchReport, plain, "report")
    except (ValueError, UnknownNameError) as error:
        raise ReportError(f"{path} does not follow the schema of bench reports: {error}") from error
    if len({entry.label for entry in report.entries}) < len(report.entries):
        raise ReportError(f"{path} has two contenders with the same label. Give what `tfqrl-edge bench --json` wrote.")
    return report


def compare(a: BenchReport, b: BenchReport) -> Comparison:
    """Every figure that both have, and whether their intervals carry the difference.

    The intervals hold what differs from process to process within each run; what changes over hours, or with a restart
    of the machine, is not in them.
    """
    in_a, in_b = ({entry.label: entry for entry in report.entries} for report in (a, b))
    shared = [label for label in in_a if label in in_b]
    warnings = [f"a: {warning}" for warning in a.warnings] + [f"b: {warning}" for warning in b.warnings]
    warnings += [
        f"{label} is not the same model in both (SHA-256 differs)."
        for label in shared
        if in_a[label].sha256 != in_b[label].sha256
    ]
    conditions_a, conditions_b = (_conditions(report) for report in (a, b))
    return Comparison(
        tuple((k, conditions_a[k], conditions_b[k]) for k in conditions_a if conditions_a[k] != conditions_b[k]),
        tuple(d for label in shared for d in _differences(label, in_a[label], in_b[label])),
        tuple(label for label in in_a if label not in in_b),
        tuple(label for label in in_b if label not in in_a),
        tuple(warnings),
    )


def _conditions(report: BenchReport) -> dict[str, str]:
    named = {field.name: str(getattr(report.conditions, field.name)) for field in dataclasses.fields(report.conditions)}
    named["runtime"] = ", ".join(sorted({str(entry.runtime) for entry in report.entries}))
    del named["load_1min"]  # never the same; a busy machine is warned of
    return named


def _differences(label: str, a: Entry, b: Entry) -> list[Difference]:
    figures: list[tuple[str, Any, Any]] = [
        (f"{call} {name}, us", getattr(getattr(a, f"{call}_us"), field), getattr(getattr(b, f"{call}_us"), field))
        for call in ("act", "invoke")
        for name, field in (("p50", "p50"), ("p99", "p99"))
    ]
    if a.energy.net_j is not None and b.energy.net_j is not None:
        figures.append(("energy per action, J", a.energy.net_j, b.energy.net_j))
    return [_difference(label, name, x, y) for name, x, y in figures]


def _difference(label: str, figure: str, a: Estimate, b: Estimate) -> Difference:
    # Positive by what they are: times, and energies that a meter resolved.
    tiny = 1e-30
    ratio = Estimate(b.value / max(a.value, tiny), b.low / max(a.high, tiny), b.high / max(a.low, tiny))
    return Difference(label, figure, a, b, ratio, not ratio.low <= 1.0 <= ratio.high)
