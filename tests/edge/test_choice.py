"""Which plant `tfqrl-edge run` drives."""

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DATA

from edge import cli
from edge.loop_report import RunReport
from edge.plants.frames import ACTION, OBSERVATION, RESET, Decoder, encode
from edge.records import from_plain

LEVER = str(DATA / "lever-int8.tflite")

# Notes what happens to it in a file, which outlives an error.
ARM = """
import numpy as np

class Arm:
    def __init__(self, spec, note, start=0.0, fail=""):
        self.spec, self.start, self.fail = spec, start, fail
        self.file = open(note, "a")
        self.note("made")

    def note(self, text):
        if self.fail and text.startswith(self.fail):
            raise OSError(f"cannot be {text}")
        print(text, file=self.file, flush=True)

    def reset(self):
        self.note("reset")

    def read(self):
        self.note("read")
        return np.full(self.spec.observation.shape, self.start)

    def write(self, action):
        self.note(f"written {action.tolist()}")
        return action

    def __enter__(self):
        self.note("entered")
        return None if self.fail == "nothing" else self

    def __exit__(self, *error):
        self.note("left")

def make_arm(spec):
    pass

class Half:
    def __init__(self, spec):
        pass

    def read(self):
        pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a plant in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_arm.py").write_text(ARM)
    yield tmp_path
    sys.modules.pop("my_arm", None)


def run(*words: str) -> int:
    return cli.main(["run", LEVER, "--rate", "200", "--duration", "0.05", *words])


def test_a_plant_of_ones_own_is_driven(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--plant", "my_arm:Arm", "--set", "note=note.txt", "--set", "start=0.25", "--failsafe=1.5")
    assert run(*words, "--json", "run.json") == 0
    assert "Running lever on my_arm:Arm at 200 Hz; Ctrl-C ends it." in capsys.readouterr().out
    notes = (here / "note.txt").read_text().splitlines()
    assert notes[:4] == ["made", "entered", "reset", "read"]
    assert notes[-2:] == ["written [1.5]", "left"]
    report = from_plain(RunReport, json.loads((here / "run.json").read_text()), "report")
    assert (report.plant, report.seed, report.returns) == ("my_arm:Arm", None, ())
    assert report.loop.ticks > 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--plant", "seriel"), 2, "Unknown plant 'seriel'. Did you mean 'serial'?"),
        (("--plant", "my_arm"), 2, "Unknown plant 'my_arm'"),
        (("--plant", "no_arm:Arm"), 2, "There is no module no_arm, neither in"),
        (("--plant", "no.arm:Arm"), 2, "There is no module no.arm, neither in"),
        (("--plant", ":Arm"), 2, "--plant takes gym|"),
        (("--plant", "my_arm:"), 2, "--plant takes gym|"),
        (("--plant", "my_arm:Amr"), 2, "'Amr'. Did you mean 'Arm'?"),
        (("--plant", "my_arm:np"), 2, "Unknown class of"),
        (("--plant", "my_arm:make_arm"), 2, "'make_arm'. Known: Arm, Half."),
        (("--plant", "my_arm:Half"), 2, "my_arm:Half is no plant: it lacks reset, write, __enter__, __exit__."),
        (("--plant", "my_arm:Arm"), 1, "my_arm:Arm could not be made: TypeError"),
        (("--plant", "my_arm:Arm", "--set", "note=n", "--set", "colour=1"), 1, "unexpected keyword argument 'colour'"),
        (("--plant", "my_arm:Arm", "--set", "note=n", "--set", "fail=made"), 1, "could not be made: OSError: cannot"),
        (("--plant", "my_arm:Arm", "--set", "note=n", "--set", "fail=entered"), 1, "could not be opened: OSError"),
        (("--plant", "my_arm:Arm", "--set", "note=n", "--set", "fail=nothing"), 2, "What __enter__ of my_arm:Arm"),
        (("--plant", "my_arm:Arm", "--set", "note"), 2, "--set takes NAME=VALUE; it was given 'note'"),
        (("--plant", "my_arm:Arm", "--set", "a b=1"), 2, "--set takes NAME=VALUE"),
        (
            (
                "--plant",
                "broken:Arm",
            ),
            1,
            "broken cannot be imported: SyntaxError",
        ),
        (
            (
                "--plant",
                "needy:Arm",
            ),
            1,
            "needy cannot be imported: ModuleNotFoundError: No module named 'a_part'",
        ),
        (("--env", "Pendulum-v1", "--seed", "-1"), 2, "--seed takes 0 or more; it was given -1."),
        (
            ("--plant", "serial", "--port", "none", "--baud", "-3"),
            2,
            "--baud takes bits per second, such as 115200; it",
        ),
        (("--plant", "serial"), 2, "--plant serial needs --port"),
        (("--plant", "gpio"), 2, "--plant gpio needs --wiring"),
        (("--plant", "gpio", "--wiring", "none.json"), 2, "Cannot read the wiring none.json"),
        (("--port", "/dev/ttyUSB0"), 2, "--port is for --plant serial; the plant here is gym"),
        (("--plant", "serial", "--port", "/dev/ttyUSB0", "--seed", "0"), 2, "--seed is for --plant gym"),
        (("--plant", "serial", "--port", "/dev/ttyUSB0", "--set", "a=1"), 2, "--set is for --plant module:Class"),
        (("--plant", "my_arm:Arm", "--wiring", "w.json"), 2, "--wiring is for --plant gpio; the plant here is my_arm"),
    ],
)
def test_what_cannot_be_driven_is_refused_in_a_sentence(
    words: tuple[str, ...], code: int, message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "broken.py").write_text("class Arm")
    (here / "needy.py").write_text("import a_part")
    assert run(*words) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("tfqrl-edge: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert "Running" not in captured.out


def test_values_are_json_where_they_parse(here: Path) -> None:
    (here / "my_arm.py").write_text(
        ARM + "\nclass Told(Arm):\n    def __init__(self, spec, note, **settings):\n"
        "        super().__init__(spec, note)\n        self.note(repr(settings))\n"
    )
    settings = ["a=1", "b=0.5", "c=true", "d=null", "e=[1, 2]", "f=left", "g=", 'h="1"', "i=x=y"]
    words = [word for text in settings for word in ("--set", text)]
    assert run("--plant", "my_arm:Told", "--set", "note=note.txt", *words) == 0
    assert (here / "note.txt").read_text().splitlines()[1] == repr(
        {"a": 1, "b": 0.5, "c": True, "d": None, "e": [1, 2], "f": "left", "g": "", "h": "1", "i": "x=y"}
    )


def test_a_file_here_does_not_take_the_place_of_an_installed_module(here: Path) -> None:
    (here / "numpy.py").write_text("raise AssertionError")
    (here / "colorsys.py").write_text("raise AssertionError")
    assert run("--plant", "my_arm:Arm", "--set", "note=note.txt") == 0
    assert run("--plant", "colorsys:Arm") == 2


def test_a_plant_is_not_opened_where_the_loop_cannot_be_made(here: Path) -> None:
    assert run("--plant", "my_arm:Arm", "--set", "note=note.txt", "--failsafe=1,2") == 2
    assert (here / "note.txt").read_text().splitlines() == ["made"]


def test_the_failsafe_action_is_written_last_where_the_reset_fails(here: Path) -> None:
    assert run("--plant", "my_arm:Arm", "--set", "note=note.txt", "--set", "fail=reset", "--failsafe=1.5") == 14
    assert (here / "note.txt").read_text().splitlines() == ["made", "entered", "written [1.5]", "left"]


def test_a_simulated_plant_reports_its_seed_and_returns(tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    words = ["--env", "Pendulum-v1", "--rate", "20000", "--seed", "3", "--json", str(tmp_path / "run.json")]
    assert run(*words) == 0
    report = from_plain(RunReport, json.loads((tmp_path / "run.json").read_text()), "report")
    assert (report.plant, report.seed) == ("Pendulum-v1", 3)
    assert len(report.returns) == (report.loop.ticks + 1) // 200


def test_a_device_on_a_serial_line_is_driven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("serial", reason="needs pyserial: pip install pyserial")
    device, host = os.openpty()
    port, done = os.ttyname(host), threading.Event()
    received: list[Any] = []

    def play_device() -> None:
        decoder, i = Decoder(), 0
        os.set_blocking(device, False)
        while not done.is_set():
            i += 1
            os.write(device, encode(OBSERVATION, i, np.full(3, 0.1, np.float32)))
            done.wait(0.005)
            try:
                received.extend(decoder.feed(os.read(device, 4096)))
            except BlockingIOError:
                continue

    thread = threading.Thread(target=play_device)
    thread.start()
    try:
        words = ["--plant", "serial", "--port", port, "--baud", "57600", "--duration", "0.5", "--failsafe=1.5"]
        code = cli.main(["run", LEVER, *words, "--json", str(tmp_path / "run.json")])
    finally:
        done.set()
        thread.join()
        os.close(device)
        os.close(host)
    assert code == 0
    assert f"Running lever on serial {port} at 20 Hz" in capsys.readouterr().out
    report = from_plain(RunReport, json.loads((tmp_path / "run.json").read_text()), "report")
    assert (report.plant, report.seed, report.returns) == (f"serial {port}", None, ())
    assert received[0].kind == RESET
    assert {frame.kind for frame in received[1:]} == {ACTION}
    assert report.loop.failsafes == {}


BAD = """
import os, signal
import numpy as np
from my_arm import Arm

