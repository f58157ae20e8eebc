"""The whole way, by the commands that a user types, as small as it can be."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge import artifact
from tfqrl import cli


@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_from_training_to_a_control_loop(env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, policy = str(tmp_path / "run"), str(tmp_path / "policy.tflite")
    small = ["--steps", "2048", "--num-envs", "4", "--rollout-steps", "64", "--seed", "5"]
    assert cli.main(["train", "ppo", "--env", env, *small, "--out", run]) == 0
    assert cli.main(["convert", run, "--recipe", "int8", "--out", policy, "--episodes", "4"]) == 0
    assert "return difference" in capsys.readouterr().out
    assert cli.main(["convert", run, "--out", policy]) == 2
    assert "exists already" in capsys.readouterr().err

    manifest = artifact.read(policy).manifest
    assert manifest.training["env"] == env
    assert manifest.training["seed"] == 5
    assert manifest.comparison.returns is not None
    assert manifest.comparison.returns.episodes == 4
    # The values of choices are computed in float.
    bits = [layer.weight_bits for layer in manifest.layers]
    assert bits == ([8, 8, 32] if manifest.spec.action.discrete else [8, 8, 8])

    loop = tmp_path / "loop.json"
    for words in (["verify", policy], ["run", policy, "--duration", "0.5", "--json", str(loop)]):
        done = subprocess.run(
            [sys.executable, "-m", "edge.cli", *words], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
    report = json.loads(loop.read_text())["loop"]
    assert report["rate_hz"] == manifest.spec.control_rate_hz
    assert report["ticks"] + report["missed_periods"] == round(0.5 * report["rate_hz"])
    assert report["failsafes"] == {}
