from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replays import frames, play, through_npz, vectors

from tfqrl.envs import VectorStep
from tfqrl.replay import NStep, Transitions


def column(*values: Any) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def step(reward: Any, terminated: Any, done: Any, led_to: Any) -> VectorStep:
    led = column(*led_to)
    return VectorStep(led + 100, led, np.array(reward, np.float32), np.array(terminated, bool), np.array(done, bool))


def rows(transitions: Transitions) -> list[tuple[float, ...]]:
    """(observation, action, reward, next observation, discount) of each."""
    fields = ("observation", "action", "reward", "next_observation", "discount")
    return list(zip(*(getattr(transitions, name).reshape(-1).tolist() for name in fields)))


def one(n_step: NStep, observation: float, reward: float, terminated: bool, done: bool) -> list[tuple[float, ...]]:
    given_step = step([reward], [terminated], [done], [observation + 1])
    return rows(n_step.add(column(observation), column(-observation), given_step))


def test_a_window_of_one_step_is_the_step() -> None:
    n_step = NStep(1, 1, 0.5)
    assert one(n_step, 3, 7, False, False) == [(3, -3, 7, 4, 0.5)]
    assert one(n_step, 4, 8, True, True) == [(4, -4, 8, 5, 0)]


@pytest.mark.parametrize("n", [1, 3])
def test_a_time_limit_bootstraps(n: int) -> None:
    n_step = NStep(1, n, 0.5)
    assert one(n_step, 3, 7, False, True) == [(3, -3, 7, 4, 0.5)]


def test_windows_of_three_steps_by_hand() -> None:
    n_step = NStep(1, 3, 0.5)
    assert one(n_step, 0, 1, False, False) == []
    assert one(n_step, 1, 2, False, False) == []
    # 1 + 0.5 * 2 + 0.25 * 4 = 3, and 0.5 ** 3.
    assert one(n_step, 2, 4, False, False) == [(0, 0, 3, 3, 0.125)]
    # The time limit comes: 2 + 2 + 2, then two shorter windows, all of which bootstrap from the last observation.
    assert one(n_step, 3, 8, False, True) == [(1, -1, 6, 4, 0.125), (2, -2, 8, 4, 0.25), (3, -3, 8, 4, 0.5)]
    # Nothing of that episode is in the next one, which ends in a state without a future before a window is full.
    assert one(n_step, 10, 1, False, False) == []
    assert one(n_step, 11, 2, True, True) == [(10, -10, 2, 12, 0), (11, -11, 2, 12, 0)]
    assert one(n_step, 20, 1, False, False) == []


def test_an_episode_of_one_step_is_a_window() -> None:
    n_step = NStep(1, 3, 0.5)
    assert one(n_step, 0, 1, True, True) == [(0, 0, 1, 1, 0)]
    assert one(n_step, 5, 2, False, True) == [(5, -5, 2, 6, 0.5)]


def test_copies_have_windows_of_their_own() -> None:
    n_step = NStep(2, 2, 0.5)

    def add(observation: Any, *given_step: Any) -> list[tuple[float, ...]]:
        return rows(n_step.add(column(*observation), -column(*observation), step(*given_step)))

    assert add([0, 10], [1, 2], [0, 0], [0, 0], [1, 11]) == []
    # The second copy terminates: its two windows are finished, and the first copy's full one, oldest first.
    assert add([1, 11], [2, 4], [0, 1], [0, 1], [2, 12]) == [
        (0, 0, 2, 2, 0.25),
        (10, -10, 4, 12, 0),
        (11, -11, 4, 12, 0),
    ]
    # So the second has none that is full when the first has.
    assert add([2, 20], [4, 6], [0, 0], [0, 0], [3, 21]) == [(1, -1, 4, 3, 0.25)]
    assert add([3, 21], [8, 8], [0, 0], [1, 0], [4, 22]) == [
        (2, -2, 8, 4, 0.25),
        (20, -20, 10, 22, 0.25),
        (3, -3, 8, 4, 0.5),
    ]


def brute_force(history: list[Any], n: int, gamma: float) -> list[tuple[int, int, int, Any, np.float32]]:
    """(last step, first step, copy, reward, discount) of every window that is finished, from all steps at once."""
    windows = []
    for first in range(len(history)):
        for copy in range(len(history[0][0])):
            reward = np.float32(0)
            for k in range(n):
                if first + k == len(history):
                    break
                rewards, terminated, done = history[first + k]
                reward += np.float32(gamma**k) * rewards[copy]
                if done[copy] or k == n - 1:
                    discount = np.float32(0 if terminated[copy] else gamma ** (k + 1))
                    windows.append((first + k, first, copy, reward, discount))
                    break
    return sorted(windows, key=lambda window: window[:3])


@given(
    ends=st.lists(st.lists(st.sampled_from(["", "terminated", "time limit"]), min_size=3, max_size=3), max_size=15),
    num_envs=st.integers(1, 3),
    n=st.integers(1, 5),
    gamma=st.sampled_from([0.0, 0.9, 0.99, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_windows_are_those_of_the_definition(ends: Any, num_envs: int, n: int, gamma: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_step = NStep(num_envs, n, gamma)
    history, found = [], []
    for t, end in enumerate(ends):
        terminated = np.array([e == "terminated" for e in end[:num_envs]])
        done = np.array([e != "" for e in end[:num_envs]])
        reward = rng.normal(size=num_envs).astype(np.float32)
        history.append((reward, terminated, done))
        number = np.stack([np.full(num_envs, t), np.arange(num_envs)], 1).astype(np.float32)
        result = n_step.add(number, number + 0.5, VectorStep(number + 9, number, reward, terminated, done))
        for o, a, r, led_to, d in zip(
            result.observation, result.action, result.reward, result.next_observation, result.discount
        ):
            assert (a == o + 0.5).all()
            assert led_to[1] == o[1]
            found.append((int(led_to[0]), int(o[0]), int(o[1]), r, d))
    assert found == brute_force(history, n, gamma)


@pytest.mark.parametrize("spec", [vectors(), frames()], ids=["vectors", "frames"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_restored_one_goes_on_bit_for_bit(spec: Any, n: int) -> None:
    through, resumed = NStep(2, n, 0.97), NStep(2, n, 0.97)
    for t, (observation, action, given_step) in enumerate(play(spec, 2, 40, seed=1)):
        if t in (0, 1, 2, 17):
            state, resumed = resumed.state(), NStep(2, n, 0.97)
            resumed.restore(through_npz(state))
        ours, theirs = (x.add(observation, action, given_step) for x in (through, resumed))
        for name in ("observation", "action", "reward", "next_observation", "discount"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)
    assert {k: v.tobytes() for k, v in through.state().items()} == {k: v.tobytes() for k, v in resumed.state().items()}


def test_what_the_next_step_overwrites_is_not_lost() -> None:
    # `play` overwrites the arrays of its step, as environments do.
    n_step, seen, began = NStep(1, 4, 1.0), [], []
    for observation, action, given_step in play(vectors(), 1, 60, seed=2):
        seen.append(observation.tobytes())
        began += [o.tobytes() for o in n_step.add(observation, action, given_step).observation]
        observation[:] = np.nan
    assert began == seen[: len(began)]
    assert len(began) >= 57


def test_an_observation_that_the_step_has_overwritten_is_noticed() -> None:
    given_step = step([0], [False], [False], [1])
    with pytest.raises(AssertionError, match="not what it was taken on"):
        NStep(1, 1, 0.9).add(given_step.observation, column(0), given_step)
