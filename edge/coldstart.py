"""From nothing to the first action, in a fresh process. Its answer is one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge import children
from edge.conditions import resident_bytes
from edge.errors import UserError
from edge.records import from_plain


@dataclass(frozen=True)
class ColdStart:
    """How long a fresh process takes to its first action, and how much memory it then has.

    Attributes:
      first_action_ms: from starting the process to its first action: Python, imports and all.
      load_ms: of that, importing the runtime, reading the file, building the interpreter and (for a policy file)
        replaying its golden pairs.
      resident_bytes: memory of the process after the first action; None where /proc does not say.
    """

    first_action_ms: float
    load_ms: float
    resident_bytes: int | None


def cold_start(
    kind: str, path: Path, threads: int, device: str, trust: Sequence[str | Path] | None = None, *, starts: int = 3
) -> ColdStart:
    """The median of some fresh processes; for the arguments see `contenders.load`.

    Raises:
      UserError: the process failed.
    """
    runs = []
    for _ in range(starts):
        words = [str(time.monotonic_ns()), kind, str(path), str(threads), device, *map(str, trust or ())]
        answer = children.ask("edge.coldstart", *words)
        runs.append(from_plain(ColdStart, json.loads(answer.splitlines()[-1]), "cold start"))
    memory = [run.resident_bytes for run in runs if run.resident_bytes is not None]
    return ColdStart(
        float(np.median([run.first_action_ms for run in runs])),
        float(np.median([run.load_ms for run in runs])),
        int(np.median(memory)) if memory else None,
    )


def main(words: list[str]) -> int:
    """What the fresh process does, given SPAWNED_NS KIND FILE THREADS DEVICE [KEY ...].

    SPAWNED_NS is the monotonic time at which the parent started it; the keys are those to be trusted.
    """
    # Only here: this module's own imports must stay those that every use of the runtime needs.
    from edge.contenders import load

    spawned_ns, kind, path, threads, device, *trust = words
    began_ns = time.monotonic_ns()
    try:
        contender = load(kind, Path(path), int(threads), device, trust or None)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    loaded_ns = time.monotonic_ns()
    contender.act(contender.observations[0])
    done_ns = time.monotonic_ns()
    result = ColdStart((done_ns - int(spawned_ns)) / 1e6, (loaded_ns - began_ns) / 1e6, resident_bytes())
    print(json.dumps(asdict(result)))
    return 0
