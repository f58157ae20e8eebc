from typing import Any

import numpy as np
import pytest
from replays import numbered, through_npz, vectors
from scipy import stats

from tfqrl.replay import UniformReplay


def contents(replay: UniformReplay) -> list[int]:
    """The numbers of the transitions in it, each of which is seen to be whole."""
    sample = replay.sample(1, 60 * len(replay), np.random.default_rng(0))
    expected = [numbered(int(n), 1) for n in sample.reward[0]]
    for name in ("observation", "action", "next_observation", "discount"):
        np.testing.assert_array_equal(getattr(sample, name)[0], np.concatenate([getattr(e, name) for e in expected]))
    return sorted({int(n) for n in sample.reward[0]})


def test_samples_have_the_shapes_and_types_that_they_are_said_to() -> None:
    replay = UniformReplay(10, vectors())
    replay.extend(numbered(0, 7))
    sample = replay.sample(4, 5, np.random.default_rng(0))
    shapes = {"observation": (4, 5, 3), "action": (4, 5, 2), "reward": (4, 5), "next_observation": (4, 5, 3)}
    for name, shape in (shapes | {"discount": (4, 5)}).items():
        field = getattr(sample, name)
        assert (field.shape, field.dtype, field.flags.c_contiguous) == (shape, np.float32, True)
    assert sample.weight is None
    assert sample.index is None


@pytest.mark.parametrize("pieces", [[1] * 25, [3] * 9, [10, 10, 3], [4, 25], [0, 6, 0], [10], [11]])
def test_it_holds_the_last_ones(pieces: list[int]) -> None:
    replay, added = UniformReplay(10, vectors()), 0
    for count in pieces:
        replay.extend(numbered(added, count))
        added += count
        assert len(replay) == min(added, 10)
    assert contents(replay) == list(range(max(0, added - 10), added))


def test_a_capacity_of_one_holds_the_last_one() -> None:
    replay = UniformReplay(1, vectors())
    replay.extend(numbered(0, 3))
    assert contents(replay) == [2]


def test_what_was_given_is_copied() -> None:
    replay, given = UniformReplay(10, vectors()), numbered(0, 4)
    replay.extend(given)
    for field in (given.observation, given.action, given.reward, given.next_observation, given.discount):
        field[:] = -1
    assert contents(replay) == [0, 1, 2, 3]


def test_what_is_sampled_is_not_overwritten() -> None:
    replay = UniformReplay(4, vectors())
    replay.extend(numbered(0, 4))
    sample = replay.sample(1, 8, np.random.default_rng(0))
    before = sample.observation.copy()
    replay.extend(numbered(4, 4))
    replay.sample(1, 8, np.random.default_rng(1))
    np.testing.assert_array_equal(sample.observation, before)


@pytest.mark.parametrize("added", [70, 130])
def test_every_transition_is_as_likely_as_any_other(added: int) -> None:
    replay = UniformReplay(100, vectors())
    replay.extend(numbered(0, added))
    drawn = replay.sample(100, 500, np.random.default_rng(0)).reward.astype(int)
    counts = np.bincount(drawn.ravel())[max(0, added - 100) :]
    assert len(counts) == len(replay)
    assert stats.chisquare(counts).pvalue > 0.01


def test_the_random_numbers_decide() -> None:
    replay = UniformReplay(100, vectors())
    replay.extend(numbered(0, 80))
    a, b, c = (replay.sample(3, 4, np.random.default_rng(seed)).reward for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("added", [0, 6, 10, 27])
def test_a_restored_one_goes_on_bit_for_bit(added: int) -> None:
    through, resumed = UniformReplay(10, vectors()), UniformReplay(10, vectors())
    through.extend(numbered(0, added))
    state: dict[str, Any] = through_npz(through.state())
    assert all(len(array) == len(through) for name, array in state.items() if name != "added")
    resumed.restore(state)
    for first in (added, added + 3, added + 6):
        samples = []
        for replay in (through, resumed):
            replay.extend(numbered(first, 3))
            samples.append(replay.sample(2, 30, np.random.default_rng(first)))
        for name in ("observation", "action", "reward", "next_observation", "discount"):
            np.testing.assert_array_equal(getattr(samples[0], name), getattr(samples[1], name), strict=True)


def test_a_state_of_another_capacity_is_noticed() -> None:
    replay = UniformReplay(10, vectors())
    replay.extend(numbered(0, 10))
    with pytest.raises(AssertionError, match="capacity"):
        UniformReplay(20, vectors()).restore(replay.state() | {"added": np.array(12)})
