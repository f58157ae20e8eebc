import tracemalloc

import numpy as np
import pytest

from edge.artifact import ActionSpec, Normalizer
from edge.errors import ManifestError
from edge.quantise import Dequantiser, FrameQuantiser, LogitsDequantiser, Quantiser


def stored(observation: list[float], normalizer: Normalizer | None, scale: float, zero_point: int) -> list[int]:
    tensor = np.zeros(len(observation), np.int8)
    quantiser = Quantiser(tensor, scale, zero_point, normalizer)
    quantiser.values[...] = observation
    quantiser.store()
    return [int(q) for q in tensor]


def test_an_observation_is_normalised_and_rounded_to_the_nearest_step() -> None:
    # (x - mean) / std = 1, -2, 0.3; at 0.1 a step with zero point 5 that is 15, -15, 8.
    normalizer = Normalizer((10.0, 0.0, 1000.0), (2.0, 0.5, 100.0), 10.0)
    assert stored([12.0, -1.0, 1030.0], normalizer, 0.1, 5) == [15, -15, 8]


def test_what_lies_beyond_the_integers_or_the_clip_is_held_at_their_ends() -> None:
    assert stored([1e30, -1e30, 0.0], None, 0.1, 5) == [127, -128, 5]
    # Clipped at +-2: 20 steps on either side of the zero point.
    assert stored([1e30, -1e30, 0.0], Normalizer((0.0,) * 3, (1.0,) * 3, 2.0), 0.1, 5) == [25, -15, 5]


def test_a_normaliser_without_a_clip_ends_where_the_integers_do() -> None:
    assert stored([1e30, -1e30, 2.5], Normalizer((0.0,) * 3, (1.0, 1.0, 0.5), None), 0.1, 5) == [127, -128, 55]


def test_a_small_deviation_far_from_zero_survives_float32() -> None:
    # One step is 0.001 here, beside a mean of 5000: mean / step alone would leave no digits for it.
    normalizer = Normalizer((5000.0,), (0.128,), 10.0)
    steps = [stored([5000.0 + d], normalizer, 1 / 128, 0)[0] for d in (-0.02, -0.01, 0.0, 0.01, 0.02)]
    np.testing.assert_allclose(steps, [-20, -10, 0, 10, 20], atol=1)


def test_every_step_of_both_types_comes_back_as_the_real_value_it_stands_for() -> None:
    for dtype, zero_point in ((np.int8, -3), (np.uint8, 120)):
        limits = np.iinfo(dtype)
        tensor = np.zeros(2, dtype)
        spec = ActionSpec((2,), (-2.0, None), (6.0, None))
        dequantiser = Dequantiser(tensor, 0.01, zero_point, spec)
        for q in range(limits.min, limits.max + 1):
            tensor[:] = q
            value = 0.01 * (q - zero_point)
            action = dequantiser.action()
            # -1 and 1 are the bounds; an element without bounds is in units of its own.
            np.testing.assert_allclose(action, [np.clip(2 + 4 * value, -2, 6), value], rtol=1e-5, atol=1e-6)


def test_actions_belong_to_the_caller() -> None:
    tensor = np.zeros(1, np.int8)
    dequantiser = Dequantiser(tensor, 0.01, 0, ActionSpec((1,), (-1.0,), (1.0,)))
    first = dequantiser.action()
    tensor[:] = 50
    assert first == 0.0
    assert dequantiser.action() == np.float32(0.5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tensor_without_a_scale_is_refused(scale: float) -> None:
    with pytest.raises(ManifestError, match="Convert again"):
        Quantiser(np.zeros(1, np.int8), scale, 0, None)
    with pytest.raises(ManifestError, match="Convert again"):
        Dequantiser(np.zeros(1, np.int8), scale, 0, ActionSpec((1,), (None,), (None,)))


@pytest.mark.parametrize(("dtype", "zero_point"), [(np.int8, -128), (np.uint8, 0)])
def test_every_byte_of_a_frame_is_the_integer_that_stands_for_it_divided_by_255(dtype: type, zero_point: int) -> None:
    frame = np.arange(256, dtype=np.uint8).reshape(8, 8, 4)
    tensor = np.zeros((8, 8, 4), dtype)
    # A scale that came through float32, as they do.
    FrameQuantiser(tensor, float(np.float32(1 / 255)), zero_point).store(frame)
    np.testing.assert_array_equal(tensor.astype(int) - zero_point, frame)
    # Cameras and simulators may give channels first, turned round without a copy.
    turned = np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert not turned.flags.c_contiguous
    tensor[...] = 0
    FrameQuantiser(tensor, 1 / 255, zero_point).store(turned)
    np.testing.assert_array_equal(tensor.astype(int) - zero_point, frame)


def test_storing_a_frame_allocates_nothing() -> None:
    frame = np.zeros((84, 84, 4), np.uint8)
    quantiser = FrameQuantiser(np.zeros(frame.shape, np.int8), 1 / 255, -128)
    quantiser.store(frame)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        quantiser.store(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 1000, "a frame has 28,224 bytes"


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [
        (np.int8, 1 / 255, 0),
        (np.int8, 1 / 256, -128),
        (np.int8, 0.0, -128),
        (np.int8, float("nan"), -128),
        (np.uint8, 1 / 255, 128),
        (np.uint8, 2 / 255, 0),
    ],
)
def test_integers_that_are_not_bytes_divided_by_255_are_refused(dtype: type, scale: float, zero_point: int) -> None:
    with pytest.raises(ManifestError, match="for frames these must be 1/255 and"):
        FrameQuantiser(np.zeros((1, 1, 1), dtype), scale, zero_point)


@pytest.mark.parametrize(("dtype", "zero_point"), [(np.int8, -3), (np.uint8, 120)])
def test_logits_come_back_in_their_own_units_and_belong_to_the_caller(dtype: type, zero_point: int) -> None:
    tensor = np.arange(100, 110, dtype=dtype)
    dequantiser = LogitsDequantiser(tensor, 0.25, zero_point)
    first = dequantiser.logits()
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, 0.25 * (np.arange(100, 110) - zero_point))
    tensor[...] = 0
    assert first[0] == 0.25 * (100 - zero_point)
    with pytest.raises(ManifestError, match="Convert again"):
        LogitsDequantiser(tensor, 0.0, zero_point)
