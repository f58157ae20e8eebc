"""Doing the cells of a study, on this machine or on a cluster. Ray decides what runs where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from edge.errors import UsageError, UserError
from edge.records import from_plain, to_json
from tfqrl import agents
from tfqrl.ray_engine import ONE_THREAD, ray_engine
from tfqrl.runs import Run, RunError
from tfqrl.signals import StopRequest
from tfqrl.study.outcome import Outcome
from tfqrl.study.plan import BEGINS_WITH, Cell

POLL_S = 2.0
# For a training to save its checkpoint when it is asked to stop.
STOP_S = 60.0


def results(cells: Sequence[Cell], out: Path) -> dict[str, Outcome]:
    """What is there, by name of cell.

    Raises:
      UserError: a result is of other options than its cell has now, or went on from another policy.
    """
    found = {}
    named = {cell.name: cell for cell in cells}
    for cell in cells:
        path = out / "cells" / f"{cell.name}.json"
        if not path.exists():
            continue
        outcome = Outcome.load(path)
        recipes = tuple(policy.recipe for policy in outcome.policies)
        origin = None if cell.begins_with is None else named[cell.begins_with]
        if (
            (recipes, len(outcome.returns), outcome.keep) != (cell.recipes, cell.episodes, cell.keep)
            or _had(cell, outcome.config) != _wanted(cell)
            or _had(origin, outcome.origin) != _wanted(origin)
        ):
            raise UserError(
                f"{path} is of other options than the study asks for now. Remove it, to redo it, or give another --out."
            )
        if outcome.origin_sha256 not in (None, _fingerprint(out / "policies" / str(cell.begins_with))):
            raise UserError(
                f"{path} went on from another policy than policies/{cell.begins_with} is now. Remove it, to redo it."
            )
        found[cell.name] = outcome
    return found


def _fingerprint(policy: Path) -> str | None:
    """Of a policy that others begin with; None if it is not there."""
    return Run.open(policy).fingerprint() if (policy / "checkpoint.npz").exists() else None


def _wanted(cell: Cell | None) -> dict[str, Any]:
    if cell is None:
        return {}
    return _essence(cell.configuration(Path("policies"))[1])


def _had(cell: Cell | None, config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a result was made with, at its default what was no option yet; None if it is not of this cell."""
    if cell is None or config is None:
        return {} if cell is None and config is None else None
    try:
        return _essence(from_plain(agents.get(cell.train[0]).config, config, cell.name))
    except (UsageError, ValueError):
        return None


def _essence(config: Any) -> dict[str, Any]:
    """A configuration without where its runs lie, and what is kept in checkpoints."""
    return {k: v for k, v in json.loads(to_json(config)).items() if k not in (*BEGINS_WITH, "save_replay")}


def do(
    missing: Sequence[Cell], cells: Sequence[Cell], out: Path, *, jobs: int | None, address: str | None
) -> dict[str, str]:
    """Do cells that have no result yet.

    Args:
      missing: these, each behind the one that it begins with.
      cells: all cells of the study.
      out: the study's folder.
      jobs: how many at a time; None for one on each core. On a cluster its nodes say how many.
      address: of a Ray cluster; None for this machine alone.

    Returns:
      By name of cell, why it was not done.

    Raises:
      UserError: there is no such cluster.
      Interrupted: a signal asked to stop.
    """
    if not missing:
        return {}
    for folder in ("cells", "policies", "runs"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    # Ray has a handler of its own for SIGTERM: what stops in good order comes after it.
    engine = ray_engine(jobs if address is None else None, address)
    with engine as ray, StopRequest() as stop, _Progress(cells, out) as progress:
        # Each in a process of its own: what one leaves behind in TensorFlow is nothing to the next.
        environment = {"env_vars": dict.fromkeys(ONE_THREAD, "1")}
        from tfqrl.study.work import work

        task = ray.remote(num_cpus=1, max_calls=1, max_retries=0, runtime_env=environment)(work)
        names, refs = {}, {}
        for cell in missing:
            after = [refs[cell.begins_with]] if cell.begins_with in refs else []
            refs[cell.name] = ref = task.remote(cell, out.resolve(), *after)
            names[ref] = cell.name
        waiting = list(names)
        while waiting and not stop.requested:
            done, waiting = ray.wait(waiting, timeout=POLL_S)
            for ref in done:
                failure = _outcome_of(ray, ref)
                if failure is not None:
                    failures[names[ref]] = failure
                progress.done(names[ref], failure)
            progress.update()
        for ref in waiting:
            ray.cancel(ref)
        if waiting:
            ray.wait(waiting, num_returns=len(waiting), timeout=STOP_S)
        stop.raise_if_requested("go on with the same command")
    return failures


def _outcome_of(ray: Any, ref: Any) -> str | None:
    try:
        failure: str | None = ray.get(ref)
    except ray.exceptions.RayError as error:
        return f"its process ended: {str(error).splitlines()[0]}"
    return failure


class _Progress:
    """A table of tasks and methods on a terminal, or else a line for each cell that ends."""

    def __init__(self, cells: Sequence[Cell], out: Path) -> None:
        self._cells, self._out = cells, out
        self._failed: set[str] = set()
        self._console = Console(stderr=True)
        self._live = Live(self._table(), console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> _Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def done(self, name: str, failure: str | None) -> None:
        """Say that a cell has ended."""
        if failure is not None:
            self._failed.add(name)
        self._console.print(f"{name}: {failure or 'done'}", highlight=False, markup=False, soft_wrap=True)

    def update(self) -> None:
        """Draw it anew."""
        if self._console.is_terminal:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table()
        methods = list(dict.fromkeys(cell.method for cell in self._cells))
        for header in ("task", *methods):
            table.add_column(header)
        for task in dict.fromkeys(cell.task for cell in self._cells):
            row = [[cell for cell in self._cells if (cell.task, cell.method) == (task, method)] for method in methods]
            table.add_row(task, *(self._state(group) for group in row))
        return table

    def _state(self, group: Sequence[Cell]) -> str:
        done = [cell for cell in group if (self._out / "cells" / f"{cell.name}.json").exists()]
        failed = sum(cell.name in self._failed for cell in group)
        running = [f"{part:.0%}" for cell in group if cell not in done and (part := self._fraction(cell))]
        parts = [f"{len(done)}/{len(group)}"] * bool(group) + running + [f"{failed} failed"] * bool(failed)
        return " ".join(parts)

    def _fraction(self, cell: Cell) -> float:
        """How far its training is; 0 before its first report."""
        try:
            run = Run.open(self._out / "runs" / cell.name)
        except RunError:
            return 0.0
        metrics = run.metrics()
        return metrics[-1]["steps"] / run.config["steps"] if metrics else 0.0
