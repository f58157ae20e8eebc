import numpy as np
import pytest
import tf_keras as keras

from converters import convert
from converters.centre import centred
from converters.emulation import Widths, calibrate, emulated
from converters.weights import Grid, GridError
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from tfqrl.networks import mlp

RNG = np.random.default_rng(0)
OBSERVATIONS = RNG.normal(size=(400, 4)).astype(np.float32)
CHOICES = PolicySpec(ObservationSpec((4,), (None,) * 4, (None,) * 4), ActionSpec((), (), (), n=3), None, None)


def values_far_from_zero() -> keras.Sequential:
    """Like a Q-network's: near 300 for all actions, with differences of about one."""
    network = mlp(4, (16,), 3, activation="relu")
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([0.1 * kernel + RNG.normal(size=(16, 1)).astype(np.float32), bias + 300.0])
    return network


def one_layer(kernel: list[list[float]], bias: list[float]) -> keras.Sequential:
    network = keras.Sequential([keras.Input((len(kernel),)), keras.layers.Dense(len(bias), name="output")])
    network.set_weights([np.array(kernel), np.array(bias)])
    return network


def test_literal() -> None:
    network = one_layer([[1.0, 3.0, 8.0], [100.0, 100.0, 100.0]], [10.0, 11.0, 15.0])
    centre, grids, notes = centred(network, {}, np.array([[1.0, 1.0], [0.0, 1.0]], np.float32))
    kernel, bias = centre.get_weights()
    np.testing.assert_array_equal(kernel, [[-3.0, -1.0, 4.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(bias, [-2.0, -1.0, 3.0])
    assert grids == {}
    assert notes == ("The values of choices (layer output) were converted without what they have in common.",)
    np.testing.assert_array_equal(network.get_weights()[1], [10.0, 11.0, 15.0])


def test_without_a_bias() -> None:
    layer = keras.layers.Dense(2, use_bias=False, name="output")
    network = keras.Sequential([keras.Input((1,)), layer])
    network.set_weights([np.array([[9.0, 11.0]])])
    centre, _, _ = centred(network, {}, np.ones((1, 1), np.float32))
    np.testing.assert_array_equal(centre.get_weights()[0], [[-1.0, 1.0]])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_on_a_grid_differences_stay_what_they_are_to_the_last_bit(bits: int) -> None:
    high = 2 ** (bits - 1)
    lowest = -127 if bits == 8 else -high
    integers = RNG.integers(lowest, high, size=(64, 5)).astype(np.int8)
    # The mean of the second cannot be taken away: what is left would be too far below zero.
    integers[:3] = [[high - 1] * 5, [lowest] + [high - 1] * 4, [lowest] * 5]
    integers[4:] = np.where(RNG.random((60, 1)) < 0.9, high - 1, integers[4:])
    grid = Grid(integers, np.full((), 0.25, np.float32), bits)
    network = one_layer(grid.weights.tolist(), [0.5, -0.25, 0.75, 0.5, 0.25])
    seen = RNG.uniform(0, 1, (100, 64)).astype(np.float32)
    centre, grids, _ = centred(network, {"output": grid}, seen)
    kernel, bias = centre.layers[-1].get_weights()
    np.testing.assert_array_equal(kernel, grids["output"].weights)
    assert (grids["output"].bits, grids["output"].scale) == (bits, grid.scale)
    np.testing.assert_array_equal(kernel - kernel[:, :1], grid.weights - grid.weights[:, :1])
    np.testing.assert_array_equal(kernel[[0, 2]], np.zeros((2, 5)))
    np.testing.assert_allclose(bias - bias[0], [0.0, -0.75, 0.25, 0.0, -0.25])
    assert np.ptp(centre(seen)) < 0.5 * np.abs(network(seen)).max()


def test_what_would_not_halve_the_range_is_left_alone() -> None:
    # Each action has an input of its own: the values have nothing in common.
    network = one_layer((10 * np.eye(18)).tolist(), [0.0] * 18)
    seen = RNG.uniform(0, 1, (100, 18)).astype(np.float32)
    assert centred(network, {}, seen) == (network, {}, ())
    # Or there is one choice, or all are the same.
    for same in (one_layer([[3.0]], [2.0]), one_layer([[3.0, 3.0]], [2.0, 2.0])):
        assert centred(same, {}, np.ones((5, 1), np.float32)) == (same, {}, ())


@pytest.mark.parametrize("recipe", ["int8-full", "dynamic-int8"])
def test_8_bits_see_differences_between_large_values(recipe: str) -> None:
    conversion = convert(values_far_from_zero(), CHOICES, recipe, OBSERVATIONS)
    assert conversion.comparison.agreement is not None
    assert conversion.comparison.agreement > 0.97
    assert any("have in common" in note for note in conversion.artifact.manifest.notes)


def test_so_do_networks_that_were_trained_on_grids() -> None:
    network = emulated(values_far_from_zero(), Widths(weights=4, activations=8), "choices")
    calibrate(network, OBSERVATIONS)
    conversion = convert(network, CHOICES, "int8x4", OBSERVATIONS)
    assert conversion.comparison.agreement == 1.0


@pytest.mark.parametrize(("recipe", "logits"), [("float32", False), ("int8", True)])
def test_values_that_are_read_stay_what_they_are(recipe: str, logits: bool) -> None:
    conversion = convert(values_far_from_zero(), CHOICES, recipe, OBSERVATIONS, logits=logits)
    assert not any("have in common" in note for note in conversion.artifact.manifest.notes)
    if logits:
        assert conversion.policy().logits(OBSERVATIONS[0]).min() > 100


def test_float16_keeps_the_choice() -> None:
    conversion = convert(values_far_from_zero(), CHOICES, "float16", OBSERVATIONS)
    assert conversion.comparison.agreement is not None
    assert conversion.comparison.agreement > 0.99


def test_a_last_layer_that_is_not_of_plain_sums_is_left_alone() -> None:
    functional = keras.Model((x := keras.Input((4,))), keras.layers.Dense(3)(x))
    for network in (mlp(4, (16,), 3, output_activation="tanh"), mlp(4, (16,), 3, dueling=True), functional):
        assert centred(network, {}, OBSERVATIONS) == (network, {}, ())
    network = mlp(4, (16,), 3)
    grid = Grid(np.ones((16, 3), np.int8), np.ones(3, np.float32), 8)
    network.layers[-1].set_weights([grid.weights, np.zeros(3)])
    assert centred(network, {"output": grid}, OBSERVATIONS) == (network, {"output": grid}, ())


def test_a_grid_that_is_not_the_kernels_is_still_refused() -> None:
    wrong = Grid(RNG.integers(-7, 8, (16, 3)).astype(np.int8), np.full((), 0.1, np.float32), 4)
    with pytest.raises(GridError):
        convert(values_far_from_zero(), CHOICES, "int8", OBSERVATIONS, grids={"output": wrong})
