"""Hostile inputs for all that edge reads. `make fuzz` sets FUZZ_INPUTS to 100,000; by default it is a small slice.

Each target of `tests/support/fuzz` has a process of its own, which may take little memory, must not write, and leaves
the folder that it runs in empty.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install pyzmq")

from fuzz.__main__ import TARGETS

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])}
Run = tuple["subprocess.CompletedProcess[str]", list[Path]]
INPUTS = int(os.environ.get("FUZZ_INPUTS", "2000"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, "Future[Run]"]]:
    """The run of each target, as many at a time as there are cores."""
    # Where hypothesis keeps tables that take seconds to make.
    storage = tmp_path_factory.mktemp("hypothesis")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(fuzz, name, storage, tmp_path_factory.mktemp("empty")) for name in TARGETS}


def fuzz(name: str, storage: Path, empty: Path) -> Run:
    environment = {**ENVIRONMENT, "HYPOTHESIS_STORAGE_DIRECTORY": str(storage)}
    words = [sys.executable, "-W", "ignore", "-m", "fuzz", name, str(inputs(name))]
    done = subprocess.run(words, cwd=empty, env=environment, capture_output=True, text=True, check=False, timeout=1800)
    return done, list(empty.iterdir())


def inputs(name: str) -> int:
    return round(INPUTS * TARGETS[name].share)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_is_read_crashes_hangs_fills_the_memory_or_writes(
    name: str, runs: dict[str, "Future[Run]"], capsys: pytest.CaptureFixture[str]
) -> None:
    done, left = runs[name].result()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}"
    counts = json.loads(done.stdout)
    with capsys.disabled():
        print(f"\n{name}: {counts}")
    assert counts["inputs"] >= inputs(name)
    assert left == []


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
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
