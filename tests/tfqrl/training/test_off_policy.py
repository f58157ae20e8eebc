import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from tfqrl import agents
from tfqrl.runs import Run, State
from tfqrl.training import session
from tfqrl.training.config import OffPolicyConfig

SMALL: dict[str, Any] = {
    "steps": 512,
    "seed": 3,
    "replay_size": 400,
    "learning_starts": 64,
    "updates_per_call": 16,
    "batch_size": 16,
    "hidden": (16, 16),
    "save_replay": True,
    "checkpoint_period_s": 0.0,
}

# Short episodes, so that a checkpoint falls into some and others end before and after it.
VARIANTS = {
    "sac": {"env": "Pendulum-v1"},
    "td3": {"env": "HalfCheetah-v5", "normalize_observation": True, "num_envs": 2},
    "ddpg": {"env": "toys/CutOff-v0", "n_step": 3},
    "d4pg": {"env": "Pendulum-v1", "n_step": 5},
    "dqn": {"env": "CartPole-v1", "prioritized": True, "n_step": 2, "update_every": 1},
    "dqn frames": {"env": "toys/Blob-v0", "dueling": True, "update_every": 4, "updates_per_call": 4, "steps": 160},
}


def trained(path: Path, algorithm: str, config: OffPolicyConfig) -> Run:
    run = Run.create(path, algorithm, config)
    agents.get(algorithm).train(run)
    return run


def small(variant: str, **changes: Any) -> tuple[str, Any]:
    algorithm = variant.split()[0]
    return algorithm, agents.get(algorithm).config(**{**SMALL, **VARIANTS[variant], **changes})


def without_times(run: Run) -> list[dict[str, float]]:
    return [{k: v for k, v in r.items() if k not in ("steps_per_s", "elapsed_s")} for r in run.metrics()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, config = small(variant)
    save, saves = Run.save_checkpoint, 0

    def save_and_copy_what_a_kill_would_leave(run: Run, state: State) -> None:
        nonlocal saves
        save(run, state)
        saves += 1
        if saves == 5:
            shutil.copytree(run.path, tmp_path / "killed")

    with monkeypatch.context() as patch:
        patch.setattr(session, "CHECKPOINT_SHARE", math.inf)
        patch.setattr(Run, "save_checkpoint", save_and_copy_what_a_kill_would_leave)
        whole = trained(tmp_path / "whole", algorithm, config)
    run = Run.open(tmp_path / "killed")
    assert 0 < int(run.load_checkpoint()["steps"]) < config.steps
    agents.get(algorithm).train(run)

    expected, resumed = whole.load_checkpoint(), run.load_checkpoint()
    assert expected.keys() == resumed.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    assert without_times(whole) == without_times(run)
    assert "loss" in " ".join(whole.metrics()[-1])
