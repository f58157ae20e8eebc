"""Hostile inputs for all that edge reads. `make fuzz` sets FUZZ_INPUTS to 100,000; by default it is a small slice.

Each target of `tests/support/fuzz` has a process of its own, which may take little memory, must not write, and finds the
folder that it runs in empty at the end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install pyzmq")

from fuzz.__main__ import TARGETS

ROOT = Path(__file__).parents[2]
INPUTS = int(os.environ.get("FUZZ_INPUTS", "2000"))


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_is_read_crashes_hangs_fills_the_memory_or_writes(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = round(INPUTS * TARGETS[name].share)
    empty, storage = tmp_path / "empty", tmp_path / "hypothesis"
    empty.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(storage),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "fuzz", name, str(n)],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}"
    counts = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{name}: {counts}")
    assert counts["inputs"] >= n
    assert list(empty.iterdir()) == []


def test_the_shares_are_the_whole() -> None:
    assert sum(target.share for target in TARGETS.values()) == pytest.approx(1.0)
