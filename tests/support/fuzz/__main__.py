"""`python -m fuzz TARGET INPUTS`: one target in this process, which is watched while it reads.

Ends with an exception at the first input that raises what it should not, takes too long, or writes anything anywhere.
Prints counts as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import hypothesis

from fuzz import artefact, streams

TARGETS = {**artefact.TARGETS, **streams.TARGETS}

# Far above what any input needs (most take less than 1 ms), and far below a hang.
MAX_S = 20.0
# What a hostile file may cost beside the process itself; a Raspberry Pi Zero has 512 MiB.
MAX_GROWTH_BYTES = 256 * 2**20
BATCH, SEED = 250, 1000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EVENTS = (
    *("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate", "os.system", "os.exec", "os.fork"),
    *("os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.bind", "shutil.", "pickle.find_class"),
)


class Guard:
    """Notes what the code under test does to the world while `reading`."""

    def __init__(self, spared: str) -> None:
        self.reading, self.spared = False, spared
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.reading:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and str(path) != self.spared:
                self.seen.append(f"open {path}")
        elif event.startswith(EVENTS):
            self.seen.append(f"{event} {arguments}")


def main(name: str, n: int) -> None:
    target, guard = TARGETS[name], Guard(str(streams.LOG))
    counts = {"inputs": 0, "accepted": 0, "refused": 0}
    longest_s = 0.0

    def read(given: Any) -> None:
        nonlocal longest_s
        counts["inputs"] += 1
        began_s = time.monotonic()
        guard.reading = True
        try:
            counts["accepted"] += target.read(given)
        except target.refuses:
            counts["refused"] += 1
        finally:
            guard.reading = False
        took_s = time.monotonic() - began_s
        longest_s = max(longest_s, took_s)
        assert took_s < MAX_S, f"took {took_s:.1f} s: {given!r:.300}"
        assert not guard.seen, f"{guard.seen}: {given!r:.300}"

    settings = hypothesis.settings(
        deadline=None,
        database=None,
        phases=(hypothesis.Phase.generate,),
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    def run(seed: int, batch: int) -> None:
        hypothesis.seed(seed)(
            hypothesis.settings(settings, max_examples=batch)(hypothesis.given(target.inputs)(read))
        )()

    # What libraries build when they are first used is not the inputs' doing.
    run(SEED, 20)
    counts = dict.fromkeys(counts, 0)
    before_bytes = forget_peak()
    resource.setrlimit(resource.RLIMIT_AS, (status_bytes("VmSize") + 2 * MAX_GROWTH_BYTES,) * 2)
    # In batches, because hypothesis remembers all that it has tried.
    for i, begin in enumerate(range(0, n, BATCH)):
        run(SEED + 1 + i, min(BATCH, n - begin))
    growth_bytes = status_bytes("VmHWM") - before_bytes
    print(json.dumps({**counts, "longest_s": round(longest_s, 3), "growth_mib": growth_bytes >> 20}))
    assert growth_bytes < MAX_GROWTH_BYTES, f"{growth_bytes >> 20} MiB"


def status_bytes(name: str) -> int:
    """A size that the kernel tells of this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return 1024 * int(line.split()[1])


def forget_peak() -> int:
    """Let VmHWM, the largest memory so far, begin again at what is in use; returns that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return status_bytes("VmRSS")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
