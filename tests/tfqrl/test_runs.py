import json
from pathlib import Path

import numpy as np
import pytest

from edge.errors import UnknownNameError, UsageError
from tfqrl import agents
from tfqrl.agents.ppo import PPOConfig
from tfqrl.runs import Run, RunError, nested, prefixed

CONFIG = PPOConfig(env="Pendulum-v1", steps=100, hidden=(8, 4))


def test_the_configuration_is_reproduced_from_the_folder(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", "ppo", CONFIG)
    assert agents.config_of(Run.open(tmp_path / "run")) == CONFIG
    assert json.loads((tmp_path / "run" / "config.json").read_text())["versions"]["tensorflow"]


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", "ppo", CONFIG)
    with pytest.raises(UsageError, match="Add --resume"):
        Run.create(tmp_path / "run", "ppo", CONFIG)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        Run.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunError, match="not a run's configuration"):
        Run.open(tmp_path)


def test_a_configuration_with_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "ppo", CONFIG)
    plain = json.loads((run.path / "config.json").read_text())
    plain["config"]["gama"] = plain["config"].pop("gamma")
    (run.path / "config.json").write_text(json.dumps(plain))
    with pytest.raises(UnknownNameError, match=r"config\.json 'gama'\. Did you mean 'gamma'") as error:
        agents.config_of(Run.open(run.path))
    assert error.value.exit_code == 2


def test_checkpoints_come_back_as_they_were(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "ppo", CONFIG)
    assert not run.has_checkpoint()
    with pytest.raises(RunError, match="no checkpoint"):
        run.load_checkpoint()
    state = {"steps": np.array(7), **prefixed("net", {"0": np.eye(2, dtype=np.float32), "1": np.zeros(3)})}
    run.save_checkpoint(state)
    loaded = run.load_checkpoint()
    assert loaded.keys() == state.keys()
    np.testing.assert_array_equal(nested(loaded, "net")["0"], np.eye(2))
    (run.path / "checkpoint.npz").write_bytes((run.path / "checkpoint.npz").read_bytes()[:50])
    with pytest.raises(RunError, match="cannot be read"):
        run.load_checkpoint()


def test_metrics_after_the_checkpoint_are_forgotten_on_resuming(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "ppo", CONFIG)
    for steps in (10, 20, 30):
        run.append_metrics({"steps": steps, "return": 1.0})
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"steps": 40, "ret')  # killed while writing
    run.truncate_metrics(20)
    run.append_metrics({"steps": 30, "return": 2.0})
    assert [(r["steps"], r["return"]) for r in run.metrics()] == [(10, 1.0), (20, 1.0), (30, 2.0)]
