import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replays import numbered, through_npz, vectors
from scipy import stats

from tfqrl.replay import PrioritizedReplay
from tfqrl.replay.sum_tree import SumTree


def filled(added: int, capacity: int = 10, alpha: float = 1.0, beta: float = 0.4) -> PrioritizedReplay:
    replay = PrioritizedReplay(capacity, vectors(), alpha, beta)
    replay.extend(numbered(0, added))
    return replay


def set_priorities(replay: PrioritizedReplay, td_error: list[float], first: int = 0) -> None:
    replay.update_priorities(np.arange(first, first + len(td_error)), np.array(td_error, np.float32))


@given(
    capacity=st.integers(1, 40),
    changes=st.lists(st.lists(st.tuples(st.integers(0, 39), st.floats(0, 1e6)), max_size=12), min_size=1, max_size=6),
    at=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=20),
)
def test_the_sum_tree_does_what_a_list_does(
    capacity: int, changes: list[list[tuple[int, float]]], at: list[float]
) -> None:
    tree, weights = SumTree(capacity), np.zeros(capacity)
    for change in changes:
        numbers = np.array([n % capacity for n, _ in change], np.int64)
        for n, (_, weight) in zip(numbers, change):
            weights[n] = weight
        tree[numbers] = [weight for _, weight in change]
    np.testing.assert_array_equal(tree[np.arange(capacity)], weights)
    assert tree.total == pytest.approx(weights.sum(), rel=1e-12)
    if tree.total > 1e-300:
        sums = np.cumsum(weights)
        for found, mass in zip(tree.find(np.array(at) * tree.total), np.array(at) * tree.total):
            assert weights[found] > 0
            # The sums are rounded in another order.
            slack = 1e-9 * tree.total
            assert sums[found] - weights[found] - slack <= mass <= sums[found] + slack


def test_the_tree_finds_by_hand() -> None:
    tree = SumTree(5)
    tree[np.arange(5)] = [1.0, 0.0, 2.0, 3.0, 0.5]
    mass = np.array([[0.0, 0.99, 1.0], [2.99, 3.0, 6.49]])
    assert tree.find(mass).tolist() == [[0, 0, 2], [2, 3, 4]]


def test_what_rounding_leaves_over_is_never_a_weight_of_zero() -> None:
    tree = SumTree(6)
    tree[np.arange(3)] = [1.0, 1.0, 1.0]
    assert tree.find(np.array([3.0, 1e9])).tolist() == [2, 2]


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_transitions_come_up_in_proportion_to_their_priorities(alpha: float) -> None:
    replay = filled(5, alpha=alpha)
    errors = np.array([1.0, -2.0, 0.5, 4.0, 8.0])
    set_priorities(replay, errors.tolist())
    drawn = replay.sample(2000, 10, np.random.default_rng(0)).reward.astype(int)
    expected = np.abs(errors) ** alpha / (np.abs(errors) ** alpha).sum() * drawn.size
    # Counts of strata scatter less than independent ones: the test errs towards passing, the second bound does not.
    assert stats.chisquare(np.bincount(drawn.ravel()), expected).pvalue > 0.01
    np.testing.assert_allclose(np.bincount(drawn.ravel()), expected, rtol=0.05)


def test_a_batch_is_stratified() -> None:
    replay = filled(4)
    set_priorities(replay, [1.0, 1.0, 1.0, 1.0])
    # Each of four equal parts is one transition.
    drawn = replay.sample(50, 4, np.random.default_rng(0)).reward
    np.testing.assert_array_equal(drawn, np.tile(np.arange(4.0), (50, 1)))


@pytest.mark.parametrize(("beta", "weights"), [(0.0, [1, 1, 1]), (0.5, [1, 0.5**0.5, 0.5]), (1.0, [1, 0.5, 0.25])])
def test_importance_weights_by_hand(beta: float, weights: list[float]) -> None:
    replay = filled(3, beta=beta)
    set_priorities(replay, [1.0, 2.0, 4.0])
    # Probabilities 1/7, 2/7, 4/7: (3 P) ** -beta over that of the first.
    sample = replay.sample(1, 70, np.random.default_rng(0))
    assert sample.weight is not None
    assert sample.weight.dtype == np.float32
    np.testing.assert_allclose(sample.weight, np.array(weights)[sample.reward.astype(int)], rtol=1e-5)


