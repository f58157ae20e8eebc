"""`tfqrl study`."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from edge.errors import UsageError, UserError
from edge.files import check_writable, write_atomically
from edge.records import to_json
from tfqrl.options import import_tensorflow, optional, parse

if TYPE_CHECKING:
    from tfqrl.study.plan import Cell


@dataclasses.dataclass(frozen=True)
class StudyCommand:
    """Train and convert a grid of policies, and report what compression costs.

    What is done is not done again: a study that was cut short goes on where it was, also in the middle of a training.
    Only what is missing is done, so seeds, tasks and methods can be added to its file.

    Example: tfqrl study studies/quarl-smoke.yaml --out results/quarl-smoke

    Example: tfqrl study studies/quarl.yaml --out results/quarl --only 'ppo-.*-s20'

    Example: tfqrl study studies/quarl-full.yaml --out /shared/quarl --ray auto

    Attributes:
      study: the study's file (docs/studies.md).
      out: folder for the results: cells/ has a JSON for each training, latency/ one for each task, and report.html is
        drawn from them; policies/ has those that other trainings begin with; runs/ has what is not worth keeping.
      only: do only the trainings whose names match this regular expression; the report has all that are done.
      jobs: trainings at a time, each on one core (default: as many as there are cores).
      ray: address of a Ray cluster to train on (auto: the one that this machine belongs to); --out must be a folder
        that its nodes share.
    """

    study: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STUDY.yaml")]
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    only: Annotated[str | None, optional("REGEX")] = None
    jobs: Annotated[int | None, optional("N")] = None
    ray: Annotated[str | None, optional("ADDRESS")] = None


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(StudyCommand, "tfqrl study", words)
    if command.jobs is not None and command.jobs < 1:
        raise UsageError(f"--jobs must be at least 1; it was given {command.jobs}.")
    if command.jobs is not None and command.ray is not None:
        raise UsageError("--jobs is for this machine; with --ray the cluster's nodes say how many cores they have.")
    try:
        only = re.compile(command.only or "")
    except re.error as error:
        raise UsageError(f"--only takes a regular expression; {command.only!r} is none ({error}).") from error
    import_tensorflow()
    from tfqrl.progress import progress_bar
    from tfqrl.study import grid, latency, plan, report, tables

    study = plan.load(command.study)
    cells = plan.cells(study)
    wanted = [cell for cell in cells if only.search(cell.name)]
    if not wanted:
        raise UsageError(f"--only {command.only} names none of the {len(cells)} trainings, {cells[0].name} for one.")
    check_writable(command.out / "report.html")
    done = grid.results(cells, command.out)
    missing = [cell for cell in _with_origins(wanted, cells) if cell.name not in done]
    with progress_bar("what is to be trained") as progress:
        plan.check_cells(missing, progress)
    failures = grid.do(missing, cells, command.out, jobs=command.jobs, address=command.ray)
    outcomes = list(grid.results(cells, command.out).values())
    if not outcomes:
        raise UserError("\n".join(["Nothing was done:", *(f"{name}: {why}" for name, why in failures.items())]))
    times = latency.measure(outcomes, command.out, lambda text: print(text, file=sys.stderr))
    found = tables.findings(study, outcomes, times, ["tfqrl", "study", *words])
    print(report.text(found, failures))
    page = command.out / "report.html"
    text = report.study_page(found, outcomes, len(cells) - len(outcomes))
    write_atomically(page, text.encode())
    write_atomically(command.out / "findings.json", to_json(found).encode())
    print(f"Report: {page}")
    return 1 if failures else 0


def _with_origins(wanted: list[Cell], cells: list[Cell]) -> list[Cell]:
    """With the cells that they begin with, in order."""
    names = {cell.name for cell in wanted} | {cell.begins_with for cell in wanted}
    return [cell for cell in cells if cell.name in names]
