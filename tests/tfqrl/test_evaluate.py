import numpy as np
import pytest
import toy_envs

from edge.errors import UserError
from tfqrl import evaluate
from tfqrl.evaluate import play


def test_episodes_are_seeded_one_by_one_and_end_when_they_end() -> None:
    def act(observations: np.ndarray) -> np.ndarray:
        return np.stack([observations[:, 1], np.zeros(len(observations))], axis=1)

    played = play(act, "toys/Count-v0", first_seed=10, episodes=3)
    # Count pays its first action, here the episode's own random start, on each of five steps.
    assert [len(episode) for episode in played.observations] == [5, 5, 5]
    starts = [episode[0, 1] for episode in played.observations]
    assert len(set(starts)) == 3
    np.testing.assert_allclose(played.returns, [5 * start for start in starts], rtol=1e-6)
    later = play(act, "toys/Count-v0", first_seed=11, episodes=2, keep_observations=False)
    assert later.observations == ()
    np.testing.assert_array_equal(later.returns, played.returns[1:])


@pytest.mark.parametrize("keep_observations", [True, False])
def test_the_length_of_an_episode_is_the_number_of_its_steps(
    keep_observations: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "SIDE_BY_SIDE", 2)
    played = play(
        lambda x: np.zeros(len(x), int), "CartPole-v1", first_seed=0, episodes=5, keep_observations=keep_observations
    )
    # CartPole pays 1 a step.
    assert played.lengths.tolist() == played.returns.tolist()
    assert len(set(played.lengths.tolist())) > 1
    if keep_observations:
        assert [len(episode) for episode in played.observations] == played.lengths.tolist()


def test_a_policy_that_is_better_gets_more() -> None:
    good = play(lambda x: x, "toys/Match-v0", first_seed=0, episodes=5).returns
    bad = play(lambda x: -x, "toys/Match-v0", first_seed=0, episodes=5).returns
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

    best = play(act, "toys/Blob-v0", first_seed=0, episodes=3)
    assert set(seen) == {np.dtype(np.uint8)}
    for episode in best.observations:
        assert (episode.dtype, episode.shape[1:]) == (np.uint8, (84, 84, 4))
        assert 25 <= len(episode) <= 35
        # What was visited is not overwritten by what comes after: the newest of four is the next's third.
        np.testing.assert_array_equal(episode[:-1, ..., 3], episode[1:, ..., 2])
    still = play(lambda frames: np.ones(len(frames), int), "toys/Blob-v0", first_seed=0, episodes=3)
    assert best.returns.mean() > 1.5 * still.returns.mean()


def test_many_episodes_are_played_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def act(observations: np.ndarray) -> np.ndarray:
        sizes.append(len(observations))
        return observations

    together = play(act, "toys/Match-v0", first_seed=3, episodes=5)
    monkeypatch.setattr(evaluate, "SIDE_BY_SIDE", 2)
    apart = play(lambda x: act(-x), "toys/Match-v0", first_seed=3, episodes=5)
    assert sizes == [5, 2, 2, 1]
    assert len(apart.observations) == 5
    again = play(act, "toys/Match-v0", first_seed=3, episodes=5)
    np.testing.assert_array_equal(again.returns, together.returns)
    assert (apart.returns < again.returns).all()


def test_progress_grows_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "SIDE_BY_SIDE", 2)
    told: list[float] = []
    play(lambda x: np.zeros(len(x), int), "CartPole-v1", first_seed=0, episodes=3, progress=told.append)
    assert told == sorted(told)
    assert 0 < told[0] < 0.1
    assert told[-1] == 1.0


def test_an_environment_that_diverges_is_an_error() -> None:
    with pytest.raises(UserError, match="toys/Diverges-v0 observes NaN or infinity"):
        play(lambda x: x, "toys/Diverges-v0", first_seed=0, episodes=2)
    with pytest.raises(UserError, match="toys/Count-v0 rewards with NaN or infinity"):
        play(lambda x: x + np.inf, "toys/Count-v0", first_seed=0, episodes=2)
