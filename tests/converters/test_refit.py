import numpy as np
import pytest
import tf_keras as keras

from converters import convert
from converters.emulation import Widths, calibrate, emulated
from converters.refit import read_by_last_layer, refitted
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from tfqrl.networks import mlp

RNG = np.random.default_rng(0)
OBSERVATIONS = RNG.normal(size=(400, 4)).astype(np.float32)
CHOICES = PolicySpec(ObservationSpec((4,), (None,) * 4, (None,) * 4), ActionSpec((), (), (), n=3), None, None)


def last_layer(kernel: list[list[float]], bias: list[float]) -> keras.Sequential:
    network = keras.Sequential([keras.Input((len(kernel),)), keras.layers.Dense(len(bias), name="output")])
    network.set_weights([np.array(kernel), np.array(bias)])
    return network


def test_errors_that_the_choices_do_not_share_are_taken_away() -> None:
    network = last_layer([[1.0, 0.0], [0.0, 1.0]], [0.5, -0.5])
    exact = RNG.normal(size=(100, 2)).astype(np.float32)
    # Integers have made the first one larger by a tenth and by 0.3.
    fitted = refitted(network, exact * [1.1, 1.0] + [0.3, 0.0], network(exact).numpy())
    assert fitted is not None
    found = fitted(exact * [1.1, 1.0] + [0.3, 0.0]).numpy()
    np.testing.assert_allclose(np.diff(found), np.diff(network(exact)), atol=0.01)
    np.testing.assert_array_equal(network.get_weights()[1], [0.5, -0.5])
    # Zeros are what pruning made.
    np.testing.assert_array_equal(fitted.get_weights()[0] == 0, [[False, True], [True, False]])


def test_what_the_choices_share_is_left_alone() -> None:
    network = last_layer([[1.0, 2.0], [3.0, 4.0]], [0.0, 0.0])
    read = RNG.normal(size=(100, 2)).astype(np.float32)
    assert refitted(network, read, network(read).numpy() + 5.0) is None


def test_what_never_changes_teaches_a_bias() -> None:
    network = last_layer([[1.0, 2.0]], [0.0, 0.0])
    read = np.ones((100, 1), np.float32)
    fitted = refitted(network, read, network(read).numpy() + np.array([0.5, 0.0]))
    assert fitted is not None
    np.testing.assert_allclose(fitted.get_weights()[1], [0.5, 0.0], atol=1e-6)


def test_what_is_not_better_elsewhere_is_not_taken() -> None:
    network = last_layer([[1.0, 2.0]], [0.0, 0.0])
    read = RNG.normal(size=(100, 1)).astype(np.float32)
    values = network(read).numpy()
    # The first 80 say one thing, the last 20 the opposite.
    values[:80, 0] += 1.0
    values[80:, 0] -= 1.0
    assert refitted(network, read, values) is None


@pytest.mark.parametrize("network", [mlp(4, (8,), 3, output_activation="tanh"), mlp(4, (8,), 3, dueling=True)])
def test_other_last_layers_are_left_alone(network: keras.Sequential) -> None:
    assert refitted(network, np.ones((10, 8), np.float32), np.ones((10, 3), np.float32)) is None


def nearly_equal_values() -> keras.Sequential:
    """Like those of a Q-network that has learnt for long: near 70 for all actions, with differences of some tenths."""
    network = mlp(4, (32, 32), 3, activation="relu", seed=0)
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([0.2 * kernel + RNG.normal(size=(32, 1)).astype(np.float32), bias + 70.0])
    return network


@pytest.mark.parametrize(("recipe", "least"), [("int8", 0.9), ("int16x8", 0.9)])
def test_integers_keep_choices_that_are_worth_nearly_the_same(
    recipe: str, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nearly_equal_values()
    fitted = convert(network, CHOICES, recipe, OBSERVATIONS)
    notes = fitted.artifact.manifest.notes
    assert "The values of choices (layer output) are computed in float." in notes
    assert any("was fitted anew" in note for note in notes)
    monkeypatch.setattr("converters.conversion.refitted", lambda *_: None)
    plain = convert(network, CHOICES, recipe, OBSERVATIONS)
    assert fitted.comparison.agreement is not None
    assert plain.comparison.agreement is not None
    assert fitted.comparison.agreement >= max(least, plain.comparison.agreement)


def test_what_was_trained_on_grids_is_not_fitted_but_chooses_as_trained() -> None:
    network = emulated(nearly_equal_values(), Widths(weights=4, activations=4), "choices")
    calibrate(network, OBSERVATIONS)
    conversion = convert(network, CHOICES, "int8x4", OBSERVATIONS)
    assert not any("fitted" in note for note in conversion.artifact.manifest.notes)
    # But for what lies half way between two steps.
    policy = conversion.policy()
    chosen = np.array([policy.act(observation) for observation in OBSERVATIONS])
    assert (chosen == network(OBSERVATIONS).numpy().argmax(axis=1)).mean() > 0.99


def test_a_network_of_one_layer_is_integer_all_the_same() -> None:
    conversion = convert(last_layer([[1.0, 2.0, 0.0]] * 4, [0.0, 0.1, 0.2]), CHOICES, "int8", OBSERVATIONS)
    assert [layer.weight_bits for layer in conversion.artifact.manifest.layers] == [8]


def test_what_the_last_layer_reads_is_what_integers_gave() -> None:
    conversion = convert(nearly_equal_values(), CHOICES, "int8", OBSERVATIONS)
    read = read_by_last_layer(conversion.artifact.flatbuffer, OBSERVATIONS)
    steps = np.unique(np.rint(read / read[read > 0].min()))
    assert read.shape == (400, 32)
    assert len(steps) <= 256
