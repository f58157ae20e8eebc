import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)
from training import trained

from tfqrl.agents.a2c import A2CConfig
from tfqrl.agents.ppo import PPO, PPOConfig
from tfqrl.training.on_policy import REWARD_CLIP, RewardScaler, Rollout

SMALL = A2CConfig(env="toys/Match-v0", steps=512, num_envs=4, rollout_steps=8, hidden=(16,), seed=3)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return_by_hand() -> None:
    scaler = RewardScaler(2, gamma=0.5)
    reward = np.float32([[1.0, 0.0], [2.0, 4.0], [3.0, 8.0]])
    done = np.float32([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    # The first copy's second return, 2 + 0.5 * 1, is the last of its episode: the third begins anew.
    returns = [1.0, 2.5, 3.0, 0.0, 4.0, 10.0]
    np.testing.assert_allclose(scaler.scale(reward, done), reward / np.std(returns), rtol=1e-6)
    # 0.5 * 3 + 2 and 0.5 * 10 + 0, with the returns of before.
    returns += [3.5, 5.0]
    second = np.float32([[2.0, 0.0]])
    np.testing.assert_allclose(scaler.scale(second, np.zeros((1, 2), np.float32)), second / np.std(returns), rtol=1e-6)


def test_scaled_rewards_are_bounded() -> None:
    scaler = RewardScaler(1, gamma=0.0)
    reward = np.zeros((1000, 1), np.float32)
    reward[-1] = 1000.0
    assert scaler.scale(reward, np.ones((1000, 1), np.float32)).max() == REWARD_CLIP


def test_a_scaler_that_is_restored_goes_on_as_it_was() -> None:
    rng = np.random.default_rng(0)
    scaler, again = RewardScaler(3, 0.9), RewardScaler(3, 0.9)
    none = np.zeros((5, 3), np.float32)
    scaler.scale(rng.normal(size=(5, 3)).astype(np.float32), none)
    again.restore(scaler.state())
    reward = rng.normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(scaler.scale(reward, none), again.scale(reward, none))


def test_the_scale_of_rewards_does_not_matter_when_they_are_normalised(tmp_path: Path) -> None:
    weights = {}
    for name in ("toys/Match-v0", "toys/MatchTimes100-v0"):
        for normalize in (True, False):
            config = dataclasses.replace(SMALL, env=name, normalize_reward=normalize)
            run = trained(tmp_path / f"{name[5:]}{normalize}", config)
            weights[name, normalize] = run.load_checkpoint()["value/0"]
    np.testing.assert_allclose(weights["toys/Match-v0", True], weights["toys/MatchTimes100-v0", True], atol=1e-5)
    assert np.abs(weights["toys/Match-v0", False] - weights["toys/MatchTimes100-v0", False]).max() > 2e-4


@pytest.mark.parametrize(("anneal", "last"), [(True, 1 - 480 / 512), (False, 1.0)])
def test_the_step_size_falls_to_zero_if_asked(anneal: bool, last: float, tmp_path: Path) -> None:
    records = trained(tmp_path / "run", dataclasses.replace(SMALL, anneal_learning_rate=anneal)).metrics()
    rates = [record["learning_rate"] / SMALL.learning_rate for record in records]
    assert (rates[0], rates[-1]) == (1.0, pytest.approx(last))


def test_frames_reach_the_networks_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, explorer, update = [], PPO.explorer, PPO.update

    def explorer_that_notes(agent: PPO, steps: int) -> Any:
        def explore(network: Any, observation: np.ndarray, *arguments: Any) -> Any:
            seen.append(observation.copy())
            return explorer(agent, steps)(network, observation, *arguments)

        return explore

    def update_and_note(agent: PPO, rollout: Rollout, *arguments: Any) -> Any:
        seen.extend([rollout.observation.copy(), rollout.next_observation.copy()])
        return update(agent, rollout, *arguments)

    monkeypatch.setattr(PPO, "explorer", explorer_that_notes)
    monkeypatch.setattr(PPO, "update", update_and_note)
    config = PPOConfig(env="toys/Blob-v0", steps=16, num_envs=2, rollout_steps=4, batch_size=8, epochs=1)
    assert config.normalize_observation, "or there is nothing to be seen"
    trained(tmp_path / "run", config)
    assert {array.dtype for array in seen} == {np.dtype(np.uint8)}
    assert max(array.max() for array in seen) > 200
