import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfqrl.normalization import RunningMoments


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_batches_of_any_size_give_the_moments_of_all_rows(sizes: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).normal(5.0, 3.0, size=(sum(sizes), 2))
    moments = RunningMoments((2,))
    start = 0
    for size in sizes:
        moments.update(rows[start : start + size])
        start += size
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(moments.variance, rows.var(axis=0), rtol=1e-9, atol=1e-12)
    assert moments.count == sum(sizes)


def test_training_normalises_as_the_deployed_spec_says() -> None:
    moments = RunningMoments((3,))
    moments.update(np.random.default_rng(0).normal([0.0, 100.0, 1.0], [1e-9, 50.0, 1.0], size=(100, 3)))
    rows = np.random.default_rng(1).normal(50.0, 60.0, size=(20, 3)).astype(np.float32)
    spec = moments.normalizer(5.0)
    expected = np.clip((rows - np.float32(spec.mean)) / np.float32(spec.std), -5.0, 5.0)
    np.testing.assert_array_equal(moments.normalize(rows, 5.0), expected)
    assert spec.std[0] == pytest.approx(1e-4), "a constant element must not explode"


def test_a_checkpoint_holds_everything() -> None:
    moments, restored = RunningMoments((2,)), RunningMoments((2,))
    moments.update(np.random.default_rng(0).normal(size=(10, 2)))
    restored.restore(moments.state())
    more = np.random.default_rng(1).normal(size=(10, 2))
    moments.update(more)
    restored.update(more)
    np.testing.assert_array_equal(moments.mean, restored.mean)
    np.testing.assert_array_equal(moments.variance, restored.variance)


def test_fixed_moments_stay_as_they_are_also_when_restored() -> None:
    moments, other = RunningMoments((2,)), RunningMoments((2,))
    moments.update(np.array([[1.0, 2.0], [3.0, 6.0]]))
    moments.fix()
    other.restore(moments.state())
    for each in (moments, other):
        each.update(np.array([[100.0, 100.0]]))
        np.testing.assert_array_equal(each.mean, [2.0, 4.0])
        np.testing.assert_array_equal(each.variance, [1.0, 4.0])
