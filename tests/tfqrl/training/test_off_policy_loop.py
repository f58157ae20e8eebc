import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import toy_envs
from recorder import Recorder

from tfqrl.runs import Run
from tfqrl.training import off_policy
from tfqrl.training.config import OffPolicyConfig

CONFIG = OffPolicyConfig(
    env="toys/Count-v0",
    steps=96,
    gamma=0.5,
    learning_starts=20,
    replay_size=200,
    updates_per_call=8,
    batch_size=40,
    checkpoint_period_s=1000.0,
)


def recorded(run: Run, config: OffPolicyConfig) -> Recorder:
    off_policy.train(run, config, Recorder)
    return Recorder.made.pop()


def trained(path: Path, **changes: Any) -> tuple[Run, Recorder]:
    config = dataclasses.replace(CONFIG, **changes)
    run = Run.create(path, "sac", config)
    return run, recorded(run, config)


def resumed(run: Run, **changes: Any) -> Recorder:
    config = dataclasses.replace(OffPolicyConfig(**run.config), **changes)
    return recorded(run.reconfigured(config), config)


def transitions(agent: Recorder) -> set[tuple[float, ...]]:
    """All that were sampled: observation (the count, the episode's start), reward, discount, next observation."""
    parts = [
        np.concatenate(
            [b.observation, b.reward[..., None], b.discount[..., None], b.next_observation], axis=-1
        ).reshape(-1, 6)
        for b in agent.batches
    ]
    return {tuple(map(float, row)) for row in np.concatenate(parts)}


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(("env", "last_discount"), [("toys/Count-v0", 0.0), ("toys/CutOff-v0", 0.5)])
def test_the_last_transition_of_an_episode_is_learnt_from_as_it_ended(
    env: str, last_discount: float, num_envs: int, tmp_path: Path
) -> None:
    _, agent = trained(tmp_path / "run", env=env, num_envs=num_envs)
    found = transitions(agent)
    assert {row[0] for row in found} == {0.0, 1.0, 2.0, 3.0, 4.0}
    for count, start, _, discount, next_count, next_start in found:
        # The last observation, not the first of the next episode, which begins with another number.
        assert (next_count, next_start) == (count + 1, start)
        assert discount == (last_discount if next_count == 5 else 0.5)


@pytest.mark.parametrize(("env", "terminates"), [("toys/Count-v0", True), ("toys/CutOff-v0", False)])
def test_windows_of_several_steps_end_with_their_episode(env: str, terminates: bool, tmp_path: Path) -> None:
    _, agent = trained(tmp_path / "run", env=env, n_step=3, num_envs=2)
    for count, start, _, discount, next_count, next_start in transitions(agent):
        assert (next_count, next_start) == (min(count + 3, 5), start)
        assert discount == (0.0 if terminates and next_count == 5 else 0.5 ** (next_count - count))


def test_clipped_rewards_are_signs_and_the_returns_that_are_shown_the_environments(tmp_path: Path) -> None:
    steps = {"steps": 520, "learning_starts": 4, "replay_size": 64}
    run, agent = trained(tmp_path / "run", env="toys/CutOff-v0", clip_reward=True, n_step=3, **steps)
    # By the last call, the buffer holds but what it did itself: each action is worth 0.5 x 2 = 1.
    last = agent.batches[-1]
    windows = np.minimum(5 - last.observation[..., 0], 3)
    np.testing.assert_array_equal(last.reward, np.choose(windows.astype(int) - 1, [1.0, 1.5, 1.75]))
    assert run.metrics()[-1]["return"] == 5.0


class Worth(gymnasium.Wrapper):
    """Count, whose rewards are 3, 0 and -0.25 in turn."""

    def step(self, action: Any) -> Any:
        observation, _, terminated, truncated, info = super().step(action)
        return observation, (3.0, 0.0, -0.25)[int(observation[0]) % 3], terminated, truncated, info


gymnasium.register("toys/Worth-v0", lambda: Worth(toy_envs.Count()))


