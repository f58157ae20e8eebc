import numpy as np
import pytest
import tf_keras as keras

from converters import convert
from converters.centre import centred
from converters.emulation import Widths, calibrate, emulated
from converters.weights import Grid
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


def test_literal() -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="output")])
    network.set_weights([np.array([[1.0, 3.0, 8.0], [0.0, 0.0, 0.0]]), np.array([10.0, 11.0, 14.0])])
    centre, grids, notes = centred(network, {})
    kernel, bias = centre.get_weights()
    np.testing.assert_array_equal(kernel, [[-3.5, -1.5, 3.5], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(bias, [-1.0, 0.0, 3.0])
    assert grids == {}
    assert notes == ("What the outputs of output have in common was taken away: the choice is the same.",)
    np.testing.assert_array_equal(network.get_weights()[1], [10.0, 11.0, 14.0])


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_on_a_grid_differences_stay_what_they_are_to_the_last_bit(bits: int) -> None:
    high = 2 ** (bits - 1)
    lowest = -127 if bits == 8 else -high
    integers = RNG.integers(lowest, high, size=(64, 3)).astype(np.int8)
    integers[:3] = [[lowest, high - 1, high - 1], [high - 1] * 3, [lowest] * 3]
    grid = Grid(integers, np.float32(0.25) + np.zeros((), np.float32), bits)
    network = mlp(4, (64,), 3)
    network.layers[-1].set_weights([grid.weights, np.array([0.5, -2.25, 7.75], np.float32)])
    centre, grids, _ = centred(network, {"output": grid})
    kernel, bias = centre.layers[-1].get_weights()
    np.testing.assert_array_equal(kernel, grids["output"].weights)
    assert (grids["output"].bits, grids["output"].scale) == (bits, grid.scale)
    np.testing.assert_array_equal(kernel - kernel[:, :1], grid.weights - grid.weights[:, :1])
    np.testing.assert_array_equal(bias, [0.0, -2.75, 7.25])


def test_8_bits_see_differences_between_large_values() -> None:
    conversion = convert(values_far_from_zero(), CHOICES, "int8", OBSERVATIONS)
    assert conversion.comparison.agreement is not None
    assert conversion.comparison.agreement > 0.97
    assert any("have in common" in note for note in conversion.artifact.manifest.notes)


def test_so_do_networks_that_were_trained_on_grids() -> None:
    network = emulated(values_far_from_zero(), Widths(weights=4, activations=8), "choices")
    calibrate(network, OBSERVATIONS)
    conversion = convert(network, CHOICES, "int8x4", OBSERVATIONS)
    assert conversion.comparison.agreement is not None
    assert conversion.comparison.agreement > 0.97


@pytest.mark.parametrize(("recipe", "logits"), [("float32", False), ("int8", True)])
def test_values_that_are_read_stay_what_they_are(recipe: str, logits: bool) -> None:
    conversion = convert(values_far_from_zero(), CHOICES, recipe, OBSERVATIONS, logits=logits)
    assert not any("have in common" in note for note in conversion.artifact.manifest.notes)


def test_a_last_layer_that_is_not_of_sums_is_left_alone() -> None:
    network = mlp(4, (16,), 3, output_activation="tanh")
    assert centred(network, {}) == (network, {}, ())
    each = Grid(np.ones((16, 3), np.int8), np.ones(3, np.float32), 8)
    network = mlp(4, (16,), 3)
    assert centred(network, {"output": each}) == (network, {"output": each}, ())