class Counting(Arm):
    def counts(self):
        raise RuntimeError("no")

class Unclosable(Arm):
    def __exit__(self, *error):
        raise OSError("the line is gone")

class Slow(Arm):
    def __enter__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().__enter__()

    def __exit__(self, *error):
        # As often as somebody who loses patience.
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        super().__exit__(*error)
"""


def test_a_plant_that_cannot_count_or_close_does_not_cost_the_report(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bad.py").write_text(BAD)
    assert run("--plant", "bad:Counting", "--set", "note=note.txt", "--json", "run.json") == 0
    assert from_plain(RunReport, json.loads((here / "run.json").read_text()), "report").counts == {}
    assert run("--plant", "bad:Unclosable", "--set", "note=note.txt", "--set", "fail=reset") == 14
    captured = capsys.readouterr()
    assert "bad:Unclosable could not be closed: OSError: the line is gone" in captured.err
    assert "stopped by plant error" in captured.out
    assert run("--plant", "bad:Unclosable", "--set", "note=note.txt") == 1
    sys.modules.pop("bad")


def test_signals_cut_off_neither_opening_nor_closing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.py").write_text(BAD)
    assert run("--plant", "bad:Slow", "--set", "note=note.txt", "--failsafe=1.5") == 143
    # It was not even reset: the first signal had come by then.
    assert (here / "note.txt").read_text().splitlines() == ["made", "entered", "left"]
    assert "stopped by SIGTERM" in capsys.readouterr().out
    sys.modules.pop("bad")


def test_who_insists_ends_a_plant_that_does_not_open(here: Path) -> None:
    (here / "bad.py").write_text(BAD.replace("return super().__enter__()", "os.kill(os.getpid(), signal.SIGINT)"))
    assert run("--plant", "bad:Slow", "--set", "note=note.txt") == 143
    assert (here / "note.txt").read_text().splitlines() == ["made"]
    sys.modules.pop("bad")
