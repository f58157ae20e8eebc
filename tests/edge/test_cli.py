import dataclasses
import json
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fakes import DATA

from edge import artifact, cli
from edge.artifact import Comparison, Manifest, Returns
from edge.errors import OutputError
from edge.loop_report import RunReport
from edge.policy import Policy
from edge.records import from_plain
from edge.report import comparison_lines
from edge.safety import Cause
from edge.ticklog import TickLog

CAMERA = """
import numpy as np

class Camera:
    def __init__(self, spec, kind="uint8"):
        self.shape, self.kind = spec.observation.shape, kind
        self.noise = np.random.default_rng(0)

    def reset(self):
        pass

    def read(self):
        return self.noise.integers(0, 256, self.shape, np.uint8).astype(self.kind)

    def write(self, action):
        assert action in (0, 1, 2)
        return action

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass
"""

LEVER = str(DATA / "lever-int8.tflite")
ARM = str(DATA / "arm-int8.tflite")


def test_info_tells_what_the_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", ARM]) == 0
    text = capsys.readouterr().out
    assert "policy                arm" in text
    assert "control rate          50 Hz" in text
    assert cli.main(["info", ARM, "--json"]) == 0
    assert from_plain(Manifest, json.loads(capsys.readouterr().out), "manifest").name == "arm"


def test_info_tells_of_frames_and_of_what_the_conversion_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = artifact.read(DATA / "glance-int8-full.tflite")
    returns = Returns(20, 7, 900.0, 893.5, -6.5, (-9.0, -4.0), 93.3, "equivalent")
    manifest = dataclasses.replace(
        source.manifest,
        recipe={"name": "int8-full", "runtimes": ["ai-edge-litert", "tflite-runtime"]},
        comparison=dataclasses.replace(source.manifest.comparison, returns=returns),
        compressed_bytes=1536,
        notes=("Calibrated on 10000 of 12000 observations.", "Removed 3 dead neurons."),
    )
    path = str(tmp_path / "glance.tflite")
    artifact.write(path, dataclasses.replace(source, manifest=manifest))
    assert cli.main(["info", path]) == 0
    text = capsys.readouterr().out
    for line in (
        "recipe                int8-full, for ai-edge-litert, tflite-runtime",
        "observation           uint8 [12, 12, 2]",
        "action                one of 3",
        f"{manifest.flatbuffer_bytes / 1024:.1f} KiB model, 1.5 KiB compressed",
        "verdict               equivalent within ±93.3 (two one-sided tests, 5 %)",
        "note                  Calibrated on 10000 of 12000 observations.",
        "note                  Removed 3 dead neurons.",
    ):
        assert line in text
    assert cli.main(["info", path, "--json"]) == 0
    assert from_plain(Manifest, json.loads(capsys.readouterr().out), "manifest") == manifest


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("better", "better, by more than 93.3 (two one-sided tests, 5 %)"),
        ("worse", "worse, by more than 93.3 (two one-sided tests, 5 %)"),
        ("undecided", "undecided: neither within ±93.3 nor beyond it (two one-sided tests, 5 %); play more episodes"),
    ],
)
def test_a_verdict_that_is_not_equivalence_says_which_way(verdict: Any, says: str) -> None:
    returns = Returns(20, 7, 900.0, 893.5, -6.5, (-9.0, -4.0), 93.3, verdict)
    lines = comparison_lines(Comparison(100, 0.1, 0.1, None, returns))
    assert lines[-1] == f"verdict               {says}"


def test_a_policy_for_frames_drives_a_plant_that_gives_them_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "one_camera.py").write_text(CAMERA)
    glance = str(DATA / "glance-int8-full.tflite")
    words = ["run", glance, "--plant", "one_camera:Camera", "--rate", "200", "--duration", "0.1", "--log", "ticks.log"]
    assert cli.main([*words, "--json", "run.json"]) == 0
    assert json.loads(Path("run.json").read_text())["loop"]["failsafes"] == {}
    assert cli.main(["replay", "ticks.log", glance]) == 0
    assert "0 of them come out differently" in capsys.readouterr().out
    assert cli.main([*words, "--set", "kind=float32", "--stop-after", "3", "--json", "run.json"]) == 14
    assert "takes a numpy array of uint8" in next(
        iter(json.loads(Path("run.json").read_text())["loop"]["plant_errors"])
    )
    for plant in (["serial", "--port", "/dev/ttyUSB0"], ["hil", "--connect", "tcp://127.0.0.1:5757"]):
        assert cli.main(["run", glance, "--plant", *plant]) == 2
        assert "The policy observes camera frames, 12x12x2 bytes" in capsys.readouterr().err


