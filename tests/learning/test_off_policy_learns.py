"""Each off-policy algorithm learns a problem of seconds, and what is deployed of it acts as well."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from converters.export import DeployedPolicy
from tfqrl import agents, evaluate
from tfqrl.runs import Run

SMALL: dict[str, Any] = {
    "steps": 1500,
    "seed": 1,
    "learning_starts": 100,
    "updates_per_call": 20,
    "batch_size": 64,
    "hidden": (32, 32),
    "update_every": 1,
}
FAST = {"policy_learning_rate": 3e-3, "critic_learning_rate": 3e-3}


def final_return(path: Path, algorithm: str, env: str, **changes: Any) -> float:
    config = agents.get(algorithm).config(**{"env": env, **SMALL, **changes})
    run = Run.create(path, algorithm, config)
    agents.get(algorithm).train(run)
    policy = DeployedPolicy(*agents.load_policy(run))
    return float(np.mean(evaluate.play(policy.act, env, first_seed=0, episodes=100).returns))


# A policy that always does nothing gets -0.21.
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("ddpg", FAST),
        ("td3", FAST),
        ("sac", FAST | {"temperature_learning_rate": 3e-3}),
        ("d4pg", FAST | {"v_min": -4.0, "v_max": 0.0, "n_step": 2}),
    ],
)
def test_match_is_learned(algorithm: str, options: dict[str, float], tmp_path: Path) -> None:
    assert final_return(tmp_path / "run", algorithm, "toys/Match-v0", **options) > -0.02


@pytest.mark.parametrize(
    "options",
    [{"double": False}, {"double": True, "prioritized": True}, {"n_step": 2, "dueling": True}],
)
def test_choose_is_learned_by_dqn(options: dict[str, Any], tmp_path: Path) -> None:
    settings = {"learning_rate": 3e-3, "target_update_every": 50, "epsilon_fraction": 0.5}
    assert final_return(tmp_path / "run", "dqn", "toys/Choose-v0", **settings, **options) > 0.95
