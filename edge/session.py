"""Timing contenders in turns, in fresh processes: sessions.

How fast a process is depends on chance for as long as it lives: where its memory lies, which cores and clocks it gets,
who its neighbours are. Calls of one process share that chance, so only another process is an independent sample.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge import children
from edge.contenders import Contender, load
from edge.errors import UserError

Times = npt.NDArray[np.int64]

SESSIONS = 5

# The contenders take turns this often in each, so that a machine that grows hot or busy does so for all of them.
ROUNDS = 8
WARMUP_CALLS = 200

# Kind, file, threads, device: the arguments of `contenders.load`.
Asked = tuple[str, Path, int, str]


def time_in_sessions(
    asked: Sequence[Asked],
    trust: Sequence[str | Path] | None,
    n: int,
    progress: Callable[[str], None] = lambda text: None,
) -> tuple[Times, Times]:
    """Nanoseconds of at least `n` calls of `act` and as many of `invoke`, each (contenders, sessions, calls).

    Raises:
      UserError: a session failed.
    """
    calls = -(-n // (SESSIONS * ROUNDS))
    spec = {
        "contenders": [(kind, str(path), threads, device) for kind, path, threads, device in asked],
        "trust": None if trust is None else [str(key) for key in trust],
        "calls": calls,
    }
    times_ns = np.zeros((2, len(asked), SESSIONS, ROUNDS * calls), np.int64)
    for session in range(SESSIONS):
        progress(f"latency: session {session + 1} of {SESSIONS}")
        answer = np.frombuffer(children.ask("edge.session", given=json.dumps(spec).encode()), np.int64)
        times_ns[:, :, session] = answer.reshape(2, len(asked), -1)
    return times_ns[0], times_ns[1]


def clock_ns() -> tuple[float, int]:
    """What one reading of the clock adds to each time (median), and the smallest step in which it counts; ns."""
    readings = [time.perf_counter_ns() for _ in range(20_000)]
    differences = np.diff(readings)
    return float(np.median(differences)), step_ns(differences)


def step_ns(differences: Times) -> int:
    """The step of the clock behind differences of its readings, in ns.

    They lie on a grid of whole steps. A step that is no whole number of ns (a 54 MHz counter's) is rounded up and down,
    so that neighbours 1 ns apart say nothing.
    """
    gaps = np.diff(np.unique(differences))
    return int(min(gaps[gaps > 1], default=1))


def main(words: Sequence[str]) -> int:
    """What the fresh process does, given a spec as JSON on standard input: the times go to standard output."""
    spec = json.load(sys.stdin)
    try:
        contenders = [
            load(kind, Path(path), threads, device, spec["trust"]) for kind, path, threads, device in spec["contenders"]
        ]
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(_time_in_turns(contenders, spec["calls"]).tobytes())
    return 0


def _time_in_turns(contenders: Sequence[Contender], calls: int) -> Times:
    times_ns = np.zeros((2, len(contenders), ROUNDS, calls), np.int64)
    for contender in contenders:
        _time_acts(contender, np.zeros(WARMUP_CALLS, np.int64))
    for turn in range(ROUNDS):
        for i, contender in enumerate(contenders):
            _time_acts(contender, times_ns[0, i, turn])
            _time_calls(contender.invoke, times_ns[1, i, turn])
    return times_ns


def _time_acts(contender: Contender, times_ns: Times) -> None:
    act, observations, count = contender.act, contender.observations, len(contender.observations)
    clock_ns = time.perf_counter_ns
    for i in range(len(times_ns)):
        observation = observations[i % count]
        start_ns = clock_ns()
        act(observation)
        times_ns[i] = clock_ns() - start_ns


def _time_calls(call: Callable[[], object], times_ns: Times) -> None:
    clock_ns = time.perf_counter_ns
    for i in range(len(times_ns)):
        start_ns = clock_ns()
        call()
        times_ns[i] = clock_ns() - start_ns
