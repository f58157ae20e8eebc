import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from converters.weights import Grid, GridError, nearest_grid

KERNEL = np.array([[0.5, -1.0], [-1.27, 0.25], [0.0, 0.125]], np.float32)

kernels = arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.integers(1, 5)),
    elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
)


def test_the_largest_weight_is_the_last_of_8_bits() -> None:
    grid = nearest_grid(KERNEL, 8, per_channel=False)
    assert grid.scale == np.float32(1.27) / np.float32(127)
    np.testing.assert_array_equal(grid.integers, [[50, -100], [-127, 25], [0, 12]])
    per_channel = nearest_grid(KERNEL, 8, per_channel=True)
    np.testing.assert_array_equal(per_channel.scale, np.array([1.27, 1.0], np.float32) / np.float32(127))
    np.testing.assert_array_equal(per_channel.integers[:, 1], [-127, 32, 16])


@given(kernels, st.booleans())
def test_8_bits_are_at_most_half_a_step_away(kernel: np.ndarray, per_channel: bool) -> None:
    grid = nearest_grid(kernel, 8, per_channel=per_channel)
    assert (np.abs(grid.weights - kernel) <= grid.scale * 0.5001).all()


@given(kernels, st.sampled_from([4, 2]), st.booleans())
def test_fewer_bits_have_the_least_squared_error(kernel: np.ndarray, bits: int, per_channel: bool) -> None:
    grid = nearest_grid(kernel, bits, per_channel=per_channel)
    steps = 2 ** (bits - 1) - 1
    largest = np.abs(kernel).max(axis=0) if per_channel else np.abs(kernel).max()
    naive_scale = np.where(largest > 0, largest, 1).astype(np.float32) / np.float32(steps)
    naive = np.rint(kernel / naive_scale) * naive_scale
    assert ((grid.weights - kernel) ** 2).sum() <= ((naive - kernel) ** 2).sum() * 1.0001
    assert np.abs(grid.integers).max() <= steps


def test_a_layer_of_zeros_has_some_scale() -> None:
    grid = nearest_grid(np.zeros((3, 2), np.float32), 8, per_channel=True)
    np.testing.assert_array_equal(grid.scale * 127, [1.0, 1.0])
    assert not grid.integers.any()


@given(st.sampled_from([8, 4, 2]), st.integers(0, 2**32 - 1), st.booleans())
def test_a_trained_grid_is_found_again_exactly(bits: int, seed: int, per_channel: bool) -> None:
    rng = np.random.default_rng(seed)
    lowest = -127 if bits == 8 else -(2 ** (bits - 1))
    integers = rng.integers(lowest, 2 ** (bits - 1), (5, 3)).astype(np.int8)
    scale = rng.uniform(1e-4, 10, 3 if per_channel else ()).astype(np.float32)
    grid = Grid.of(integers.astype(np.float32) * scale, scale, bits)
    np.testing.assert_array_equal(grid.integers, integers)
    assert grid.integers.dtype == np.int8


@pytest.mark.parametrize(
    ("integers", "scale", "bits", "message"),
    [
        ([[8]], 0.5, 4, "Integers from 8 to 8 do not fit 4 bits, -8 to 7"),
        ([[-128]], 0.5, 8, "do not fit 8 bits, -127 to 127"),
        ([[1]], 0.5, 3, "packed at 8, 4 or 2 bits, not 3"),
        ([[1]], 0.0, 8, "above 0 and finite"),
        ([[1]], np.nan, 8, "above 0 and finite"),
        ([[1, 2]], [0.5, 0.5, 0.5], 8, r"\(3,\) is no shape for the scale of \(1, 2\) weights"),
    ],
)
def test_what_is_no_grid_is_refused(integers: list, scale: object, bits: int, message: str) -> None:
    with pytest.raises(GridError, match=message):
        Grid(np.array(integers, np.int8), np.asarray(scale, np.float32), bits)


def test_weights_off_their_grid_are_counted() -> None:
    with pytest.raises(GridError, match="1 of 4 weights are not whole multiples of their scale"):
        Grid.of(np.array([[0.5, 1.0], [0.25, -0.5]], np.float32), 0.5, 4)
    with pytest.raises(GridError, match="Weights up to 300 steps from zero do not fit 8 bits"):
        Grid.of(np.array([[300.0]], np.float32), 1.0, 8)
