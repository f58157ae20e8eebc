"""Asking the kernel for punctuality, for the time of a control loop. What is refused is named, with its cure."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_MCL_CURRENT, _MCL_FUTURE = 1, 2


@dataclass(frozen=True)
class Realtime:
    """What is asked for.

    Attributes:
      priority: SCHED_FIFO priority, 1..99; None stays with the normal scheduler.
      lock_memory: keep all of the process in memory (mlockall), so that no tick waits for a page.
      cpus: cores that the loop may run on; None leaves them be.
      collect_garbage: leave Python's garbage collector on in the loop.
    """

    priority: int | None = None
    lock_memory: bool = False
    cpus: Sequence[int] | None = None
    collect_garbage: bool = True


@dataclass(frozen=True)
class Granted:
    """What was granted.

    Attributes:
      kernel: "PREEMPT_RT" if the running kernel is fully preemptible, else "not real-time".
      asked: what was asked for, in words.
      warnings: a sentence for each part that was refused: what, why, and what would permit it.
    """

    kernel: str
    asked: tuple[str, ...]
    warnings: tuple[str, ...]


def kernel(root: Path = Path("/")) -> str:
    """Whether the running kernel is PREEMPT_RT; it says so in sysfs."""
    try:
        return "PREEMPT_RT" if (root / "sys/kernel/realtime").read_text().strip() == "1" else "not real-time"
    except OSError:
        return "not real-time"


@contextmanager
def realtime(wanted: Realtime) -> Iterator[Granted]:
    """Apply `wanted` to the calling thread (memory and garbage: to the process) and take it back at the end."""
    asked: list[str] = []
    warnings: list[str] = []
    with ExitStack() as undo:
        if wanted.cpus is not None:
            asked.append(f"cores {','.join(map(str, wanted.cpus))}")
            _affinity(wanted.cpus, undo, warnings)
        if wanted.lock_memory:
            asked.append("memory locked")
            _lock_memory(undo, warnings)
        if not wanted.collect_garbage:
            asked.append("garbage collector off")
            _garbage_off(undo)
        # Last, so that nothing above runs at real-time priority.
        if wanted.priority is not None:
            asked.append(f"SCHED_FIFO {wanted.priority}")
            _fifo(wanted.priority, undo, warnings)
        yield Granted(kernel(), tuple(asked), tuple(warnings))


def _affinity(cpus: Sequence[int], undo: ExitStack, warnings: list[str]) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except (OSError, ValueError, OverflowError) as error:
        present = ",".join(map(str, sorted(before)))
        warnings.append(f"Cores {','.join(map(str, cpus))} were refused ({error}); this process may use {present}.")
    else:
        undo.callback(os.sched_setaffinity, 0, before)


def _lock_memory(undo: ExitStack, warnings: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE):
        reason = os.strerror(ctypes.get_errno())
        warnings.append(
            f"Memory was not locked ({reason}). Allow it with `memlock unlimited` in /etc/security/limits.conf, "
            "LimitMEMLOCK=infinity in a service, or the capability CAP_IPC_LOCK."
        )
    else:
        undo.callback(libc.munlockall)


def _garbage_off(undo: ExitStack) -> None:
    if gc.isenabled():
        gc.collect()
        # What exists now is not looked at again when the collector is back on.
        gc.freeze()
        gc.disable()
        undo.callback(gc.unfreeze)
        undo.callback(gc.enable)


def _fifo(priority: int, undo: ExitStack, warnings: list[str]) -> None:
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except (OSError, ValueError, OverflowError) as error:
        warnings.append(
            f"Real-time priority {priority} was refused ({error}). Allow it with `rtprio 99` in "
            "/etc/security/limits.conf, LimitRTPRIO=99 in a service, or the capability CAP_SYS_NICE."
        )
    else:
        undo.callback(os.sched_setscheduler, 0, policy, parameters)