@pytest.mark.parametrize("clip", [True, False])
def test_rewards_are_summed_over_n_steps_after_they_were_clipped(clip: bool, tmp_path: Path) -> None:
    run, agent = trained(tmp_path / "run", env="toys/Worth-v0", clip_reward=clip, n_step=2)
    worth = [1.0, 0.0, -1.0] if clip else [3.0, 0.0, -0.25]
    rewards = [worth[count % 3] for count in range(6)]
    found = {(row[0], row[2]) for row in transitions(agent)}
    # After count steps comes reward count + 1, and half the one after it, unless that was the last.
    assert found == {
        (float(count), rewards[count + 1] + (0.5 * rewards[count + 2] if count < 4 else 0.0)) for count in range(5)
    }
    assert run.metrics()[-1]["return"] == 0.0 - 0.25 + 3.0 + 0.0 - 0.25


def test_actions_are_random_until_learning_starts(tmp_path: Path) -> None:
    _, agent = trained(tmp_path / "run", learning_starts=20)
    # After that each step is the policy's; updates begin at the next call.
    assert agent.explored == list(range(20, 96))
    assert len(agent.batches) == (96 - 24) // 8 + 1
    assert agent.stepped[0] == 4
    first = agent.batches[0]
    assert len(set(first.reward.round(4).reshape(-1))) > 10, "what was done at random has rewards of all kinds"


@pytest.mark.parametrize(("num_envs", "update_every", "updates"), [(1, 1, 8), (4, 1, 8), (4, 2, 6), (2, 4, 1)])
def test_updates_keep_their_ratio_to_steps_with_any_number_of_copies(
    num_envs: int, update_every: int, updates: int, tmp_path: Path
) -> None:
    settings = {"num_envs": num_envs, "update_every": update_every, "updates_per_call": updates}
    run, agent = trained(tmp_path / "run", **settings, learning_starts=4, batch_size=3)
    call_steps = update_every * updates
    calls = -(-96 // call_steps)
    assert len(agent.batches) == calls
    assert {batch.reward.shape for batch in agent.batches} == {(updates, 3)}
    assert np.diff(agent.stepped).tolist() == [call_steps // num_envs] * (calls - 1)
    assert int(run.load_checkpoint()["steps"]) == calls * call_steps


def test_a_run_that_is_resumed_without_its_replay_fills_that_first_by_its_policy(tmp_path: Path) -> None:
    run, _ = trained(tmp_path / "run")
    assert not [name for name in run.load_checkpoint() if name.startswith("replay")]
    agent = resumed(run, steps=160)
    assert agent.explored == list(range(96, 160)), "nothing at random"
    # 20 transitions are there after three calls of 8 steps.
    assert agent.stepped == list(range(24, 65, 8))
    assert {row[2] for row in transitions(agent)} == {1.0}, "of its own steps alone"
    assert run.metrics()[-1]["steps"] == 160
    assert "loss" in run.metrics()[-1]


def test_a_run_that_is_resumed_with_its_replay_goes_on_learning_at_once(tmp_path: Path) -> None:
    run, _ = trained(tmp_path / "run", save_replay=True)
    agent = resumed(run, steps=160)
    assert agent.stepped[0] == 8
    assert len({row[2] for row in transitions(agent)}) > 10, "what was done at random is still there"


def test_a_run_with_environments_of_envpool_is_resumed_in_new_episodes(tmp_path: Path) -> None:
    pytest.importorskip("envpool", reason="envpool has no wheels for this Python or machine")
    settings = {"env": "CartPole-v1", "vec": "envpool", "num_envs": 4, "n_step": 3}
    run, _ = trained(tmp_path / "run", **settings)
    kept = run.load_checkpoint()["env/episodes"]
    agent = resumed(run, steps=320)
    assert agent.explored == list(range(96, 320, 4))
    state = run.load_checkpoint()
    assert int(state["steps"]) == 320
    np.testing.assert_array_equal(state["env/episodes"][: len(kept)], kept)
    assert len(state["env/episodes"]) > len(kept)
    # A push to the left takes 0.2 from the cart's speed: no window of three steps spans two episodes.
    assert len(agent.batches) > 20
    for batch in agent.batches:
        change = (batch.next_observation - batch.observation)[..., 1]
        assert -0.65 < change.min() <= change.max() < -0.15
