from collections import deque
from typing import Any

import numpy as np
import pytest
from replays import frames, play, through_npz

from tfqrl.replay import NStep, PrioritizedReplay, Transitions, UniformReplay

FIELDS = ("observation", "action", "reward", "next_observation", "discount")


def check(replay: UniformReplay, expected: Any) -> None:
    """`replay` holds the transitions `expected`, bit for bit, and each of their frames once."""
    sample = replay.sample(1, 20 * len(expected), np.random.default_rng(0))
    by_reward = {float(fields[2]): fields for fields in expected}
    assert set(sample.reward[0].tolist()) == set(by_reward)
    for i, reward in enumerate(sample.reward[0].tolist()):
        for name, value in zip(FIELDS, by_reward[reward]):
            np.testing.assert_array_equal(getattr(sample, name)[0, i], value)
    distinct = {s[..., c].tobytes() for fields in expected for s in (fields[0], fields[3]) for c in range(s.shape[-1])}
    assert len(replay.state()["observations/frames"]) == len(distinct)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stack", [1, 4])
def test_stacks_come_back_bit_for_bit_and_frames_are_stored_once(num_envs: int, n: int, stack: int) -> None:
    spec = frames(stack=stack)
    replay, n_step = UniformReplay(50, spec), NStep(num_envs, n, 0.9)
    expected: Any = deque(maxlen=50)
    for t, (observation, action, step) in enumerate(play(spec, num_envs, 240 // num_envs, seed=n)):
        transitions = n_step.add(observation, action, step)
        replay.extend(transitions)
        expected += [tuple(getattr(transitions, name)[i].copy() for name in FIELDS) for i in range(len(transitions))]
        if t % 40 == 39:
            check(replay, expected)
    assert len(expected) == len(replay) == 50


def test_a_transition_costs_one_frame() -> None:
    spec = frames()
    replay, n_step = UniformReplay(1000, spec), NStep(1, 3, 0.9)
    episodes = 0
    for observation, action, step in play(spec, 1, 500, seed=0):
        replay.extend(n_step.add(observation, action, step))
        episodes += int(step.done[0])
    assert len(replay) < len(replay.state()["observations/frames"]) <= len(replay) + episodes + 3


def test_sampled_frames_have_the_shape_and_type_of_observations() -> None:
    spec = frames()
    replay, n_step = UniformReplay(1000, spec), NStep(2, 1, 0.9)
    for played in play(spec, 2, 20, seed=0):
        replay.extend(n_step.add(*played))
    sample = replay.sample(3, 7, np.random.default_rng(0))
    for stacks in (sample.observation, sample.next_observation):
        assert (stacks.shape, stacks.dtype, stacks.flags.c_contiguous) == ((3, 7, 5, 4, 4), np.uint8, True)
    assert sample.action.dtype == np.int32
    assert sample.action.shape == (3, 7)


def test_more_frames_than_there_was_room_for_at_first_are_kept() -> None:
    # Nothing overlaps: 8 new frames a transition, and room for them is made several times.
    spec, rng = frames(2, 3, 4), np.random.default_rng(0)
    stacks = rng.integers(0, 256, (900, 2, 2, 3, 4), dtype=np.uint8)
    replay = UniformReplay(600, spec)
    n = np.arange(900, dtype=np.float32)
    for i in range(0, 900, 90):
        j = slice(i, i + 90)
        replay.extend(Transitions(stacks[j, 0], np.zeros(90, np.int32), n[j], stacks[j, 1], n[j]))
    sample = replay.sample(1, 5000, np.random.default_rng(0))
    numbers = sample.reward[0].astype(int)
    assert numbers.min() == 300
    np.testing.assert_array_equal(sample.observation[0], stacks[numbers, 0])
    np.testing.assert_array_equal(sample.next_observation[0], stacks[numbers, 1])


def test_frames_that_are_gone_make_room_and_may_come_back() -> None:
    # Stacks of a few frames that recur: many of them vanish from a replay of 6, and return.
    spec, rng = frames(2, 3, 2), np.random.default_rng(0)
    pool = rng.integers(0, 256, (40, 2, 3), dtype=np.uint8)
    replay, expected = UniformReplay(6, spec), deque(maxlen=6)
    for t in range(2000):
        stacks = np.moveaxis(pool[rng.integers(0, 40, (2, 2))], 1, -1)
        number = np.array([t], np.float32)
        replay.extend(Transitions(stacks[:1], np.zeros(1, np.int32), number, stacks[1:], number))
        expected.append((stacks[0], np.int32(0), number[0], stacks[1], number[0]))
        if t % 20 == 0:
            check(replay, expected)


def test_memory_does_not_grow_once_the_replay_is_full() -> None:
    spec = frames()
    replay, n_step = UniformReplay(100, spec), NStep(1, 1, 0.9)
    for played in play(spec, 1, 3000, seed=0):
        replay.extend(n_step.add(*played))
    assert len(replay._observations._frames) == 1024


def test_frames_whose_hashes_are_equal_are_not_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfqrl.replay.frames.hash", lambda data: data[0] % 3, raising=False)
    spec = frames()
    replay, n_step = UniformReplay(30, spec), NStep(2, 2, 0.9)
    expected: Any = deque(maxlen=30)
    for observation, action, step in play(spec, 2, 60, seed=3):
        transitions = n_step.add(observation, action, step)
        replay.extend(transitions)
        expected += [tuple(getattr(transitions, name)[i].copy() for name in FIELDS) for i in range(len(transitions))]
    sample = replay.sample(1, 500, np.random.default_rng(0))
    by_reward = {float(fields[2]): fields for fields in expected}
    for i, reward in enumerate(sample.reward[0].tolist()):
        np.testing.assert_array_equal(sample.observation[0, i], by_reward[reward][0])
        np.testing.assert_array_equal(sample.next_observation[0, i], by_reward[reward][3])


@pytest.mark.parametrize(
    "make", [UniformReplay, lambda *args: PrioritizedReplay(*args, 0.6, 0.5)], ids=["uniform", "per"]
)
@pytest.mark.parametrize("restored_after", [0, 10, 45])
def test_a_restored_one_goes_on_bit_for_bit(make: Any, restored_after: int) -> None:
    spec = frames()
    through, resumed = make(40, spec), make(40, spec)
    n_step = NStep(2, 3, 0.9)
    for t, played in enumerate(play(spec, 2, 90, seed=4)):
        if t == restored_after:
            resumed = make(40, spec)
            resumed.restore(through_npz(through.state()))
        transitions = n_step.add(*played)
        for replay in (through, resumed):
            replay.extend(transitions)
        if len(through):
            ours, theirs = (x.sample(2, 8, np.random.default_rng(t)) for x in (through, resumed))
            for name in FIELDS:
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)
    states = [{k: v.tobytes() for k, v in replay.state().items()} for replay in (through, resumed)]
    assert states[0].keys() == states[1].keys()
    assert len(through.state()["observations/frames"]) == len(resumed.state()["observations/frames"])
