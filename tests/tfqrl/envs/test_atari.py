import itertools

import numpy as np
import pytest

from tfqrl import envs


def played(seed: int, steps: int = 60) -> list[np.ndarray]:
    env = envs.make("ale:Pong-v5")
    rng = np.random.default_rng(0)
    frames = [env.reset(seed=seed)[0]]
    frames += [env.step(int(action))[0] for action in rng.integers(0, 6, steps)]
    env.close()
    return frames


def test_frames_are_four_grey_ones_with_the_newest_last() -> None:
    spec = envs.spec_of("ale:Pong-v5")
    assert (spec.observation.shape, spec.observation.dtype) == ((84, 84, 4), "uint8")
    assert (spec.action.n, spec.control_rate_hz) == (6, 15.0)
    frames = played(seed=0)
    assert all(frame.dtype == np.uint8 and frame.shape == (84, 84, 4) for frame in frames)
    # At the beginning there is only one frame.
    for channel in range(3):
        np.testing.assert_array_equal(frames[0][..., channel], frames[0][..., 3])
    for before, after in itertools.pairwise(frames):
        np.testing.assert_array_equal(before[..., 1:], after[..., :3])
    assert not np.array_equal(frames[-1][..., 2], frames[-1][..., 3])


def test_a_seed_determines_a_game_sticky_actions_and_all() -> None:
    first, second, other = played(seed=7), played(seed=7), played(seed=8)
    assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other))


def test_actions_stick_hold_for_four_frames_and_wait_at_the_beginning() -> None:
    env = envs.make("ale:Pong-v5")
    ale = env.unwrapped.ale
    assert ale.getFloat("repeat_action_probability") == pytest.approx(0.25)
    waited = set()
    for seed in range(12):
        env.reset(seed=seed)
        waited.add(ale.getEpisodeFrameNumber())
    assert min(waited) >= 1
    assert max(waited) <= 30
    assert len(waited) > 5
    before = ale.getEpisodeFrameNumber()
    env.step(0)
    assert ale.getEpisodeFrameNumber() == before + 4


def test_an_episode_is_the_whole_game() -> None:
    env = envs.make("ale:Breakout-v5")
    env.reset(seed=0)
    lives = {env.unwrapped.ale.lives()}
    terminated = truncated = False
    rng = np.random.default_rng(0)
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(int(rng.integers(4)))
        lives.add(env.unwrapped.ale.lives())
    assert lives == {5, 4, 3, 2, 1, 0}
    assert (terminated, truncated) == (True, False)


def test_the_emulator_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    envs.make("ale:Pong-v5").reset(seed=0)
    assert capfd.readouterr() == ("", "")