def test_verify_replays_the_golden_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", ARM]) == 0
    assert "OK: arm gives its 37 golden actions" in capsys.readouterr().out


def test_bench_writes_json_beside_its_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["bench", ARM, "--n", "200", "--energy-windows", "0", "--json", str(tmp_path / "bench.json")]) == 0
    assert "arm int8" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["entries"][0]["name"] == "arm"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "none.tflite"], "Cannot read none.tflite"),
        (["info", __file__], "is not a TFLite file"),
        (["run", ARM], "names no environment. Give one with --env"),
        (["run", ARM, "--env", "Pendlum-v1"], "Did you mean 'Pendulum-v1'"),
        (["run", ARM, "--env", "nowhere:Pendulum-v1"], "cannot be made here"),
        (["run", ARM, "--env", "HalfCheetah-v3"], "cannot be made here"),
        (["run", LEVER, "--env", "Pendulum-v1", "--rate", "-1"], "not possible"),
        (["run", LEVER, "--env", "Pendulum-v1", "--duration", "inf"], "A duration must be above 0 s"),
        (["run", LEVER, "--env", "Pendulum-v1", "--failsafe", "a,b"], "--failsafe takes hold, zero or numbers"),
        (["run", LEVER, "--env", "Pendulum-v1", "--failsafe=-0.5,0.5"], "must be 1 finite number(s)"),
        (["run", LEVER, "--env", "Pendulum-v1", "--failsafe=9"], "must lie within the policy's bounds"),
        (["run", LEVER, "--env", "Pendulum-v1", "--max-age", "inf"], "at most a day, or left out for no limit"),
        (["run", LEVER, "--env", "Pendulum-v1", "--max-block", "1e11"], "at most a day, or left out for no limit"),
        (["run", LEVER, "--env", "Pendulum-v1", "--rate", "1e-300"], "is not possible"),
        (["run", LEVER, "--env", "Pendulum-v1", "--duration", "1e308"], "at most ten years"),
        (["run", LEVER, "--env", "Pendulum-v1", "--slew", "nan"], "must be a number above 0"),
        (["run", LEVER, "--env", "Pendulum-v1", "--log", ARM], "exists and is no log of ticks"),
        (["run", LEVER, "--env", "Pendulum-v1", "--threads", "0"], "must be from 1 to 64"),
        (["run", LEVER, "--plant", "hil"], "--plant hil needs --connect"),
        (["run", LEVER, "--plant", "hil", "--connect", "tcp://127.0.0.1:9", "--keys", "none"], "Make keys with"),
        (["verify", ARM, "--threads", "0"], "must be from 1 to 64"),
        (["verify", ARM, "--threads", "1000000"], "must be from 1 to 64"),
        (["verify", ARM, "--threads", "99999999999"], "must be from 1 to 64"),
        (["bench", ARM, "--rate", "0"], "A rate of 0 Hz is not possible"),
        (["bench", ARM, "--meter", "hwmno"], "Unknown meter 'hwmno'. Did you mean 'hwmon'"),
        (["run", LEVER, "--env", "Pendulum-v1", "--meter", "pmic"], "only a Raspberry Pi 5 has it"),
        (["bench", ARM, "--n", "200", "--json", f"{__file__}/x.json"], "Cannot write"),
        (["bench", ARM, "--threads", "1,x"], "--threads takes numbers separated by commas"),
        (["bench", ARM, "--against", "model.onnx"], "--against takes a runtime and a model"),
        (["verify", ARM, "--device", "gpu"], "A device is cpu, edgetpu"),
        (["compare", ARM, "none.json"], "is not JSON"),
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


