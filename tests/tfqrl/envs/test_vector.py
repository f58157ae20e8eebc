import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import toy_envs

from edge.errors import UserError
from tfqrl.envs import VectorEnv, VectorStep, make_vector


class Liar(toy_envs.Count):
    """Count that says one thing of its observations and gives another, from step `since` on."""

    def __init__(self, since: int, given: Any) -> None:
        super().__init__()
        self.since, self.given = since, given

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        observation, info = super().reset(seed=seed)
        return self.given if self.since == 0 else observation, info

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return self.given if self.count >= self.since else observation, *rest


class Chance(toy_envs.Count):
    """Count whose steps add something that no seed determines."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return observation + np.random.default_rng().uniform(size=2), *rest


gymnasium.register("toys/Chance-v0", Chance)
gymnasium.register("toys/Long-v0", toy_envs.Count, kwargs={"limit": 5000})


def random_actions(env: VectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    rng, action = np.random.default_rng(seed), env.spec.action
    if action.discrete:
        return rng.integers(0, action.n, (steps, env.num_envs))
    return rng.uniform(-1, 1, (steps, env.num_envs, *action.shape)).astype(np.float32)


def everything(step: VectorStep) -> list[np.ndarray]:
    arrays = (step.observation, step.next_observation, step.reward, step.terminated, step.done)
    return [array.copy() for array in arrays]


def test_actions_span_the_bounds_and_are_clipped() -> None:
    env = VectorEnv("toys/Count-v0", 3, seed=0)
    env.reset()
    # The reward of Count is its first action, which lies in -2..2.
    step = env.step(np.array([[-1.0, 0.0], [0.5, 0.0], [7.0, 0.0]], np.float32))
    np.testing.assert_allclose(step.reward, [-2.0, 1.0, 2.0])
    env.close()


def test_unbounded_actions_are_taken_as_they_are_in_training_as_in_deployment() -> None:
    env = VectorEnv("toys/Unbounded-v0", 1, seed=0)
    assert env.spec.action.low == (None, None)
    env.reset()
    assert env.step(np.array([[7.5, 0.0]], np.float32)).reward.tolist() == [7.5]


@pytest.mark.parametrize(("name", "terminated"), [("toys/Count-v0", True), ("toys/CutOff-v0", False)])
def test_an_ended_episode_shows_its_last_observation_and_begins_the_next(name: str, terminated: bool) -> None:
    env = VectorEnv(name, 2, seed=0)
    env.reset()
    action = np.zeros((2, 2), np.float32)
    for _ in range(4):
        step = env.step(action)
        assert not step.done.any()
        np.testing.assert_array_equal(step.observation, step.next_observation)
    step = env.step(action)
    assert step.done.all()
    assert step.terminated.tolist() == [terminated] * 2
    assert step.next_observation[:, 0].tolist() == [5.0, 5.0]
    assert step.observation[:, 0].tolist() == [0.0, 0.0]
    assert [length for _, length in env.episodes] == [5, 5]
    env.close()


def test_the_number_of_threads_does_not_change_what_happens() -> None:
    trajectories = []
    for threads in (1, 2, 4):
        env = VectorEnv("Pendulum-v1", 4, seed=3, threads=threads)
        rng = np.random.default_rng(0)
        seen = [env.reset().copy()]
        seen += [env.step(rng.uniform(-1, 1, (4, 1)).astype(np.float32)).observation.copy() for _ in range(210)]
        trajectories.append(np.stack(seen))
        env.close()
    np.testing.assert_array_equal(trajectories[0], trajectories[1])
    np.testing.assert_array_equal(trajectories[0], trajectories[2])


def test_copies_and_seeds_differ() -> None:
    first, second = (VectorEnv("Pendulum-v1", 2, seed=seed) for seed in (0, 1))
    a, b = first.reset().copy(), second.reset().copy()
    assert not np.array_equal(a[0], a[1])
    assert not np.array_equal(a, b)


def test_an_environment_that_returns_nan_is_stopped() -> None:
    env = VectorEnv("toys/Diverges-v0", 2, seed=0)
    env.reset()
    action = np.zeros((2, 2), np.float32)
    env.step(action)
    env.step(action)
    with pytest.raises(UserError, match="toys/Diverges-v0 returned NaN"):
        env.step(action)


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Registers a class under a name for one test; returns the name."""
    names = []

    def register(name: str, kind: type[gymnasium.Env], **settings: Any) -> str:
        gymnasium.register(name, kind, kwargs=settings)
        names.append(name)
        return name

    yield register
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros(3), r"observation of shape \(3,\) and type float64, but its observation_space says \(2,\)"),
        (np.zeros((2, 1)), r"observation of shape \(2, 1\)"),
        (0.0, r"observation of shape \(\)"),
        (np.array(["1", "2"]), "type <U1"),
        (np.array([0.0, np.nan]), "returned NaN"),
        (np.array([np.inf, 0.0]), "returned NaN or infinity"),
    ],
)
def test_an_environment_that_does_not_keep_to_its_space_is_refused_at_the_start(
    given: Any, message: str, register: Callable[..., str]
) -> None:
    name = register("toys/LiesAtOnce-v0", Liar, since=0, given=given)
    with pytest.raises(UserError, match=message):
        VectorEnv(name, 1, seed=0).reset()


@pytest.mark.parametrize("given", [np.zeros(1), np.zeros((1, 2)), 0.5, [0.0, 0.0, 0.0]])
def test_an_environment_whose_shape_changes_later_is_stopped(given: Any, register: Callable[..., str]) -> None:
    name = register("toys/LiesLater-v0", Liar, since=3, given=given)
    env = VectorEnv(name, 2, seed=0)
    env.reset()
    env.step(np.zeros((2, 2), np.float32))
    env.step(np.zeros((2, 2), np.float32))
    with pytest.raises(UserError, match=r"LiesLater-v0 returned an observation of shape .* Correct the environment"):
        env.step(np.zeros((2, 2), np.float32))


