from pathlib import Path

import numpy as np
import pytest
import tf_keras as keras

from converters import convert
from converters.export import DeployedPolicy, ExportError
from converters.tflite import layers, output_step, to_float32
from converters.weights import nearest_grid
from edge import artifact
from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from edge.errors import OutputError, UnknownNameError
from edge.policy import Policy
from tfqrl.networks import mlp

RNG = np.random.default_rng(0)


def free(n: int) -> ObservationSpec:
    return ObservationSpec((n,), (None,) * n, (None,) * n)


def box(*bounds: tuple[float | None, float | None]) -> ActionSpec:
    return ActionSpec((len(bounds),), tuple(low for low, _ in bounds), tuple(high for _, high in bounds))


OBSERVATIONS = RNG.normal(size=(600, 5)).astype(np.float32)
SPEC = PolicySpec(free(5), box((-1.0, 1.0), (-2.0, 6.0)), 50.0, None)


def network(outputs: int = 2, hidden: tuple[int, ...] = (32, 32), seed: int = 0):
    return mlp(5, hidden, outputs, output_gain=1.0, seed=seed)


def reference(model, observations: np.ndarray, spec: PolicySpec) -> np.ndarray:
    """The deployed function again, by numpy alone."""
    x = observations.astype(np.float64)
    if spec.normalizer is not None:
        x = (x - np.array(spec.normalizer.mean)) / np.array(spec.normalizer.std)
        x = np.clip(x, -spec.normalizer.clip, spec.normalizer.clip)
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        x = x @ kernel + bias
        x = np.tanh(x) if layer.activation.__name__ == "tanh" else x
    if spec.action.discrete:
        return x.argmax(axis=-1)
    low = np.array([-np.inf if b is None else b for b in spec.action.low])
    high = np.array([np.inf if b is None else b for b in spec.action.high])
    bounded = np.isfinite(low) & np.isfinite(high)
    with np.errstate(invalid="ignore"):
        return np.where(bounded, low + (np.clip(x, -1, 1) + 1) / 2 * (high - low), x)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        PolicySpec(free(5), box((-1.0, 1.0), (-1.0, 1.0)), 50.0, None),
        PolicySpec(free(5), box((None, None), (None, None)), None, None),
        PolicySpec(free(5), box((-0.5, 3.0), (None, None)), 50.0, Normalizer((1.0,) * 5, (0.5,) * 5, 2.0)),
        PolicySpec(free(5), ActionSpec((), (), (), 2), 50.0, Normalizer((1.0,) * 5, (0.5,) * 5, 10.0)),
    ],
    ids=["scaled", "unit", "unbounded", "mixed", "discrete"],
)
def test_the_float32_file_is_the_whole_policy(spec: PolicySpec) -> None:
    model = network()
    policy = convert(model, spec, "float32", OBSERVATIONS).policy()
    actions = np.stack([policy.act(observation) for observation in OBSERVATIONS])
    np.testing.assert_allclose(actions, reference(model, OBSERVATIONS, spec), atol=2e-5)


def test_int8_is_integer_inside_and_close() -> None:
    conversion = convert(network(), SPEC, "int8", OBSERVATIONS)
    assert [layer.weight_bits for layer in conversion.artifact.manifest.layers] == [8, 8, 8]
    comparison = conversion.comparison
    assert comparison.max_action_error is not None
    assert comparison.mean_action_error is not None
    # The wider action spans 8: 1 % of that on average, a few steps of 1/255 at worst.
    assert comparison.mean_action_error < 0.08
    assert comparison.max_action_error < 0.4
    assert comparison.max_action_error > 1e-3, "an int8 policy that equals the float one was not quantised"


