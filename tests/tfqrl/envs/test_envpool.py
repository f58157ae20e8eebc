import math
import sys
from typing import Literal

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)
from scipy import stats

from edge.errors import UnknownNameError, UsageError
from tfqrl.envs import EnvPoolVectorEnv, VectorEnv, make_vector
from tfqrl.envs.envpool import task_name

pytest.importorskip("envpool", reason="envpool has no wheels for this Python or machine")


def actions_of(env: VectorEnv | EnvPoolVectorEnv, rng: np.random.Generator) -> np.ndarray:
    action = env.spec.action
    if action.n is not None:
        return rng.integers(0, action.n, env.num_envs)
    return rng.uniform(-1, 1, (env.num_envs, *action.shape)).astype(np.float32)


COPIES = 4


def returns_and_lengths(name: str, vec: Literal["threads", "envpool"], episodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Of as many episodes of each copy, so that short ones do not count for more, with random actions."""
    env = make_vector(name, COPIES, seed=1, vec=vec)
    rng = np.random.default_rng(2)
    env.reset()
    lengths, returns = np.zeros(COPIES), np.zeros(COPIES)
    played: list[list[tuple[float, float]]] = [[] for _ in range(COPIES)]
    while min(map(len, played)) < episodes // COPIES:
        step = env.step(actions_of(env, rng))
        returns += step.reward
        lengths += 1
        for i in np.flatnonzero(step.done):
            played[i].append((returns[i], lengths[i]))
            returns[i] = lengths[i] = 0.0
    env.close()
    columns = np.array([episode for copy in played for episode in copy[: episodes // COPIES]]).T
    return columns[0], columns[1]


@pytest.mark.parametrize(
    ("name", "episodes"),
    [
        ("CartPole-v1", 200),
        ("Pendulum-v1", 64),
        ("LunarLander-v3", 100),
        ("HalfCheetah-v5", 12),
        ("Hopper-v5", 100),
        ("Walker2d-v5", 100),
        ("dmc:cheetah-run", 8),
        ("ale:Breakout-v5", 8),
    ],
)
def test_random_actions_return_the_same_by_threads_and_by_envpool(name: str, episodes: int) -> None:
    found = returns_and_lengths(name, "threads", episodes), returns_and_lengths(name, "envpool", episodes)
    for threads, pool in zip(*found):
        spread = math.sqrt((threads.var(ddof=1) + pool.var(ddof=1)) / episodes)
        # Seeded, so that it comes out the same each time; a difference that matters would be far outside.
        assert abs(threads.mean() - pool.mean()) <= stats.t.ppf(0.9995, episodes - 1) * spread


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "LunarLander-v3", "HalfCheetah-v5", "dmc:walker-stand", "dmc:fish-swim", "dmc:humanoid-run"]
)
def test_first_observations_are_alike_element_by_element(name: str) -> None:
    found = []
    for env in VectorEnv(name, 2, seed=0), EnvPoolVectorEnv(name, 2, seed=0):
        found.append(np.concatenate([env.reset().copy() for _ in range(100)]).astype(np.float64))
        env.close()
    a, b = found
    error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / len(a))
    assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 5 * error + 1e-3).all()


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "dmc:cheetah-run", "ale:Pong-v5"])
def test_specs_and_arrays_are_those_of_threads(name: str) -> None:
    threads, pool = VectorEnv(name, 2, seed=0), EnvPoolVectorEnv(name, 2, seed=0)
    assert pool.spec == threads.spec
    assert pool.reset().shape == threads.reset().shape
    actions = actions_of(threads, np.random.default_rng(0))
    for ours, theirs in zip(vars(threads.step(actions)).values(), vars(pool.step(actions)).values()):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)


def test_an_ended_episode_shows_its_last_observation_and_begins_the_next_without_a_step_lost() -> None:
    env = EnvPoolVectorEnv("CartPole-v1", 4, seed=0)
    env.reset()
    rng, rewards, ended = np.random.default_rng(0), 0.0, 0
    for _ in range(300):
        step = env.step(actions_of(env, rng))
        rewards += float(step.reward.sum())
        fallen = (np.abs(step.next_observation[:, 2]) > 0.2095) | (np.abs(step.next_observation[:, 0]) > 2.4)
        np.testing.assert_array_equal(step.done, fallen)
        np.testing.assert_array_equal(step.terminated, fallen)
        assert (np.abs(step.observation[step.done]) <= 0.05).all()
        np.testing.assert_array_equal(step.observation[~step.done], step.next_observation[~step.done])
        ended += int(step.done.sum())
    # CartPole rewards every step that counts with 1.
    assert rewards == 300 * 4
    assert len(env.episodes) == ended > 20
    assert all(episode_return == length for episode_return, length in env.episodes)


def test_a_limit_of_time_is_no_termination() -> None:
    for name, limit in (("Pendulum-v1", 200), ("dmc:cartpole-balance", 1000)):
        env = EnvPoolVectorEnv(name, 2, seed=0)
        env.reset()
        for _ in range(limit - 1):
            assert not env.step(np.zeros((2, 1), np.float32)).done.any()
        step = env.step(np.zeros((2, 1), np.float32))
        assert step.done.all()
        assert not step.terminated.any()
        assert [length for _, length in env.episodes] == [limit] * 2


def test_actions_span_the_bounds() -> None:
    # Pendulum's cost of torque is 0.001 u^2, with u in -2..2; from the same states all else is equal.
    costs = []
    for action in (0.0, 1.0, 5.0):
        env = EnvPoolVectorEnv("Pendulum-v1", 1, seed=0)
        env.reset()
        costs.append(-float(env.step(np.array([[action]], np.float32)).reward[0]))
    assert costs[1] - costs[0] == pytest.approx(0.004, abs=1e-6)
    assert costs[2] == costs[1]


def test_frames_are_those_of_ale_with_the_newest_last() -> None:
    env = EnvPoolVectorEnv("ale:Pong-v5", 2, seed=0)
    threads = VectorEnv("ale:Pong-v5", 1, seed=0)
    before = env.reset().copy()
    # Before anything has moved, the picture is the same.
    np.testing.assert_array_equal(before[0], threads.reset()[0])
    moved = False
    for actions in np.random.default_rng(0).integers(0, 6, (40, 2)):
        step = env.step(actions)
        np.testing.assert_array_equal(step.next_observation[..., :3], before[..., 1:])
        moved |= not np.array_equal(step.next_observation[..., 3], before[..., 3])
        before = step.observation.copy()
    assert moved


def test_seeds_determine_what_happens_and_copies_differ() -> None:
    def trajectory(seed: int) -> np.ndarray:
        env = EnvPoolVectorEnv("HalfCheetah-v5", 3, seed=seed)
        rng = np.random.default_rng(0)
        seen = [env.reset().copy()]
        seen += [env.step(actions_of(env, rng)).observation.copy() for _ in range(20)]
        return np.stack(seen)

    first = trajectory(0)
    np.testing.assert_array_equal(first, trajectory(0))
    assert not np.array_equal(first, trajectory(1))
    assert not np.array_equal(first[0, 0], first[0, 1])


def test_a_restored_batch_begins_new_episodes_with_new_seeds() -> None:
    env = EnvPoolVectorEnv("CartPole-v1", 2, seed=0)
    first = env.reset().copy()
    for _ in range(100):
        env.step(np.zeros(2, np.int64))
    restored = EnvPoolVectorEnv("CartPole-v1", 2, seed=0)
    second = restored.restore(env.state()).copy()
    assert restored.episodes == env.episodes
    assert (np.abs(second) <= 0.05).all()
    again = EnvPoolVectorEnv("CartPole-v1", 2, seed=0)
    third = again.restore(restored.state())
    assert len({array.tobytes() for array in (first, second, third)}) == 3


def test_names_are_envpools() -> None:
    assert task_name("HalfCheetah-v5") == "HalfCheetah-v5"
    assert task_name("ale:Pong-v5") == "Pong-v5"
    assert task_name("dmc:cheetah-run") == "CheetahRun-v1"
    assert task_name("dmc:ball_in_cup-catch") == "BallInCupCatch-v1"
    assert task_name("dmc:humanoid_CMU-run") == "HumanoidCMURun-v1"


def test_what_envpool_lacks_or_has_otherwise_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no environment like toys/Count-v0\. Leave out --vec"):
        make_vector("toys/Count-v0", 2, seed=0, vec="envpool")
    with pytest.raises(UsageError, match="EnvPool's LqrLqr21-v1 observes or acts otherwise than dmc:lqr-lqr_2_1"):
        make_vector("dmc:lqr-lqr_2_1", 2, seed=0, vec="envpool")
    with pytest.raises(UnknownNameError, match="Did you mean 'CartPole-v1'"):
        make_vector("CartPole-v7", 2, seed=0, vec="envpool")


def test_a_missing_envpool_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(UsageError, match=r"pip install 'tfqrl\[envpool\]'`, or leave out --vec envpool"):
        make_vector("CartPole-v1", 2, seed=0, vec="envpool")
