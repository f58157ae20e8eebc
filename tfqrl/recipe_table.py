"""Conversions of one policy beside each other: what `tfqrl convert --recipe all` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from converters.conversion import VERSIONS_OF, Conversion
from converters.recipe import Recipe
from edge import session
from edge.artifact import Comparison
from edge.conditions import Conditions
from edge.errors import UserError
from edge.report import size, table
from edge.stats import Estimate, Latency, mean_estimate
from tfqrl.convert import Original, save
from tfqrl.progress import progress_bar

SCHEMA_VERSION = 1

# Calls of each recipe's policy: a few seconds in all.
CALLS = 20_000

HEADER = ("recipe", "file", "deflated", "action error mean", "max", "return difference", "verdict", "act p50 us",
          "of float32", "runs on", "result")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What became of one recipe.

    Attributes:
      recipe: the recipe, with its options, and the runtimes that load what it makes.
      file: the policy file; None if none was made.
      file_bytes: its size.
      model_bytes: size of the model in it.
      compressed_bytes: size of the model when deflated.
      comparison: beside the float policy.
      act_us: one action on this machine, all recipes in turns; None if it was not measured.
      act_of_float32: its median over that of the recipe float32, per session.
      rejection: why it was rejected; None if it was not.
      failure: why no file was made; None if one was.
    """

    recipe: dict[str, Any]
    file: str | None = None
    file_bytes: int | None = None
    model_bytes: int | None = None
    compressed_bytes: int | None = None
    comparison: Comparison | None = None
    act_us: Latency | None = None
    act_of_float32: Estimate | None = None
    rejection: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class RecipeTable:
    """What `tfqrl convert` found.

    Attributes:
      schema_version: version of this layout.
      command: the words of the command.
      versions: of the packages that it depends on.
      conditions: the machine that latencies were measured on.
      rows: one a recipe.
    """

    schema_version: int
    command: tuple[str, ...]
    versions: dict[str, str]
    conditions: Conditions
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Sequence[Row], command: Sequence[str]) -> RecipeTable:
        """The table of some rows, made here and now."""
        versions = {package: version(package) for package in (*VERSIONS_OF, "gymnasium", "mujoco", "scipy")}
        return cls(SCHEMA_VERSION, tuple(command), versions, Conditions.now(), tuple(rows))


def row(conversion: Conversion, recipe: Recipe, path: Path, rejection: str | None) -> Row:
    """The row of a conversion that was written to `path`; latency is not in it."""
    manifest = conversion.artifact.manifest
    return Row(
        recipe=recipe.plain(),
        file=str(path),
        file_bytes=path.stat().st_size,
        model_bytes=manifest.flatbuffer_bytes,
        compressed_bytes=manifest.compressed_bytes,
        comparison=manifest.comparison,
        rejection=rejection,
    )


def convert_all(original: Original, recipes: Sequence[Recipe], folder: Path) -> list[Row]:
    """Make each recipe's file in `folder`, in place of those that are there, and measure them in turns.

    A recipe that cannot be made of this policy, or is rejected, is a row that says so. One that cannot be made leaves
    the file that was there.

    Raises:
      OutputError: a file cannot be written.
    """
    rows = []
    for recipe in recipes:
        path = folder / f"{recipe.name}.tflite"
        try:
            conversion = original.to(recipe)
        except UserError as error:
            rows.append(Row(recipe.plain(), failure=str(error)))
            continue
        written, rejection = save(conversion, recipe, path, force=True)
        rows.append(row(conversion, recipe, written, rejection))
        # What an earlier table left under the other name is not in this one.
        for stale in {path, path.with_name(path.name + ".rejected")} - {written}:
            stale.unlink(missing_ok=True)
    return _timed(rows)


def _timed(rows: Sequence[Row]) -> list[Row]:
    made = [(Path(row.file), i) for i, row in enumerate(rows) if row.file is not None]
    if not made:
        return list(rows)
    with progress_bar("latency") as progress:
        done = iter(range(session.SESSIONS))
        act_ns, _ = session.time_in_sessions(
            [("tfqrl", path, 1, "cpu") for path, _ in made],
            None,
            CALLS,
            lambda text: progress(next(done) / session.SESSIONS),
        )
    _, step_ns = session.clock_ns()
    timed = list(rows)
    medians = np.median(act_ns, axis=2)
    names = [rows[i].recipe["name"] for _, i in made]
    for (_, i), times_ns, median in zip(made, act_ns, medians):
        ratio = None
        if "float32" in names:
            ratio = mean_estimate(median / medians[names.index("float32")])
        timed[i] = replace(rows[i], act_us=Latency.of_ns(times_ns, step_ns), act_of_float32=ratio)
    return timed


def table_text(found: RecipeTable) -> str:
    """The table for a terminal, with what has to be said of rows that are no success."""
    lines = [table(HEADER, [_cells(row) for row in found.rows])]
    lines += [sentence for row in found.rows for sentence in (row.rejection,) if sentence]
    lines += [f"{row.recipe['name']} was not made: {row.failure}" for row in found.rows if row.failure]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    name, runtimes = row.recipe["name"], ", ".join(row.recipe["runtimes"])
    comparison = row.comparison
    if comparison is None:
        return [name, *["-"] * 8, runtimes, "not made"]
    if comparison.agreement is not None:
        errors = [f"{comparison.agreement:.2%} same", "-"]
    else:
        errors = [f"{comparison.mean_action_error:.3g}", f"{comparison.max_action_error:.3g}"]
    returns = comparison.returns
    difference, verdict = "-", "-"
    if returns is not None:
        low, high = returns.difference_interval
        difference = f"{returns.difference_mean:+.1f} [{low:+.1f}, {high:+.1f}]"
        verdict = returns.verdict or "-"
    ratio = row.act_of_float32
    return [
        name,
        size(row.file_bytes),
        size(row.compressed_bytes),
        *errors,
        difference,
        verdict,
        "-" if row.act_us is None else f"{row.act_us.p50.value:.2f}",
        "-" if ratio is None else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]",
        runtimes,
        "rejected" if row.rejection else "ok",
    ]
