"""The fault campaign of `tests/support/faults`."""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DATA, FakeClock, FakePlant
from faults import FAILSAFE, FAULTS, GOOD, GROUPS, Fault, Rig, happen
from faults.__main__ import PAGE, drawn
from faults.actuator import Arm

from edge import cli
from edge.errors import UserError
from edge.loop import ControlLoop
from edge.policy import Policy
from edge.safety import Safety

RUNS = [(fault, lasting) for fault in FAULTS for lasting in ((False, True) if fault.may_last else (False,))]


@pytest.mark.parametrize(
    ("fault", "lasting"),
    RUNS,
    ids=[f"{fault.group}: {fault.name[:-1]}{' (lasting)' if lasting else ''}" for fault, lasting in RUNS],
)
def test_a_fault_ends_in_the_failsafe_action(
    fault: Fault, lasting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen(fault, Rig(lasting, tmp_path, monkeypatch))


def test_the_campaign_has_faults_of_every_kind() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    assert {fault.group for fault in FAULTS} == set(GROUPS)


# Faults before the loop begins: it does not, and the plant is not touched.


class Untouched(FakePlant):
    def __getattribute__(self, name: str) -> Any:
        assert name not in ("reset", "read", "write"), f"{name} was called"
        return super().__getattribute__(name)


def refused(message: str, **options: Any) -> None:
    loop = ControlLoop(Policy.load(DATA / "arm-int8.tflite"), Untouched([GOOD]), clock=FakeClock(), **options)
    with pytest.raises(UserError, match=message):
        loop.run(duration_s=0.1)


def test_a_log_in_a_folder_that_cannot_be_made_keeps_the_loop_from_beginning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused("Cannot write the log", log=tmp_path / "file" / "ticks.log")


@pytest.mark.parametrize(
    ("thread", "message"),
    [("ticklog", "Cannot write the log .*can't start new thread"), ("watchdog", "watchdog .*cannot be started")],
)
def test_a_thread_that_cannot_be_started_keeps_the_loop_from_beginning(
    thread: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(self: threading.Thread) -> None:
        if self.name == thread:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", fail)
    descriptors = len(os.listdir("/proc/self/fd"))
    refused(message, log=tmp_path / "ticks.log", safety=Safety(max_block_s=1.0))
    assert len(os.listdir("/proc/self/fd")) == descriptors


# Faults around the command, of which the loop knows nothing.


def command(tmp_path: Path, *options: str) -> list[str]:
    words = ["run", str(DATA / "arm-int8.tflite"), "--env", "faults/Arm-v0", "--failsafe=0.5,0.25", "--duration", "0.1"]
    return [*words, *options]


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the environment of the command gets."""
    taken: list[Any] = []

    def step(env: Any, action: Any) -> Any:
        taken.append(action)
        return GOOD, 0.0, False, False, {}

    monkeypatch.setattr(Arm, "step", step)
    return taken


def test_a_report_that_cannot_be_written_is_refused_before_anything_moves(
    tmp_path: Path, actions: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(command(tmp_path, "--json", str(tmp_path / "file" / "loop.json"))) == 1
    assert "Cannot write" in capsys.readouterr().err
    assert actions == []


def test_a_folder_of_the_report_that_vanishes_costs_neither_the_printed_report_nor_the_last_action(
    tmp_path: Path, actions: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    monkeypatch.setattr(Arm, "reset", lambda env, **options: (shutil.rmtree(folder), folder.touch(), (GOOD, {}))[-1])
    assert cli.main(command(tmp_path, "--json", str(folder / "loop.json"))) == 1
    captured = capsys.readouterr()
    assert "Cannot write" in captured.err
    assert "stopped by duration" in captured.out
    np.testing.assert_array_equal(actions[-1], FAILSAFE)


def test_a_report_is_written_though_nobody_is_there_to_print_to(
    tmp_path: Path, actions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is left of a terminal whose session was lost.
    def hang_up(*words: Any, **options: Any) -> None:
        if actions:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.print", hang_up)
    assert cli.main(command(tmp_path, "--json", str(tmp_path / "loop.json"))) == 0
    np.testing.assert_array_equal(actions[-1], FAILSAFE)
    assert json.loads((tmp_path / "loop.json").read_text())["loop"]["stopped_by"] == "duration"


def test_the_safety_page_has_every_fault() -> None:
    page = PAGE.read_text()
    assert page == drawn(page), "run `PYTHONPATH=.:tests/support python -m faults`"
