"""Disks that fill up or fail, and files that change under a running loop."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

from fakes import DATA

from edge import ticklog
from edge.policy import Policy
from faults import FAULTS, GOOD, Fault, Rig, fault


def log_fails(call: str, error: OSError) -> Callable[[Rig], None]:
    """The log's calls of `os.<call>` fail; those of others do not."""

    def inject(rig: Rig) -> None:
        real = getattr(os, call)

        def fail(descriptor: int, *arguments: Any) -> Any:
            if os.readlink(f"/proc/self/fd/{descriptor}") == str(rig.options["log"]):
                raise error
            return real(descriptor, *arguments)

        rig.patch.setattr(ticklog.os, call, fail)

    return inject


FAULTS += [
    Fault(
        "file",
        "The log's disk is full.",
        log_fails("pwrite", OSError(28, "No space left on device")),
        says="the log ended early: No space left on device",
    ),
    Fault(
        "file",
        "The log's disk fails.",
        log_fails("pwrite", OSError(5, "Input/output error")),
        says="the log ended early: Input/output error",
    ),
    Fault(
        "file",
        "The log's disk says only at closing that it is full.",
        log_fails("close", OSError(122, "Disk quota exceeded")),
        says="the log may be incomplete: Disk quota exceeded",
    ),
]


def at_first(rig: Rig, does: Callable[[], Any]) -> None:
    def read() -> Any:
        if rig.tick == rig.first:
            does()
        return GOOD

    rig.at_read(read)


@fault("file", "The log is removed while it is written.", says="the log was removed while it was written")
def _(rig: Rig) -> None:
    at_first(rig, lambda: rig.options["log"].unlink())


@fault("file", "The log's folder is moved away while it is written.")
def _(rig: Rig) -> None:
    rig.options["log"] = rig.folder / "logs" / "ticks.log"

    def move() -> None:
        (rig.folder / "logs").rename(rig.folder / "old")
        (rig.folder / "logs").mkdir()
        (rig.folder / "logs" / "ticks.log").symlink_to(rig.folder / "old" / "ticks.log")

    at_first(rig, move)


def policy_changes(change: Callable[[Any], Any]) -> Callable[[Rig], None]:
    """The policy is loaded from a file that then changes."""

    def inject(rig: Rig) -> None:
        path = rig.folder / "policy.tflite"
        shutil.copy(DATA / "arm-int8.tflite", path)
        rig.policy = Policy.load(path)
        at_first(rig, lambda: change(path))

    return inject


def cut(path: Any) -> None:
    with path.open("r+b") as file:
        file.truncate(100)


def overwrite(path: Any) -> None:
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


FAULTS += [
    Fault("file", "The policy file is removed while its policy acts.", policy_changes(lambda path: path.unlink())),
    Fault("file", "The policy file is cut short while its policy acts.", policy_changes(cut)),
    Fault("file", "The policy file is overwritten in place while its policy acts.", policy_changes(overwrite)),
]
