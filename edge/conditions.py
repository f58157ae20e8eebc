"""The conditions of a measurement: without them a number says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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

    @classmethod
    def now(cls, root: Path = Path("/")) -> Conditions:
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
        )


# Bits of `vcgencmd get_throttled`; 16 higher, the same has happened since boot.
THROTTLING = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


@dataclass(frozen=True)
class Thermal:
    """How hot and how fast the processor is now: what drifts during a measurement.

    Attributes:
      temperature_c: of the hottest zone that the kernel shows; None where it shows none.
      clock_mhz: of the first core; None where the kernel does not show it.
      throttled: what a Raspberry Pi's firmware reports now, of `THROTTLING`; None on other machines.
      throttled_since_boot: the same, ever since boot.
    """

    temperature_c: float | None
    clock_mhz: float | None
    throttled: tuple[str, ...] | None
    throttled_since_boot: tuple[str, ...] | None

    @classmethod
    def now(cls, root: Path = Path("/"), ask: Callable[[], str | None] | None = None) -> Thermal:
        """As it is now; `ask` gives what `vcgencmd get_throttled` prints, None where there is no such command."""
        zones = [_read(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
        degrees = [int(value) / 1000 for value in zones if value is not None and value.lstrip("-").isdigit()]
        clock = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
        bits = _throttled_bits((_get_throttled if ask is None else ask)())
        return cls(
            temperature_c=max(degrees, default=None),
            clock_mhz=int(clock) / 1000 if clock and clock.isdigit() else None,
            throttled=_names(bits, 0),
            throttled_since_boot=_names(bits, 16),
        )


def _get_throttled() -> str | None:
    try:
        command = ["vcgencmd", "get_throttled"]
        return subprocess.run(command, capture_output=True, text=True, timeout=2, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None


def _throttled_bits(output: str | None) -> int | None:
    match = re.fullmatch(r"throttled=0x([0-9a-fA-F]+)\s*", output or "")
    return int(match[1], 16) if match else None


def _names(bits: int | None, shift: int) -> tuple[str, ...] | None:
    return None if bits is None else tuple(name for bit, name in THROTTLING.items() if bits >> (bit + shift) & 1)


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
