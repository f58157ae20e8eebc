"""Hostile inputs for all that edge reads. `make fuzz` sets FUZZ_INPUTS to 100,000; by default it is a small slice.

Each target of `tests/support/fuzz` has a process of its own, which may take little memory, must not write, and leaves
the folder that it runs in empty.
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


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hypothesis keeps tables that take seconds to make."""
    return tmp_path_factory.mktemp("hypothesis")


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_is_read_crashes_hangs_fills_the_memory_or_writes(
    name: str, storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = round(INPUTS * TARGETS[name].share)
    empty = tmp_path / "empty"
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


def test_the_guard_notices_what_is_written_and_only_that(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    code = (
        "import os; from fuzz.__main__ import Guard; guard = Guard('spared'); guard.reading = True;"
        "open('there').read(); open('spared', 'w'); assert guard.seen == [];"
        "open('one', 'w'); os.mkdir('two'); os.open('three', os.O_CREAT);"
        "assert [event.split()[0] for event in guard.seen] == ['open', 'os.mkdir', 'open'], guard.seen"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
