"""Small problems that an algorithm with a mistake in it does not learn, in seconds."""

from pathlib import Path
from typing import Any

import pytest
import toy_envs  # noqa: F401  (registers the toys)
from training import trained

from converters.export import DeployedPolicy
from tfqrl import agents, evaluate
from tfqrl.agents.a2c import A2CConfig
from tfqrl.agents.ppo import PPOConfig


def mean_return(path: Path, config: Any, episodes: int = 20) -> float:
    policy = DeployedPolicy(*agents.load_policy(trained(path, config)))
    return float(evaluate.play(policy.act, config.env, first_seed=10_000, episodes=episodes).returns.mean())


# The wrong sign of an advantage, a value that is not learnt, an action that is scaled twice: each costs more than this.
@pytest.mark.parametrize("env", ["toys/Match-v0", "toys/Shifted-v0"])
@pytest.mark.parametrize(
    "config",
    [
        PPOConfig(env="", steps=20_000, rollout_steps=32, hidden=(32,), learning_rate=2e-3),
        A2CConfig(env="", steps=60_000, rollout_steps=4, hidden=(32,), learning_rate=1e-2),
    ],
    ids=["ppo", "a2c"],
)
def test_matching_a_number_to_within_a_tenth(config: Any, env: str, tmp_path: Path) -> None:
    assert mean_return(tmp_path / "run", type(config)(**{**vars(config), "env": env})) > -0.01


@pytest.mark.parametrize(
    ("config", "enough"),
    [
        (PPOConfig(env="CartPole-v1", steps=60_000, rollout_steps=64, batch_size=128, learning_rate=1e-3), 475),
        (A2CConfig(env="CartPole-v1", steps=150_000, learning_rate=5e-3), 400),
    ],
    ids=["ppo", "a2c"],
)
def test_cartpole_is_balanced_to_the_end(config: Any, enough: float, tmp_path: Path) -> None:
    assert mean_return(tmp_path / "run", config) > enough
