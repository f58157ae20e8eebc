import numpy as np
import pytest
import toy_envs

from edge.errors import UserError
from tfqrl import evaluate
from tfqrl.evaluate import play


def test_episodes_are_seeded_one_by_one_and_end_when_they_end() -> None:
    def act(observations: np.ndarray) -> np.ndarray:
        return np.stack([observations[:, 1], np.zeros(len(observations))], axis=1)

    returns, visited = play(act, "toys/Count-v0", first_seed=10, episodes=3)
    # Count pays its first action, here the episode's own random start, on each of five steps.
    assert [len(episode) for episode in visited] == [5, 5, 5]
    starts = [episode[0, 1] for episode in visited]
    assert len(set(starts)) == 3
    np.testing.assert_allclose(returns, [5 * start for start in starts], rtol=1e-6)
    later, _ = play(act, "toys/Count-v0", first_seed=11, episodes=2)
    np.testing.assert_array_equal(later, returns[1:])


def test_a_policy_that_is_better_gets_more() -> None:
    good, _ = play(lambda x: x, "toys/Match-v0", first_seed=0, episodes=5)
    bad, _ = play(lambda x: -x, "toys/Match-v0", first_seed=0, episodes=5)
    np.testing.assert_allclose(good, 0.0, atol=1e-6)
    assert (bad < -1e-3).any()


def test_an_episode_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MAX_EPISODE_STEPS", 4)
    with pytest.raises(UserError, match="max_episode_steps"):
        play(lambda x: x, "toys/Count-v0", first_seed=0, episodes=1)


def test_frames_stay_bytes() -> None:
    seen = []

    def act(frames: np.ndarray) -> np.ndarray:
        seen.append(frames.dtype)
        return toy_envs.Blob.best(frames)

    best, visited = play(act, "toys/Blob-v0", first_seed=0, episodes=3)
    assert set(seen) == {np.dtype(np.uint8)}
    for episode in visited:
        assert (episode.dtype, episode.shape[1:]) == (np.uint8, (84, 84, 4))
        assert 25 <= len(episode) <= 35
        # What was visited is not overwritten by what comes after: the newest of four is the next's third.
        np.testing.assert_array_equal(episode[:-1, ..., 3], episode[1:, ..., 2])
    still, _ = play(lambda frames: np.ones(len(frames), int), "toys/Blob-v0", first_seed=0, episodes=3)
    assert best.mean() > 1.5 * still.mean()
