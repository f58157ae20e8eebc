"""A 1 kHz control loop beside bare wake-ups on the same machine: are the misses the loop's, or the machine's?

    python benchmarks/loop_jitter.py --json results/loop_jitter.json

The loop drives a plant in memory with a policy of HalfCheetah's size. Slices of it take turns with slices of bare
wake-ups at the same deadlines (what cyclictest does: sleep until the next, note how late it was), so that both see the
same machine. Each is done as an ordinary process and with what `tfqrl-edge run` can ask of the kernel: SCHED_FIFO,
locked memory, one core, no garbage collector. A period counts as missed in both if it was over before its work was
done; bare wake-ups have no work.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cheetah
import numpy as np
import provenance

from edge.clock import MonotonicClock
from edge.conditions import Conditions
from edge.loop import ControlLoop
from edge.plants.memory import MemoryPlant
from edge.policy import Policy
from edge.realtime import Realtime, realtime
from edge.report import PERCENTILE_NAMES, percentile_row, table
from edge.stats import Percentiles

HIDDEN = (256, 256)
RATE_HZ = 1000.0
SLICE_S = 2.0


def bare_wake_ups(ticks: int, wanted: Realtime) -> tuple[Any, int]:
    """How late each wake-up was, in ns, and how many periods were over before the process woke."""
    clock, period_ns = MonotonicClock(), round(1e9 / RATE_HZ)
    late_ns, woken, missed, due = np.zeros(ticks, np.int64), 0, 0, 0
    with realtime(wanted):
        start_ns = clock.now_ns()
        while due < ticks:
            deadline_ns = start_ns + due * period_ns
            clock.sleep_until_ns(deadline_ns)
            late_ns[woken] = clock.now_ns() - deadline_ns
            skipped = min(int(late_ns[woken] // period_ns), ticks - due - 1)
            woken, missed, due = woken + 1, missed + skipped, due + 1 + skipped
    return late_ns[:woken], missed


def measure(acting: Policy, wanted: Realtime, slices: int) -> dict[str, Any]:
    """Slices of the loop and of bare wake-ups in turns."""
    ticks = round(SLICE_S * RATE_HZ)
    bare, bare_missed, reports = [], [], []
    for _ in range(slices):
        late_ns, missed = bare_wake_ups(ticks, wanted)
        bare.append(Percentiles.of_ns(late_ns))
        bare_missed.append(missed)
        with MemoryPlant(cheetah.OBSERVATIONS) as plant:
            loop = ControlLoop(acting, plant, rate_hz=RATE_HZ, wanted=wanted)
            reports.append(loop.run(duration_s=SLICE_S))
    return {
        "asked": list(reports[0].realtime.asked),
        "warnings": list(reports[0].realtime.warnings),
        "kernel": reports[0].realtime.kernel,
        "seconds_each": slices * SLICE_S,
        "bare_missed": bare_missed,
        "loop_missed": [report.missed_periods for report in reports],
        "bare_wake_latency_us": over_slices(bare),
        "loop_wake_latency_us": over_slices([report.wake_latency_us for report in reports]),
        "loop_work_us": over_slices([report.work_us for report in reports]),
    }


def over_slices(slices: list[Percentiles | None]) -> dict[str, float]:
    """One row for all slices, which have equal numbers of ticks: means of their percentiles, the largest maximum."""
    rows = [asdict(times) for times in slices if times is not None]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return mean | {"n": sum(row["n"] for row in rows), "max": max(row["max"] for row in rows)}


def main() -> None:
    """Measure, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    slices = max(1, round(options.seconds / SLICE_S))
    acting = cheetah.conversion(HIDDEN, "int8").policy()
    modes = {
        "ordinary process": Realtime(),
        "real time": Realtime(priority=80, lock_memory=True, cpus=[1], collect_garbage=False),
    }
    rows = {name: measure(acting, wanted, slices) for name, wanted in modes.items()}
    for name, row in rows.items():
        print(f"{name}: {row['seconds_each']:g} s each at {RATE_HZ:g} Hz, {'; '.join(row['asked']) or 'nothing asked'}")
        for warning in row["warnings"]:
            print(f"warning: {warning}")
        cells = [
            percentile_row("bare wake-up", Percentiles(**row["bare_wake_latency_us"])),
            percentile_row("loop's wake-up", Percentiles(**row["loop_wake_latency_us"])),
            percentile_row("loop's work", Percentiles(**row["loop_work_us"])),
        ]
        print(table(("microseconds", *PERCENTILE_NAMES), cells))
        print(f"missed periods: bare {sum(row['bare_missed'])}, loop {sum(row['loop_missed'])}\n")
    if options.json:
        result = {
            "commit": provenance.commit(),
            "command": "python benchmarks/loop_jitter.py",
            "rate_hz": RATE_HZ,
            "rows": rows,
            "conditions": asdict(Conditions.now()),
        }
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