def test_frames_are_bytes_in_and_out() -> None:
    env = VectorEnv("toys/Blob-v0", 2, seed=0)
    before = env.reset().copy()
    step = env.step(np.zeros(2, np.int64))
    assert before.dtype == step.observation.dtype == step.next_observation.dtype == np.uint8
    assert step.next_observation.shape == (2, 84, 84, 4)
    np.testing.assert_array_equal(step.next_observation[..., :3], before[..., 1:])


def test_frames_that_are_not_bytes_are_refused(register: Callable[..., str]) -> None:
    class Floats(toy_envs.Blob):
        def look(self) -> Any:
            return super().look() / 255

    name = register("toys/Floats-v0", Floats)
    with pytest.raises(UserError, match=r"type float64, but its observation_space says \(84, 84, 4\) and uint8"):
        VectorEnv(name, 1, seed=0).reset()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("Pendulum-v1", 250, 200),
        ("CartPole-v1", 250, 250),
        ("LunarLander-v3", 250, 250),
        ("HalfCheetah-v5", 1100, 950),
        ("Hopper-v5", 250, 250),
        ("dmc:cheetah-run", 1030, 1000),
        ("dmc:ball_in_cup-catch", 100, 950),
        ("dmc:lqr-lqr_2_1", 100, 100),
        ("ale:Pong-v5", 90, 60),
        ("ale:Breakout-v5", 90, 200),
        ("toys/Blob-v0", 50, 50),
        ("toys/Long-v0", 2500, 10),
    ],
)
def test_a_restored_batch_goes_on_as_if_it_had_not_been_cut_off(name: str, before: int, after: int) -> None:
    env = VectorEnv(name, 2, seed=3)
    env.reset()
    for actions in random_actions(env, before):
        env.step(actions)
    file = io.BytesIO()
    np.savez(file, **env.state())
    file.seek(0)
    restored = VectorEnv(name, 2, seed=3, threads=1)
    np.testing.assert_array_equal(restored.restore(dict(np.load(file))), env.state()["observation"])
    assert restored.episodes == env.episodes
    for actions in random_actions(env, after, seed=1):
        ours, theirs = everything(env.step(actions)), everything(restored.step(actions))
        for a, b in zip(ours, theirs):
            np.testing.assert_array_equal(a, b)
    assert restored.episodes == env.episodes
    env.close()
    restored.close()


def test_the_longest_episode_of_a_state_need_not_be_the_first_copys() -> None:
    env = VectorEnv("CartPole-v1", 3, seed=0)
    env.reset()
    # Copy 1 alternates, which keeps the pole up for longest.
    for t in range(30):
        observation = env.step(np.array([0, t % 2, 1])).observation.copy()
    restored = VectorEnv("CartPole-v1", 3, seed=0)
    np.testing.assert_array_equal(restored.restore(env.state()), observation)
    assert len(set(env.state()["length"].tolist())) > 1


def test_only_the_last_hundred_episodes_are_in_a_state() -> None:
    env = VectorEnv("toys/Match-v0", 2, seed=0)
    env.reset()
    for actions in random_actions(env, 80):
        env.step(actions)
    assert len(env.episodes) == 160
    assert env.state()["episodes"].tolist() == [list(episode) for episode in env.episodes[-100:]]


def test_an_environment_that_goes_elsewhere_begins_anew_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    env = VectorEnv("toys/Chance-v0", 3, seed=0)
    env.reset()
    for _ in range(7):
        env.step(np.zeros((3, 2), np.float32))
    restored = VectorEnv("toys/Chance-v0", 3, seed=0)
    observation = restored.restore(env.state())
    assert capsys.readouterr().err == (
        "toys/Chance-v0 is not deterministic: the same seed and actions led elsewhere. 3 of 3 episodes that were under "
        "way begin anew.\n"
    )
    assert observation[:, 0].tolist() == [0.0] * 3
    assert restored.episodes == env.episodes
    # What had been collected of the episodes that are gone counts no more.
    for _ in range(5):
        restored.step(np.zeros((3, 2), np.float32))
    assert [length for _, length in restored.episodes] == [5] * 6


def test_every_episode_has_a_seed_of_its_own() -> None:
    env = VectorEnv("toys/Count-v0", 3, seed=0)
    starts = [env.reset()[:, 1].copy()]
    for _ in range(20):
        step = env.step(np.zeros((3, 2), np.float32))
        if step.done.any():
            starts.append(step.observation[:, 1].copy())
    assert len({start for copies in starts for start in copies.tolist()}) == 15


def test_threads_are_what_steps_unless_asked_otherwise() -> None:
    assert type(make_vector("Pendulum-v1", 1, seed=0)) is VectorEnv


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FailingReset", "failed in reset .*ValueError: no link. Correct the environment"),
        ("FailingShortReset", "failed in _begin .*reset returns .observation, info"),
        ("FailingStep", "failed in step .*toy_envs.py, line .*ValueError: the motor is on fire"),
        ("FailingShortStep", "failed in _step_group .*step .observation, reward, terminated, truncated, info"),
        ("FailingReward", "failed in _step_group .*ValueError: setting an array element with a sequence"),
    ],
)
def test_an_environment_that_fails_is_named_with_the_place_in_a_sentence(name: str, message: str) -> None:
    env = make_vector(f"toys/{name}-v0", 2, seed=0)

    def reset_and_step() -> None:
        env.reset()
        env.step(np.zeros((2, 1), np.float32))

    with contextlib.closing(env), pytest.raises(UserError, match=message):
        reset_and_step()