@pytest.mark.parametrize(
    ("policy", "env"), [("switch", "CartPole-v1"), ("arm", "Pendulum-v1"), ("switch", "Pendulum-v1")]
)
def test_a_plant_that_is_not_the_policys_is_refused(policy: str, env: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    assert cli.main(["run", str(DATA / f"{policy}-int8.tflite"), "--env", env, "--duration", "1"]) == 2
    captured = capsys.readouterr()
    assert f"{env} observes" in captured.err
    assert "Running" not in captured.out


def test_a_policy_that_fails_its_golden_pairs_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = artifact.read(DATA / "lever-int8.tflite")
    golden = dataclasses.replace(source.golden, actions=source.golden.actions + 1.0)
    artifact.write(tmp_path / "policy.tflite", dataclasses.replace(source, golden=golden))
    assert cli.main(["run", str(tmp_path / "policy.tflite"), "--env", "Pendulum-v1", "--duration", "1"]) == 1
    captured = capsys.readouterr()
    assert "37 of 37 golden actions differ" in captured.err
    assert "Running" not in captured.out


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
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
    result = from_plain(RunReport, json.loads(report.read_text()), "report")
    assert result.loop.ticks > 0
    assert result.loop.rate_hz == 20.0
    assert result.loop.stopped_by == number.name
    assert (result.policy, result.plant) == ("lever", "Pendulum-v1")


STUCK = """
import signal, time
import numpy as np

class Stuck:
    reads = 0
    deaf = False

    def __init__(self, spec, deaf=False):
        self.spec, self.deaf = spec, deaf

    def reset(self):
        pass

    def read(self):
        self.reads += 1
        if self.reads == 3:
            if self.deaf:  # like a driver that is stuck in the kernel
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            time.sleep(1000)
        return np.zeros(self.spec.observation.shape)

    def write(self, action):
        print("written", action.tolist(), file=open("written.txt", "a"))
        return action

    def __enter__(self):
        return self

    def __exit__(self, *error):
        print("left", file=open("written.txt", "a"))
"""


@pytest.mark.parametrize("deaf", [False, True])
def test_a_plant_that_never_comes_back_ends_the_process_in_the_failsafe_state(deaf: bool, tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    words = [sys.executable, "-m", "edge.cli", "run", str(Path(LEVER).absolute()), "--plant", "stuck:Stuck"]
    words += ["--set", f"deaf={str(deaf).lower()}", "--rate", "100", "--failsafe=1.5", "--max-block", "0.05"]
    words += ["--stop-after", "3", "--json", "run.json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 15, done.stderr
    assert "stopped by plant blocked" in done.stdout
    report = from_plain(RunReport, json.loads((tmp_path / "run.json").read_text()), "report")
    assert (report.loop.ticks, report.loop.stopped_by) == (2, "plant blocked")
    written = (tmp_path / "written.txt").read_text().splitlines()
    # What cannot be reached cannot be closed either: then the watchdog's write is the last thing that happens.
    assert written[2:] == (["written [1.5]"] if deaf else ["written [1.5]", "written [1.5]", "left"])


def test_limits_can_be_switched_off_and_what_the_kernel_cannot_do_is_a_warning() -> None:
    pytest.importorskip("gymnasium")
    words = [
        "run",
        LEVER,
        "--env",
        "Pendulum-v1",
        "--duration",
        "0.1",
        "--stop-after",
        "none",
        "--range-margin",
        "none",
    ]
    assert cli.main([*words, "--priority", "99999999999", "--cpus", "1099511627776"]) == 0


def test_help_names_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    for cause in Cause:
        assert f"  {cause.exit_code} {cause.text}" in text


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("tfqrl ")


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    words = [sys.executable, "-m", "edge.cli", "info", ARM]
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {shlex.join(words)} | head -c 0"], capture_output=True)
    assert b"Traceback" not in done.stderr


def test_a_log_without_ticks_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TickLog(tmp_path / "ticks.log", Policy.load(ARM), rate_hz=50).close()
    assert cli.main(["replay", str(tmp_path / "ticks.log"), ARM]) == 1
    assert "nothing to compare" in capsys.readouterr().err
    assert cli.main(["replay", str(tmp_path / "ticks.log"), str(DATA / "arm-float32.tflite")]) == 1
    assert "the log is of another model" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_does_not_hide_why_the_loop_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "halt.py").write_text(HALT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def full(path: Path, data: bytes) -> None:
        raise OutputError(f"Cannot write {path}: No space left on device.")

    monkeypatch.setattr("edge.run_command.write_atomically", full)
    words = ["run", LEVER, "--plant", "halt:Halt", "--rate", "100", "--json", "run.json"]
    # 18 is what keeps a service from starting the motors again.
    assert cli.main(words) == 18
    assert "No space left" in capsys.readouterr().err
    sys.modules.pop("halt")


HALT = """
from edge.plants import PlantStoppedError

class Halt:
    def __init__(self, spec):
        pass

    def reset(self):
        pass

    def read(self):
        raise PlantStoppedError("the emergency stop is pressed")

    def write(self, action):
        return action

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass
"""


def test_a_run_that_could_not_begin_has_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gymnasium")
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "watchdog":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    words = ["run", LEVER, "--env", "Pendulum-v1", "--max-block", "1", "--json", str(tmp_path / "run.json")]
    assert cli.main(words) == 1
    captured = capsys.readouterr()
    assert "The watchdog over the plant cannot be started" in captured.err
    assert "stopped by" not in captured.out
    assert not (tmp_path / "run.json").exists()
