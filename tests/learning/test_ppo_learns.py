"""Small problems that an algorithm with a mistake in it does not learn, in seconds."""

from pathlib import Path

import pytest
import toy_envs  # noqa: F401  (registers the toys)

from converters.export import DeployedPolicy
from tfqrl import agents, evaluate
from tfqrl.agents import ppo
from tfqrl.agents.ppo import PPOConfig
from tfqrl.runs import Run


def mean_return(path: Path, config: PPOConfig, episodes: int = 20) -> float:
    run = Run.create(path, "ppo", config)
    ppo.train(run)
    policy = DeployedPolicy(*agents.load_policy(run))
    return float(evaluate.play(policy.act, config.env, first_seed=10_000, episodes=episodes).returns.mean())


# The wrong sign of an advantage, a value that is not learnt, an action that is scaled twice: each costs more than this.
@pytest.mark.parametrize("env", ["toys/Match-v0", "toys/Shifted-v0"])
def test_matching_a_number_to_within_a_tenth(env: str, tmp_path: Path) -> None:
    config = PPOConfig(env=env, steps=20_000, rollout_steps=32, hidden=(32,), learning_rate=2e-3)
    assert mean_return(tmp_path / "run", config) > -0.01


def test_cartpole_is_balanced_to_the_end(tmp_path: Path) -> None:
    config = PPOConfig(env="CartPole-v1", steps=60_000, rollout_steps=64, batch_size=128, learning_rate=1e-3)
    assert mean_return(tmp_path / "run", config) > 475