def test_the_largest_weight_is_that_of_each_batch() -> None:
    replay = filled(10, beta=1.0)
    set_priorities(replay, [1e-3] + [1.0 + i for i in range(9)])
    sample = replay.sample(40, 4, np.random.default_rng(0))
    assert sample.weight is not None
    np.testing.assert_array_equal(sample.weight.max(axis=1), 1.0)


def test_new_transitions_have_the_largest_priority_there_ever_was() -> None:
    replay = filled(3)
    np.testing.assert_allclose(replay.state()["priority"], [1, 1, 1])
    set_priorities(replay, [5.0, 0.5, 0.25])
    replay.extend(numbered(3, 1))
    # It is given what was the largest when it came.
    set_priorities(replay, [0.1, 7.0])
    np.testing.assert_allclose(replay.state()["priority"], [0.1, 7, 0.25, 5], rtol=1e-4)
    set_priorities(replay, [1.0, 1.0])
    replay.extend(numbered(4, 2))
    np.testing.assert_allclose(replay.state()["priority"], [1, 1, 0.25, 5, 7, 7], rtol=1e-4)


def test_an_error_of_zero_can_still_come_up() -> None:
    replay = filled(2, alpha=0.5)
    set_priorities(replay, [0.0, 0.0])
    drawn = replay.sample(1, 100, np.random.default_rng(0)).reward
    assert set(drawn[0].tolist()) == {0.0, 1.0}


def test_the_index_is_of_the_transition_though_rows_were_overwritten() -> None:
    replay = filled(37)
    sample = replay.sample(3, 20, np.random.default_rng(0))
    np.testing.assert_array_equal(sample.index, sample.reward)
    assert sample.index is not None
    assert sample.index.dtype == np.int64


def test_errors_of_transitions_that_were_overwritten_are_passed_over() -> None:
    replay = filled(10)
    sample = replay.sample(1, 100, np.random.default_rng(0))
    replay.extend(numbered(10, 4))
    assert sample.index is not None
    replay.update_priorities(sample.index, 100.0 + sample.index)
    # Rows 0 to 3 hold 10 to 13 now, which are new.
    np.testing.assert_allclose(replay.state()["priority"], [1, 1, 1, 1, *range(104, 110)], rtol=1e-6)
    # Nor do they count as the largest.
    replay = filled(10)
    replay.extend(numbered(10, 4))
    set_priorities(replay, [1e6] * 4 + [2.0] * 6)
    replay.extend(numbered(14, 1))
    np.testing.assert_allclose(replay.state()["priority"], [1, 1, 1, 1, *[2] * 6], rtol=1e-6)
    replay = filled(10)
    replay.extend(numbered(10, 10))
    set_priorities(replay, [1e6] * 10)
    np.testing.assert_array_equal(replay.state()["priority"], np.ones(10))


def test_a_restored_one_goes_on_bit_for_bit() -> None:
    through, resumed = filled(0, alpha=0.6), filled(0, alpha=0.6)
    for t in range(30):
        if t in (0, 1, 5, 20):
            state, resumed = resumed.state(), filled(0, alpha=0.6)
            resumed.restore(through_npz(state))
        samples = []
        for replay in (through, resumed):
            rng = np.random.default_rng(t)
            replay.extend(numbered(3 * t, 1 + t % 3))
            samples.append(replay.sample(2, 8, rng))
            if t % 2:
                replay.update_priorities(samples[-1].index, rng.normal(size=(2, 8)))
        for name in ("observation", "action", "reward", "next_observation", "discount", "weight", "index"):
            np.testing.assert_array_equal(getattr(samples[0], name), getattr(samples[1], name), strict=True)