def test_the_whole_output_grid_lies_between_the_bounds() -> None:
    # Actions beyond the bounds are clipped in the last layer, not behind it: 254 steps from -1 to 1, with 0 among them.
    flatbuffer = convert(network(), SPEC, "int8", OBSERVATIONS).artifact.flatbuffer
    assert output_step(flatbuffer) == pytest.approx(1 / 127, rel=1e-6)
    assert output_step(convert(network(), SPEC, "float32", OBSERVATIONS).artifact.flatbuffer) is None


def test_int8_is_smaller_and_keeps_a_discrete_policys_choices() -> None:
    spec = PolicySpec(free(5), ActionSpec((), (), (), 4), 50.0, None)
    as_float = convert(network(4, (64, 64)), spec, "float32", OBSERVATIONS)
    as_int8 = convert(network(4, (64, 64)), spec, "int8", OBSERVATIONS)
    assert len(as_int8.artifact.flatbuffer) < 0.55 * len(as_float.artifact.flatbuffer)
    assert as_float.comparison.agreement == 1.0
    assert as_int8.comparison.agreement is not None
    assert as_int8.comparison.agreement > 0.9
    assert as_int8.comparison.max_action_error is None


def test_layers_are_read_back_from_the_flatbuffer() -> None:
    model = network()
    kernel, bias = model.layers[0].get_weights()
    kernel[:, ::2] = 0.0
    model.layers[0].set_weights([kernel, bias])
    found = layers(to_float32(DeployedPolicy(model, SPEC)))
    assert [(layer.shape, layer.weight_bits) for layer in found] == [((32, 5), 32), ((32, 32), 32), ((2, 32), 32)]
    assert [layer.sparsity for layer in found] == [0.5, 0.0, 0.0]


def test_a_saved_policy_is_the_one_that_was_compared(tmp_path: Path) -> None:
    conversion = convert(network(), SPEC, "int8", OBSERVATIONS, name="test", training={"env": "X-v0", "hidden": (2, 3)})
    conversion.save(tmp_path / "policy.tflite")
    policy = Policy.load(tmp_path / "policy.tflite")
    direct = conversion.policy()
    for observation in OBSERVATIONS[:50]:
        np.testing.assert_array_equal(policy.act(observation), direct.act(observation))
    manifest = artifact.read(tmp_path / "policy.tflite").manifest
    assert manifest.training == {"env": "X-v0", "hidden": [2, 3]}
    assert manifest.versions["tensorflow"]
    with pytest.raises(OutputError, match="exists already"):
        conversion.save(tmp_path / "policy.tflite")


def test_returns_are_compared_on_the_same_episodes() -> None:
    def episode_returns(act) -> np.ndarray:
        return act(OBSERVATIONS[:8])[:, 0].astype(np.float64)

    model = network()
    conversion = convert(model, SPEC, "int8", OBSERVATIONS, episode_returns=episode_returns, first_seed=7)
    returns = conversion.comparison.returns
    assert returns is not None
    assert (returns.episodes, returns.first_seed) == (8, 7)
    policy = conversion.policy()
    expected_float = reference(model, OBSERVATIONS[:8], SPEC)[:, 0].mean()
    expected_int8 = np.mean([policy.act(observation)[0] for observation in OBSERVATIONS[:8]])
    assert returns.float_mean == pytest.approx(expected_float, abs=1e-5)
    assert returns.converted_mean == pytest.approx(expected_int8, abs=1e-5)
    assert abs(expected_float - expected_int8) > 1e-4, "they are two policies"


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_hidden_activations_convert(activation: str) -> None:
    model = mlp(5, (32, 32), 2, activation=activation, output_gain=1.0, seed=3)
    comparison = convert(model, SPEC, "int8", OBSERVATIONS).comparison
    assert comparison.mean_action_error is not None
    assert 1e-4 < comparison.mean_action_error < 0.08


def with_zeros(dead: bool) -> keras.Sequential:
    """A network of which four fifths of the weights are zero: of whole neurons, or scattered over the middle layer."""
    model, rng = network(hidden=(64, 64)), np.random.default_rng(0)
    for layer in model.layers[:-1] if dead else model.layers[1:2]:
        kernel, bias = layer.get_weights()
        mask = rng.random(kernel.shape[1]) < 0.2 if dead else rng.random(kernel.shape) < 0.2
        layer.set_weights([kernel * mask, bias])
    return model


