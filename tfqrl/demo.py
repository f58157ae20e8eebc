"""The whole way on one small task, by the same commands that a user would type: train, convert, verify, run, measure.

The edge's commands run in processes of their own, as on a device: what they report of time and memory is without
TensorFlow.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

from edge import artifact
from edge.artifact import Manifest
from edge.bench import BenchReport, Entry
from edge.errors import UserError
from edge.files import write_atomically
from edge.loop_report import RunReport
from edge.records import from_plain
from edge.report import energy_cell, size, table
from tfqrl import cli
from tfqrl.demo_page import DemoFigures, demo_page
from tfqrl.runs import Run

ENV = "InvertedDoublePendulum-v5"
STEPS = 1_500_000
# Solved is what Gymnasium calls so: 9100 over the last 100 episodes, here with exploration noise. At best it is 9350.
TARGET_RETURN = 9100
EPISODES = 20
LOOP_S = 10
RECIPES = ("float32", "int8")

# Of the policy without exploration noise, over episodes of their own.
WANTED_RETURN = 9000.0
WANTED_FRACTION = 0.98

Record = TypeVar("Record")


def demo(out: Path, seed: int) -> int:
    """Do it all into the folder `out`; returns 0 if the task was learnt and int8 kept its return, else 1."""
    run = out / "run"
    if (run / "config.json").exists():
        shutil.rmtree(run)
    until = ("--steps", str(STEPS), "--target-return", str(TARGET_RETURN))
    _tfqrl("train", "ppo", "--env", ENV, *until, "--seed", str(seed), "--out", str(run))
    for recipe in RECIPES:
        policy = str(out / f"{recipe}.tflite")
        _tfqrl("convert", str(run), "--recipe", recipe, "--episodes", str(EPISODES), "--out", policy, "--force")
        _edge("verify", policy)
    _edge("run", str(out / "int8.tflite"), "--duration", str(LOOP_S), "--json", str(out / "loop.json"))
    policies = [str(out / f"{recipe}.tflite") for recipe in RECIPES]
    _edge("bench", *policies, "--energy-windows", "3", "--json", str(out / "bench.json"))

    manifests = {recipe: artifact.read(out / f"{recipe}.tflite").manifest for recipe in RECIPES}
    bench = _load(BenchReport, out / "bench.json")
    figures = DemoFigures(
        env=ENV,
        curve=[(record["steps"], record["return"]) for record in Run.open(run).metrics() if "return" in record],
        loop=_load(RunReport, out / "loop.json").loop,
        bench=bench,
        header=(
            "recipe",
            "file",
            "return",
            "difference, 95 % interval",
            "act p50",
            "act p99",
            "memory",
            "energy/action",
        ),
        rows=[_row(manifests[entry.recipe], entry) for entry in bench.entries],
        verdict=_verdict(manifests["int8"]),
    )
    write_atomically(out / "report.html", demo_page(figures).encode())
    print(f"\n{table(figures.header, figures.rows)}\n\n{figures.verdict}\nReport: {out / 'report.html'}")
    return 0 if _learnt(manifests["int8"]) and _kept(manifests["int8"]) else 1


def _tfqrl(*words: str) -> None:
    print(f"\n$ tfqrl {' '.join(words)}", flush=True)
    code = cli.main(words)
    if code > 128:
        raise KeyboardInterrupt
    if code:
        raise UserError(f"The demo stops here: `tfqrl {words[0]}` failed with exit code {code}.")


def _edge(*words: str) -> None:
    print(f"\n$ tfqrl-edge {' '.join(words)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "edge.cli", *words], check=False).returncode
    if code:
        raise UserError(f"The demo stops here: `tfqrl-edge {words[0]}` failed with exit code {code}.")


def _load(kind: type[Record], path: Path) -> Record:
    return from_plain(kind, json.loads(path.read_text()), path.name)


def _row(manifest: Manifest, bench: Entry) -> list[str]:
    returns = manifest.comparison.returns
    assert returns is not None
    low, high = returns.difference_interval
    return [
        bench.recipe,
        size(bench.file_bytes),
        f"{returns.converted_mean:.1f}",
        f"{returns.difference_mean:+.1f} [{low:+.1f}, {high:+.1f}]",
        f"{bench.act_us.p50.value:.2f} us",
        f"{bench.act_us.p99.value:.2f} us",
        size(bench.cold_start.resident_bytes),
        energy_cell(bench.energy),
    ]


def _verdict(manifest: Manifest) -> str:
    returns = manifest.comparison.returns
    assert returns is not None
    fraction = returns.converted_mean / returns.float_mean
    learnt = "reaches" if _learnt(manifest) else "DOES NOT REACH"
    kept = "keeps" if _kept(manifest) else "KEEPS ONLY"
    return (
        f"The float policy's mean return of {returns.float_mean:.1f} over {returns.episodes} episodes {learnt} "
        f"the wanted {WANTED_RETURN:.0f}; int8 {kept} {fraction:.1%} of it (wanted: {WANTED_FRACTION:.0%})."
    )


def _learnt(manifest: Manifest) -> bool:
    returns = manifest.comparison.returns
    return returns is not None and returns.float_mean >= WANTED_RETURN


def _kept(manifest: Manifest) -> bool:
    returns = manifest.comparison.returns
    return returns is not None and returns.converted_mean >= WANTED_FRACTION * returns.float_mean
