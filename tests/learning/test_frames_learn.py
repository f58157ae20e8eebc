"""Learning from camera frames: what trains, acts and is deployed has to see the same."""

from pathlib import Path
from typing import Any

import pytest
import toy_envs  # noqa: F401  (registers the toys)
from training import trained

from converters.export import DeployedPolicy
from tfqrl import agents, evaluate
from tfqrl.agents.dqn import DQNConfig
from tfqrl.agents.ppo import PPOConfig

ENV = "toys/Blob-v0"


# Random actions get 7, the best policy 28.
@pytest.mark.long
@pytest.mark.parametrize(
    "config",
    [
        DQNConfig(
            env=ENV,
            steps=2000,
            learning_starts=200,
            replay_size=2000,
            learning_rate=5e-4,
            gamma=0.8,
            target_update_every=50,
            epsilon_fraction=0.3,
        ),
        PPOConfig(env=ENV, steps=4096, num_envs=8, rollout_steps=32, epochs=4, learning_rate=1e-3, gamma=0.8),
    ],
    ids=["dqn", "ppo"],
)
def test_a_blob_is_pushed_to_the_middle(config: Any, tmp_path: Path) -> None:
    policy = DeployedPolicy(*agents.load_policy(trained(tmp_path / "run", config)))
    assert evaluate.play(policy.act, ENV, first_seed=0, episodes=30).returns.mean() > 24