def test_dead_neurons_make_the_matrices_smaller() -> None:
    model = with_zeros(dead=True)
    for recipe in ("float32", "int8"):
        conversion = convert(model, SPEC, recipe, OBSERVATIONS)
        manifest = conversion.artifact.manifest
        assert manifest.notes[0].startswith("Dead neurons were removed, units by layer hidden_0 64 -> ")
        assert manifest.layers[1].shape[0] < 30
        assert manifest.layers[1].shape[1] < 30
        tolerated = 2e-5 if recipe == "float32" else 0.4
        assert conversion.comparison.max_action_error < tolerated


def test_scattered_zeros_save_only_where_the_file_is_compressed() -> None:
    plain = convert(network(hidden=(64, 64)), SPEC, "int8", OBSERVATIONS).artifact.manifest
    sparse = convert(with_zeros(dead=False), SPEC, "int8", OBSERVATIONS).artifact.manifest
    assert [layer.shape for layer in sparse.layers] == [layer.shape for layer in plain.layers]
    assert 0.7 < sparse.layers[1].sparsity < 0.9
    assert sparse.flatbuffer_bytes == plain.flatbuffer_bytes
    assert sparse.compressed_bytes < 0.8 * plain.compressed_bytes


def test_grids_of_a_network_that_shrinks_are_cut_with_it() -> None:
    model = with_zeros(dead=True)
    grids = {}
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        grids[layer.name] = nearest_grid(kernel, 4, per_channel=True)
        layer.set_weights([grids[layer.name].weights, bias])
    manifest = convert(model, SPEC, "int4", OBSERVATIONS, grids=grids).artifact.manifest
    assert [layer.weight_bits for layer in manifest.layers] == [4, 4, 4]
    assert manifest.layers[1].shape[1] < 30


def test_golden_pairs_hold_the_edges_too() -> None:
    bounded = ObservationSpec((5,), (None, -2.0, None, 0.5, None), (None, 2.0, 3.0, None, None))
    golden = convert(network(), PolicySpec(bounded, SPEC.action, None, None), "int8", OBSERVATIONS).artifact.golden
    rows = golden.observations.tolist()
    assert [0.0, 0.0, 0.0, 0.5, 0.0] in rows, "zeros, as far as the bounds allow"
    assert [-1e6, -2.0, -1e6, 0.5, -1e6] in rows, "the lower bounds, and large values where there are none"
    assert [1e6, 2.0, 3.0, 1e6, 1e6] in rows
    assert len(golden.actions) == len(rows) == 32 + 5
    low, high = np.array([-1.0, -2.0]), np.array([1.0, 6.0])
    assert (golden.actions >= low - 1e-6).all()
    assert (golden.actions <= high + 1e-6).all()


def test_golden_pairs_of_choices_are_the_clear_ones() -> None:
    spec = PolicySpec(free(5), ActionSpec((), (), (), 4), 50.0, None)
    model = network(4, (64, 64))
    golden = convert(model, spec, "int8", OBSERVATIONS).artifact.golden
    logits = np.sort(np.asarray(model(golden.observations)), axis=1)
    everywhere = np.sort(np.asarray(model(OBSERVATIONS)), axis=1)
    assert (logits[:, -1] - logits[:, -2]).min() >= 0.9 * np.median(everywhere[:, -1] - everywhere[:, -2])
    assert golden.actions.dtype == np.int64


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ExportError, match=r"its spec needs \(None, 5\) to \(None, 2\)"):
        convert(network(3), SPEC, "float32", OBSERVATIONS)
    with pytest.raises(UnknownNameError, match="Did you mean 'float32'"):
        convert(network(), SPEC, "float23", OBSERVATIONS)
