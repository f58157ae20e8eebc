"""Real studies of toys, by Ray."""

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.errors import UserError
from tfqrl import cli
from tfqrl.study import grid, plan
from tfqrl.study.outcome import Outcome

TOYS = Path(__file__).parents[2] / "support"
OPTIONS = "--env-module toy_envs --hidden 8 --learning-starts 50 --batch-size 16 --updates-per-call 10"
STUDY: dict[str, Any] = {
    "title": "Toys",
    "episodes": 5,
    "methods": {
        "float": {"recipes": ["float32", "int8"]},
        "qat-8": {"train": "--compress qat", "recipes": ["int8"]},
        "distilled": {"distill": "--hidden 8 --num-envs 4 --steps 512 --updates 4", "recipes": ["float32"]},
    },
    "tasks": [
        {"algorithm": "ddpg", "env": "toys/Match-v0", "steps": 200, "continued_steps": 100, "train": OPTIONS},
    ],
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    return path


@pytest.fixture
def cluster(study: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster of one node, which has the environment that `study` needs."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Sockets are in there, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        words = ["--head", "--node-ip-address", "127.0.0.1", "--port", str(port), "--num-cpus", "2", "--block"]
        words += ["--include-dashboard", "false", "--temp-dir", folder, "--disable-usage-stats"]
        with subprocess.Popen([str(Path(sys.executable).parent / "ray"), "start", *words]) as node:
            try:
                _wait_until_it_answers(node, port)
                yield f"127.0.0.1:{port}"
            finally:
                node.terminate()


def _wait_until_it_answers(node: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 120
    while node.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"The node does not answer at port {port} (exit code: {node.poll()}).")


@pytest.mark.long
def test_a_study_on_a_cluster_does_what_is_missing_names_what_fails_and_reports(
    study: Path, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    failing = {"name": "diverges", "train": f"{OPTIONS} --critic-learning-rate 1e30", "methods": ["float", "qat-8"]}
    study.write_text(yaml.safe_dump(STUDY | {"tasks": [*STUDY["tasks"], STUDY["tasks"][0] | failing]}, sort_keys=False))
    assert cli.main(["study", str(study), "--out", str(out), "--ray", cluster]) == 1
    text = capsys.readouterr()
    assert "diverges-float-s0: The training diverged" in text.out
    assert "diverges-qat-8-s0: diverges-float-s0, which it begins with, was not trained." in text.out
    assert not list((out / "cells").glob("diverges*"))
    assert re.search(r"^ddpg-toys/Match-v0 +qat-8 +int8 ", text.out, re.MULTILINE)
    assert "ddpg-toys-Match-v0-qat-8-s0: done" in text.err
    results = {path.stem: Outcome.load(path) for path in (out / "cells").glob("*.json")}
    continued = results["ddpg-toys-Match-v0-qat-8-s0"]
    assert continued.begins_with == "ddpg-toys-Match-v0-float-s0"
    assert continued.config["compress"]["delay"] == 0.0
    assert [len(policy.returns or ()) for policy in continued.policies] == [5]
    latency = json.loads((out / "latency" / "ddpg-toys-Match-v0.json").read_text())
    assert [(timed["method"], timed["recipe"]) for timed in latency["policies"]] == [
        ("float", "float32"),
        ("float", "int8"),
        ("qat-8", "int8"),
        ("distilled", "float32"),
    ]
    assert "ddpg-toys/Match-v0" in (out / "report.html").read_text()
    assert json.loads((out / "findings.json").read_text())["title"] == "Toys"

    # What is there is neither trained nor measured again; the report needs nothing else.
    before = {path: path.stat().st_mtime_ns for path in [*(out / "cells").iterdir(), *(out / "latency").iterdir()]}
    (out / "runs").rename(tmp_path / "elsewhere")
    study.write_text(yaml.safe_dump(STUDY, sort_keys=False))
    assert cli.main(["study", str(study), "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before

    # A latency of a model that was replaced is not that of the new one.
    path = out / "latency" / "ddpg-toys-Match-v0.json"
    plain = json.loads(path.read_text())
    plain["policies"][1]["entry"]["sha256"] = "0" * 64
    path.write_text(json.dumps(plain))
    assert cli.main(["study", str(study), "--out", str(out)]) == 0
    assert "not measured, because" in capsys.readouterr().err
    rows = json.loads((out / "findings.json").read_text())["rows"]
    timed = {(row["method"], row["recipe"]): row["act_us"] is not None for row in rows}
    assert timed == {key: key != ("float", "int8") for key in timed}

    # A result of before there was an option is one of its default.
    path = out / "cells" / "ddpg-toys-Match-v0-float-s0.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"config": {k: v for k, v in plain["config"].items() if k != "compress"}}))
    assert cli.main(["study", str(study), "--out", str(out)]) == 0

    # What went on from another policy than that of now is noticed, too.
    path = out / "cells" / "ddpg-toys-Match-v0-qat-8-s0.json"
    plain = json.loads(path.read_text())
    path.write_text(json.dumps(plain | {"origin": plain["origin"] | {"gamma": 0.5}}))
    assert cli.main(["study", str(study), "--out", str(out)]) == 1
    assert f"{path.name} is of other options" in capsys.readouterr().err
    path.write_text(json.dumps(plain))

    # And so is one of the same options that went on from other weights.
    path.write_text(json.dumps(plain | {"origin_sha256": "0" * 64}))
    assert cli.main(["study", str(study), "--out", str(out)]) == 1
    assert "another policy than policies/ddpg-toys-Match-v0-float-s0 is now" in capsys.readouterr().err
    path.write_text(json.dumps(plain))

    # A result of other options is neither taken nor overwritten.
    changed = STUDY | {"tasks": [STUDY["tasks"][0] | {"steps": 300}]}
    study.write_text(yaml.safe_dump(changed, sort_keys=False))
    assert cli.main(["study", str(study), "--out", str(out)]) == 1
    assert "is of other options than the study asks for now" in capsys.readouterr().err


@pytest.mark.long
def test_a_signal_keeps_what_was_trained_and_the_study_goes_on_there(study: Path, tmp_path: Path) -> None:
    # SIGTERM, for which Ray has a handler of its own; SIGINT goes the same way.
    long = {"methods": {"float": {}}, "tasks": [STUDY["tasks"][0] | {"steps": 6000, "continued_steps": None}]}
    study.write_text(yaml.safe_dump(STUDY | long, sort_keys=False))
    out = tmp_path / "out"
    words = [sys.executable, "-m", "tfqrl", "study", str(study), "--out", str(out), "--jobs", "1"]
    run = out / "runs" / "ddpg-toys-Match-v0-float-s0"
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"go on with the same command" in stderr
    assert not list((out / "cells").iterdir())
    cut_at = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["steps"]
    assert 0 < cut_at < 6000
    assert (run / "checkpoint.npz").exists()
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    assert len(list((out / "cells").iterdir())) == 1
    steps = [json.loads(line)["steps"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--only", "("], "takes a regular expression"),
        (["--only", "nothing"], "names none of the 3 trainings"),
        (["--jobs", "1", "--ray", "auto"], "--jobs is for this machine"),
        (["--ray", "127.0.0.1:1"], "No Ray cluster answers at 127.0.0.1:1"),
        (["--ray", "nowhere"], "No Ray cluster answers at nowhere"),
        (["--ray", "ray://127.0.0.1:1"], "give the address as HOST:PORT"),
    ],
)
def test_what_cannot_be_is_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert cli.main(["study", str(study), "--out", str(tmp_path / "out"), *words]) in (1, 2)
    assert sentence in capsys.readouterr().err


def test_a_file_that_is_no_result_is_named(study: Path, tmp_path: Path) -> None:
    cells = plan.cells(plan.load(study))
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / f"{cells[0].name}.json").write_text("{}")
    with pytest.raises(UserError, match=r"float-s0\.json is no result of a study"):
        grid.results(cells, tmp_path)
