import numpy as np
import pytest
import tf_keras as keras

from converters.export import DeployedPolicy
from converters.normalise import normalised
from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from tfqrl.networks import mlp

RNG = np.random.default_rng(0)
SPEC = PolicySpec(
    ObservationSpec((4,), (None,) * 4, (None,) * 4), ActionSpec((2,), (-1.0,) * 2, (3.0,) * 2), None, None
)
OBSERVATIONS = (RNG.normal(size=(500, 4)) * [1e-2, 1, 1e2, 1e3] + [0, 5, -100, 1e4]).astype(np.float32)


def network() -> keras.Sequential:
    model = mlp(4, (16,), 2, output_gain=1.0)
    kernel, bias = model.layers[0].get_weights()
    model.layers[0].set_weights([kernel / np.array([[1e-2], [1], [1e2], [1e3]], np.float32), bias + 0.1])
    return model


def test_the_function_is_what_it_was() -> None:
    model = network()
    before = [weights.copy() for weights in model.get_weights()]
    undone, spec, notes = normalised(model, SPEC, OBSERVATIONS)
    assert spec.normalizer is not None
    np.testing.assert_allclose(spec.normalizer.mean, OBSERVATIONS.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spec.normalizer.std, OBSERVATIONS.std(axis=0), rtol=1e-3)
    np.testing.assert_allclose(
        DeployedPolicy(undone, spec).act(OBSERVATIONS), DeployedPolicy(model, SPEC).act(OBSERVATIONS), atol=2e-4
    )
    assert "the first layer undoes it" in notes[0]
    for weights, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, kept)


def test_elements_that_never_changed_are_given_a_deviation_and_said() -> None:
    observations = OBSERVATIONS.copy()
    observations[:, 1], observations[:, 3] = 0.3, -1e4
    _, spec, notes = normalised(network(), SPEC, observations)
    assert spec.normalizer is not None
    # The first layer's weights on them are no larger than the largest on what changed.
    kernel = np.abs(network().layers[0].get_weights()[0]).max(axis=1)
    std = np.array(spec.normalizer.std)
    largest = max(std[0] * kernel[0], std[2] * kernel[2])
    assert std[1] == pytest.approx(min(1.0, largest / kernel[1]))
    assert std[3] == 1.0
    assert "constant in calibration, whose deviation is a guess: 1, 3." in notes[1]


def test_the_clip_lies_beyond_all_that_was_seen() -> None:
    observations = OBSERVATIONS.copy()
    observations[7, 0] = 1.0  # a hundred deviations
    _, spec, _ = normalised(network(), SPEC, observations)
    assert spec.normalizer is not None
    assert spec.normalizer.clip is not None
    normal = (observations - np.array(spec.normalizer.mean)) / np.array(spec.normalizer.std)
    assert np.abs(normal).max() <= spec.normalizer.clip
    assert spec.normalizer.clip > 10


def test_nothing_is_done_where_there_is_a_normaliser_or_the_first_layer_must_stay() -> None:
    model, trained = network(), PolicySpec(SPEC.observation, SPEC.action, None, Normalizer((0.0,) * 4, (1.0,) * 4, 5.0))
    assert normalised(model, trained, OBSERVATIONS) == (model, trained, ())
    kept, spec, notes = normalised(model, SPEC, OBSERVATIONS, fixed=("hidden_0",))
    assert (kept, spec) == (model, SPEC)
    assert notes == ("Observations were not normalised: the first layer is none that could undo it.",)
    conv = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Conv2D(2, 1), keras.layers.Flatten()])
    assert normalised(conv, SPEC, OBSERVATIONS.reshape(-1, 2, 2, 1))[0] is conv
