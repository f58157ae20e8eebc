"""The conditions of a measurement: without them a number says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.interpreter import Runtime


@dataclass(frozen=True)
class Conditions:
    """Where and under what a measurement was made.

    Attributes:
      board: the model in the device tree (Raspberry Pi, Coral Dev Board) or in the firmware's product name.
      cpu: the processor's name.
      cores: cores that this process may use.
      governor: frequency governor of the first core; None where the kernel has none to show.
      load_1min: the system's load average before the measurement, in runnable tasks.
      kernel: operating system and kernel release.
      python: Python version.
      numpy: NumPy version.
      tfqrl: version of this project.
      runtime: interpreter, version and threads.
    """

    board: str
    cpu: str
    cores: int
    governor: str | None
    load_1min: float
    kernel: str
    python: str
    numpy: str
    tfqrl: str
    runtime: Runtime

    @classmethod
    def now(cls, runtime: Runtime, root: Path = Path("/")) -> Conditions:
        """The conditions on this machine; `root` stands for the file system's root in tests."""
        return cls(
            board=board(root),
            cpu=_cpu(root),
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            load_1min=os.getloadavg()[0],
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            numpy=np.__version__,
            tfqrl=importlib.metadata.version("tfqrl"),
            runtime=runtime,
        )


def board(root: Path = Path("/")) -> str:
    """The board's name. The processor architecture would not do: a 64-bit Pi and a Coral Dev Board share it."""
    return (
        _read(root / "proc/device-tree/model")
        or _read(root / "sys/devices/virtual/dmi/id/product_name")
        or f"unknown {platform.machine()} machine"
    )


def resident_bytes() -> int | None:
    """Memory of this process that is resident, in bytes; None where /proc does not say."""
    status = _read(Path("/proc/self/statm"))
    return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE") if status else None


def _cpu(root: Path) -> str:
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _read(path: Path) -> str | None:
    try:
        # Device-tree strings end in a NUL.
        return path.read_text(errors="replace").strip().strip("\0") or None
    except OSError:
        return None
