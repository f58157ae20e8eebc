import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import DATA

from edge import cli
from edge.artifact import Manifest
from edge.loop import LoopReport
from edge.records import from_plain

ARM = str(DATA / "arm-int8.tflite")


def test_info_tells_what_the_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", ARM]) == 0
    text = capsys.readouterr().out
    assert "policy                arm" in text
    assert "control rate          50 Hz" in text
    assert cli.main(["info", ARM, "--json"]) == 0
    assert from_plain(Manifest, json.loads(capsys.readouterr().out), "manifest").name == "arm"


def test_verify_replays_the_golden_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", ARM]) == 0
    assert "OK: arm gives its 32 golden actions" in capsys.readouterr().out


def test_bench_writes_json_beside_its_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["bench", ARM, "--n", "200", "--json", str(tmp_path / "bench.json")]) == 0
    assert "energy per action" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["policy"] == "arm"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "none.tflite"], "Cannot read none.tflite"),
        (["info", __file__], "is not a TFLite file"),
        (["run", ARM], "names no environment. Give one with --env"),
        (["run", ARM, "--env", "Pendlum-v1"], "Did you mean 'Pendulum-v1'"),
        (["run", ARM, "--env", "Pendulum-v1", "--rate", "-1"], "not possible"),
        (["run", ARM, "--env", "Pendulum-v1", "--failsafe", "a,b"], "--failsafe takes hold, zero or numbers"),
        (["bench", ARM, "--n", "200", "--json", f"{__file__}/x.json"], "Cannot write"),
    ],
)
def test_errors_are_one_sentence_and_an_exit_code(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gymnasium")
    assert cli.main(words) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tfqrl-edge: ")
    assert message in error


def test_a_plant_of_another_shape_never_gets_more_than_the_failsafe(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    # CartPole observes 4 numbers, the switch 3.
    words = ["run", str(DATA / "switch-int8.tflite"), "--env", "CartPole-v1", "--duration", "1"]
    assert cli.main(words) == 1
    assert "shape (3,)" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_loop_with_its_report(number: signal.Signals, code: int, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    # Pendulum's three observations suit the lever, whose one action is Pendulum's torque.
    report = tmp_path / "loop.json"
    words = ["run", str(DATA / "lever-int8.tflite"), "--env", "Pendulum-v1", "--json", str(report)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "edge.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Running"):
            break
    time.sleep(0.5)
    process.send_signal(number)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert "periods missed" in rest
    result = from_plain(LoopReport, json.loads(report.read_text()), "report")
    assert result.ticks > 0
    assert result.rate_hz == 20.0
