"""How long the policies of a study take on this machine, and what energy: measured when nothing is trained any more."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.bench import Entry, bench
from edge.conditions import Conditions
from edge.errors import UserError
from edge.files import write_atomically
from edge.records import from_plain, to_json
from tfqrl.study.outcome import Outcome
from tfqrl.study.plan import file_name

SCHEMA_VERSION = 1
CALLS = 20_000


@dataclasses.dataclass(frozen=True)
class Timed:
    """A policy, measured.

    Attributes:
      method, recipe: which one of its task.
      entry: what `tfqrl-edge bench` measures.
    """

    method: str
    recipe: str
    entry: Entry

    @property
    def key(self) -> tuple[str, str, str]:
        """Method, recipe, and which model."""
        return self.method, self.recipe, self.entry.sha256


@dataclasses.dataclass(frozen=True)
class TaskLatency:
    """The policies of a task, measured in turns.

    Attributes:
      schema_version: of this layout.
      conditions: the machine and its versions.
      seed: of the trainings; those of other seeds have the same networks.
      policies: all of them.
    """

    schema_version: int
    conditions: Conditions
    seed: int
    policies: tuple[Timed, ...]


def measure(outcomes: Sequence[Outcome], out: Path, progress: Callable[[str], None]) -> dict[str, TaskLatency]:
    """What is measured of each task, by its name: what is there, and what can be measured now.

    A task is measured when its policies, of the lowest seed, are in the study's folder. What was measured is not
    measured again, unless policies were added or are others now.

    Raises:
      UserError: a result cannot be read or written.
    """
    found = {}
    for task in dict.fromkeys(outcome.task for outcome in outcomes):
        of_task = [outcome for outcome in outcomes if outcome.task == task]
        seed = min(outcome.seed for outcome in of_task)
        wanted = {
            (outcome.method, policy.recipe, policy.sha256): out / "runs" / outcome.cell / f"{policy.recipe}.tflite"
            for outcome in of_task
            if outcome.seed == seed
            for policy in outcome.policies
            if policy.failure is None
        }
        path = out / "latency" / f"{file_name(task)}.json"
        if path.exists():
            known = _load(path)
            of_these = tuple(timed for timed in known.policies if timed.key in wanted)
            found[task] = dataclasses.replace(known, policies=of_these)
            if len(of_these) == len(wanted):
                continue
        if not all(policy.exists() for policy in wanted.values()):
            progress(f"latency of {task}: not measured, because not all of its policies are in {out / 'runs'}")
        elif wanted:
            progress(f"latency of {len(wanted)} policies of {task}")
            report = bench(list(wanted.values()), n=CALLS, energy_windows=3)
            timed = tuple(Timed(method, recipe, entry) for (method, recipe, _), entry in zip(wanted, report.entries))
            found[task] = TaskLatency(SCHEMA_VERSION, report.conditions, seed, timed)
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, to_json(found[task]).encode())
    return found


def _load(path: Path) -> TaskLatency:
    try:
        return from_plain(TaskLatency, json.loads(path.read_text()), path.name)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no measurement of a study: {error}. Remove it, to redo it.") from error
