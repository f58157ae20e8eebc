"""Hardware in the loop by the commands that a user types, each in a process of its own."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import DATA

from edge.loop_report import RunReport
from edge.records import from_plain
from tfqrl import cli
from tfqrl.hil import HilReport

pytest.importorskip("zmq", reason="needs pyzmq: pip install pyzmq")

LEVER = str(DATA / "lever-int8.tflite")


@pytest.fixture
def keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "keys"
    assert cli.main(["hil-keys", str(folder)]) == 0
    assert f"scp -p {folder}/server.key {folder}/client.key_secret" in capsys.readouterr().out
    assert cli.main(["hil-keys", str(folder)]) == 2
    assert "--force" in capsys.readouterr().err
    return folder


@contextlib.contextmanager
def serving(keys: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tfqrl hil-serve` and its address; killed at the end if it still runs."""
    command = ["hil-serve", "--env", "Pendulum-v1", "--bind", "tcp://127.0.0.1:*", "--keys", str(keys), *words]
    process = subprocess.Popen([sys.executable, "-m", "tfqrl", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Serving Pendulum-v1 at tcp://127.0.0.1:"), line
        yield process, line.split()[3]
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def run_words(address: str, keys: Path, report: Path, *words: str) -> list[str]:
    command = ["run", LEVER, "--plant", "hil", "--connect", address, "--keys", str(keys), "--json", str(report)]
    return [sys.executable, "-u", "-m", "edge.cli", *command, *words]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_policy_controls_a_simulation_in_another_process(
    number: signal.Signals, code: int, keys: Path, tmp_path: Path
) -> None:
    run_json, serve_json = tmp_path / "run.json", tmp_path / "serve.json"
    with serving(keys, "--seed", "7", "--json", str(serve_json)) as (server, address):
        words = run_words(address, keys, run_json, "--rate", "500", "--duration", "0.8")
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"Running lever on {address} at 500 Hz" in done.stdout
        assert "plant                 received " in done.stdout
        server.send_signal(number)
        output, _ = server.communicate(timeout=30)
        assert server.returncode == code
    assert "client 1 is here" in output
    assert "client 1 left" in output
    run = from_plain(RunReport, json.loads(run_json.read_text()), "report")
    served = from_plain(HilReport, json.loads(serve_json.read_text()), "report")
    assert (run.plant, run.seed, served.seed, served.clients) == (address, 7, 7, 1)
    assert run.returns == served.returns
    assert served.steps == run.loop.ticks + 1
    assert run.loop.failsafes == {}
    assert (run.counts["lost"], served.counts["lost"]) == (0, 0)


def test_in_real_time_the_simulation_keeps_its_own_rate(keys: Path, tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    with serving(keys, "--realtime") as (_, address):
        words = run_words(address, keys, report, "--rate", "10", "--duration", "1")
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    run = from_plain(RunReport, json.loads(report.read_text()), "report")
    # Pendulum steps 20 times a second, so that for each of the 10 ticks two observations come.
    assert run.counts["received"] > run.loop.ticks


def test_a_server_that_dies_ends_the_loop_with_the_cause_as_exit_code(keys: Path, tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    with serving(keys) as (server, address):
        words = run_words(address, keys, report, "--rate", "200", "--stop-after", "5", "--failsafe", "zero")
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Running lever")
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith("episode 1:"):
                break
        server.kill()
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 14, errors
    assert "sent no observation for 0.1 s" in output
    run = from_plain(RunReport, json.loads(report.read_text()), "report")
    assert (run.loop.stopped_by, run.loop.failsafes["plant error"] >= 5) == ("plant error", True)
    assert run.loop.ticks >= 200
