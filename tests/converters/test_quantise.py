import dataclasses

import numpy as np
import pytest
import tf_keras as keras
from hypothesis import given
from hypothesis import strategies as st
from nets import conv_network, dense_network, filled, observations_for, spec_of

from converters import RECIPES, Recipe, convert
from converters.calibration import activation_ranges
from converters.export import DeployedPolicy, ExportError
from converters.flatbuffer import Graph, Types
from converters.quantise import UnsupportedOperationError, activation_scale, quantise
from converters.tflite import layers, to_float32
from converters.weights import Grid, GridError, nearest_grid
from edge.artifact import ActionSpec, Normalizer, ObservationSpec
from edge.errors import UnknownNameError
from edge.policy import Policy

Dense, Flatten = keras.layers.Dense, keras.layers.Flatten

INTEGER = [name for name, recipe in RECIPES.items() if recipe.weight_bits <= 8 and not recipe.integer_io]


def quantised(network: keras.Sequential, recipe: Recipe, grids: dict[str, Grid] | None = None) -> bytes:
    spec = spec_of(network.input_shape[1:], network.output_shape[-1])
    flatbuffer = to_float32(DeployedPolicy(network, spec))
    ranges = activation_ranges(flatbuffer, observations_for(network), "min-max")
    return quantise(flatbuffer, recipe, ranges, grids or {})[0]


def actions_of(flatbuffer: bytes, network: keras.Sequential, *, plain_kernels: bool = False) -> np.ndarray:
    spec = spec_of(network.input_shape[1:], network.output_shape[-1])
    policy = Policy(flatbuffer, spec, plain_kernels=plain_kernels)
    return np.stack([policy.act(observation) for observation in observations_for(network)])


@pytest.mark.parametrize("make", [dense_network, conv_network])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
@pytest.mark.parametrize("name", INTEGER)
def test_the_kernels_compute_what_the_integers_say(name: str, per_channel: bool, make) -> None:
    # Beside the float network with the rounded weights, only the rounding of activations is left. A kernel that
    # misreads packed weights, or takes one output's scale for all, is off by as much as the actions themselves.
    network = make()
    recipe = dataclasses.replace(RECIPES[name], per_channel=per_channel)
    rounded = keras.models.clone_model(network)
    rounded.set_weights(network.get_weights())
    for layer in rounded.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([nearest_grid(kernel, recipe.weight_bits, per_channel=per_channel).weights, bias])
    expected = np.asarray(rounded(observations_for(network)))
    flatbuffer = quantised(network, recipe)
    for plain_kernels in (False, True):
        error = np.abs(actions_of(flatbuffer, network, plain_kernels=plain_kernels) - expected).mean()
        # Where sums are of 2-bit weights, they are small, and kernels that scale them down in two steps round twice.
        allowed = {"int16x8": 5e-4, "int8x2": 0.1}.get(name, 0.02)
        assert error < allowed * np.abs(expected).mean()


@pytest.mark.parametrize(("bits", "packed"), [(2, 2), (3, 4), (4, 4), (5, 8), (6, 8), (7, 8), (8, 8)])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per-channel", "per-tensor"])
def test_a_trained_grid_is_written_integer_by_integer(bits: int, packed: int, per_channel: bool) -> None:
    network = dense_network()
    rng = np.random.default_rng(bits)
    grids = {}
    for layer in network.layers:
        kernel, bias = layer.get_weights()
        lowest = max(-127, -(2 ** (bits - 1)))
        integers = rng.integers(lowest, 2 ** (bits - 1), kernel.shape).astype(np.int8)
        scale = rng.uniform(0.01, 0.1, kernel.shape[-1] if per_channel else ()).astype(np.float32)
        grids[layer.name] = Grid(integers, scale, packed)
        layer.set_weights([grids[layer.name].weights, bias])
    # int4 packs, whatever fits each layer; int8 stores the same integers in bytes.
    for name, stored in (("int4", packed), ("int2", packed), ("int8", 8), ("dynamic-int8", 8)):
        flatbuffer = quantised(network, dataclasses.replace(RECIPES[name], per_channel=per_channel), grids)
        assert [layer.weight_bits for layer in layers(flatbuffer)] == [stored] * 4
        graph = Graph(flatbuffer)
        kernels = [int(o.inputs[1]) for o in graph.operators if graph.operation(o) == "FULLY_CONNECTED"]
        for index, (layer_name, grid) in zip(kernels, grids.items(), strict=True):
            integers, scales = graph.constant(index), graph.scales(index)
            np.testing.assert_array_equal(integers.T, grid.integers)
            np.testing.assert_array_equal(scales, np.atleast_1d(grid.scale))
            dequantised = integers.T.astype(np.float32) * (scales if per_channel else scales[0])
            np.testing.assert_array_equal(dequantised, network.get_layer(layer_name).get_weights()[0])


def test_layers_of_different_bits_are_packed_each_at_its_own() -> None:
    network = dense_network()
    grids = {}
    for layer, bits in zip(network.layers, (8, 4, 2), strict=False):
        kernel, bias = layer.get_weights()
        grids[layer.name] = nearest_grid(kernel, bits, per_channel=True)
        layer.set_weights([grids[layer.name].weights, bias])
    assert [layer.weight_bits for layer in layers(quantised(network, RECIPES["int4"], grids))] == [8, 4, 2, 4]


def test_convolutions_of_2_bits_are_stored_at_4_because_the_2_bit_kernel_errs() -> None:
    network = conv_network()
    assert [layer.weight_bits for layer in layers(quantised(network, RECIPES["int2"]))] == [4, 4, 2, 2]


def test_a_grid_that_is_not_the_kernels_own_is_refused() -> None:
    network = dense_network()
    grid = nearest_grid(network.get_layer("second").get_weights()[0], 4, per_channel=True)
    with pytest.raises(GridError, match="the layer second is not the grid of its kernel"):
        quantised(network, RECIPES["int4"], {"second": grid})
    with pytest.raises(UnknownNameError, match=r"Unknown layer with weights 'secnod'. Did you mean 'second'"):
        quantised(network, RECIPES["int4"], {"secnod": grid})


@pytest.mark.parametrize("name", INTEGER)
def test_chosen_layers_stay_in_float(name: str) -> None:
    network = dense_network()
    recipe = dataclasses.replace(RECIPES[name], float_layers=("first", "last"))
    flatbuffer = quantised(network, recipe)
    bits = recipe.weight_bits
    assert [layer.weight_bits for layer in layers(flatbuffer)] == [32, bits, bits, 32]
    everything = np.abs(actions_of(quantised(network, RECIPES[name]), network) - network(observations_for(network)))
    some = np.abs(actions_of(flatbuffer, network) - network(observations_for(network)))
    assert some.mean() < everything.mean()


def test_layers_are_found_where_the_converter_puts_operations_together() -> None:
    # A normaliser without a clip is multiplied into the first kernel, whose tensor then has both names.
    network = dense_network()
    spec = dataclasses.replace(spec_of((11,), 3), normalizer=Normalizer((1.0,) * 11, (2.0,) * 11, None))
    recipe = dataclasses.replace(RECIPES["int8"], float_layers=("first",))
    conversion = convert(network, spec, recipe, observations_for(network))
    assert [layer.weight_bits for layer in conversion.artifact.manifest.layers] == [32, 8, 8, 8]


def test_the_grid_of_a_first_layer_that_reads_frames_is_kept() -> None:
    # The converter multiplies its kernel by 1/255; the integers are what was trained.
    network = conv_network()
    frames = np.random.default_rng(0).integers(0, 256, (120, 20, 20, 3), np.uint8)
    spec = dataclasses.replace(spec_of((20, 20, 3), 3), observation=ObservationSpec((20, 20, 3), (), (), "uint8"))
    grids = {}
    for layer in network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            grids[layer.name] = nearest_grid(kernel, 8, per_channel=False)
            layer.set_weights([grids[layer.name].weights, bias])
    for name in ("int8", "int8-full", "int4"):
        recipe = dataclasses.replace(RECIPES[name], per_channel=False)
        graph = Graph(convert(network, spec, recipe, frames, grids=grids).artifact.flatbuffer)
        kernels = [int(o.inputs[1]) for o in graph.operators if graph.operation(o) in ("CONV_2D", "FULLY_CONNECTED")]
        for index, grid in zip(kernels, grids.values(), strict=True):
            np.testing.assert_array_equal(np.moveaxis(graph.constant(index), 0, -1), grid.integers)


def test_a_layer_that_does_not_exist_cannot_stay_in_float() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown layer with weights 'lats'. Did you mean 'last'"):
        quantised(dense_network(), dataclasses.replace(RECIPES["int8"], float_layers=("lats",)))


def test_int8_full_has_integers_alone() -> None:
    network = dense_network()
    conversion = convert(network, spec_of((11,), 3, bounded=True), "int8-full", observations_for(network))
    graph = Graph(conversion.artifact.flatbuffer)
    names = [graph.operation(operator) for operator in graph.operators]
    assert "QUANTIZE" not in names
    assert "DEQUANTIZE" not in names
    ends = (*graph.inputs, *graph.outputs)
    assert [graph.tensor(index).type for index in ends] == [Types.INT8, Types.INT8]
    kernels = [int(o.inputs[1]) for o in graph.operators if graph.operation(o) == "FULLY_CONNECTED"]
    assert [len(graph.scales(index)) for index in kernels] == [1, 1, 1, 1]


@pytest.mark.parametrize("normaliser", ["trained with one", "made by the conversion"])
@pytest.mark.parametrize("name", ["int8-full", "int8", "dynamic-int8", "int16x8"])
def test_observations_that_differ_by_ten_thousand_survive(name: str, normaliser: str) -> None:
    # With one scale for all the small ones would be less than a step, and what the policy makes of them gone.
    scale = np.array([1e-2, 1.0, 10.0, 1e2, 1e-1, 1e-2, 1.0, 1e2, 1e2, 1e-2, 1.0], np.float32)
    unit = observations_for(dense_network(), 2000)
    network = dense_network()
    spec = spec_of((11,), 3)
    if normaliser == "trained with one":
        spec = dataclasses.replace(
            spec, normalizer=Normalizer(tuple(map(float, scale)), tuple(map(float, scale)), 10.0)
        )
    else:
        kernel, bias = network.layers[0].get_weights()
        network.layers[0].set_weights([kernel / scale[:, None], bias - kernel.sum(axis=0)])
    conversion = convert(network, spec, name, unit * scale + scale)
    plain = convert(dense_network(), spec_of((11,), 3), name, unit)
    error, plain_error = (c.comparison.mean_action_error or 0.0 for c in (conversion, plain))
    assert error < 1.5 * plain_error
    raw = unit * scale + scale
    policy = conversion.policy()
    # It still reacts to the smallest of them as the float policy does.
    moved = raw[:200].copy()
    moved[:, 0] += 2 * scale[0]
    reaction = np.stack([policy.act(b) - policy.act(a) for a, b in zip(raw[:200], moved, strict=True)])
    float_policy = DeployedPolicy(network, spec)
    wanted = float_policy.act(moved) - float_policy.act(raw[:200])
    assert np.abs(reaction - wanted).mean() < 0.35 * np.abs(wanted).mean()


def test_an_operation_without_an_integer_kernel_is_named_with_its_layer() -> None:
    network = filled(keras.Sequential([keras.Input((4,)), Dense(8, "elu", name="bent"), Dense(2, name="last")]))
    observations = observations_for(network)
    with pytest.raises(UnsupportedOperationError, match="ELU of the layer bent has no integer kernel here"):
        convert(network, spec_of((4,), 2), "int8-full", observations)
    conversion = convert(network, spec_of((4,), 2), "int8", observations)
    assert "Left in float between integer layers: ELU of bent." in conversion.artifact.manifest.notes
    assert [layer.weight_bits for layer in conversion.artifact.manifest.layers] == [8, 8]
    assert conversion.comparison.mean_action_error < 0.1


def test_a_bias_beyond_its_integer_makes_the_grid_coarser() -> None:
    network = filled(keras.Sequential([keras.Input((3,)), Dense(2, name="last")]))
    network.layers[0].set_weights([np.array([[1e-9, 1], [1e-9, 1], [1e-9, 1]], np.float32), np.array([5.0, 0.5])])
    actions = actions_of(quantised(network, RECIPES["int8"]), network)
    np.testing.assert_allclose(actions[:, 0], 5.0, rtol=0.02)


def test_the_scale_of_an_activation_by_hand() -> None:
    scale = activation_scale(-1.0, 3.0, 8)
    assert (scale.scale, scale.zero_point) == (4 / 255, -64)
    assert activation_scale(0.0, 2.55, 8).zero_point == -128
    assert activation_scale(-2.55, -1.0, 8).zero_point == 127
    assert activation_scale(-1.0, 3.0, 16).scale == 3.0 / 32767
    assert activation_scale(0.0, 0.0, 8).scale > 0


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.sampled_from([8, 16]))
def test_an_activation_is_at_most_a_step_off_within_its_range(a: float, b: float, bits: int) -> None:
    low, high = sorted((a, b))
    scale = activation_scale(low, high, bits)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for value in (low, high, 0.0, (low + high) / 2):
        stored = np.clip(np.rint(value / scale.scale) + scale.zero_point, lowest, highest)
        assert abs((stored - scale.zero_point) * scale.scale - value) <= scale.scale * 1.001
    assert lowest <= scale.zero_point <= highest


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_same_conversion_gives_the_same_bytes(name: str) -> None:
    network, spec = dense_network(), spec_of((11,), 3)
    first, second = (convert(network, spec, name, observations_for(network)).artifact for _ in range(2))
    assert first.flatbuffer == second.flatbuffer


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu", "relu6", "linear"])
@pytest.mark.parametrize("separate", [False, True], ids=["in the layer", "behind it"])
@pytest.mark.parametrize("name", ["int8", "int8-full"])
def test_bounded_actions_of_every_head_convert(name: str, separate: bool, activation: str) -> None:
    # TD3, DDPG and SAC end in tanh; the clip to [-1, 1] behind it is an operation of its own, or none.
    head = [Dense(2, name="last"), keras.layers.Activation(keras.activations.get(activation))]
    if not separate:
        head = [Dense(2, activation, name="last")]
    network = filled(keras.Sequential([keras.Input((4,)), Dense(16, "relu", name="first"), *head]))
    spec = spec_of((4,), 2, bounded=True)
    spec = dataclasses.replace(spec, action=ActionSpec((2,), (-3.0, 0.0), (3.0, 1.0)))
    comparison = convert(network, spec, name, observations_for(network)).comparison
    assert comparison.relative_action_error < 0.03


@pytest.mark.parametrize("name", ["float32", "int8", "int8-full", "int16x8"])
def test_actions_with_some_bounds_are_the_same_in_float_and_in_integers(name: str) -> None:
    network = filled(keras.Sequential([keras.Input((4,)), Dense(16, "tanh"), Dense(3, name="last")]))
    action = ActionSpec((3,), (-2.0, None, 0.0), (3.0, None, None))
    spec = dataclasses.replace(spec_of((4,), 3), action=action)
    observations = observations_for(network)
    raw = np.asarray(network(observations))
    expected = np.stack([np.clip(raw[:, 0], -1, 1) * 2.5 + 0.5, raw[:, 1], raw[:, 2]], axis=1)
    np.testing.assert_allclose(DeployedPolicy(network, spec).act(observations), expected, atol=1e-5)
    policy = convert(network, spec, name, observations).policy()
    actions = np.stack([policy.act(observation) for observation in observations])
    # An element without one of its bounds is clipped at the other by the host alone.
    assert np.abs(actions - expected)[:, :2].mean() < (1e-5 if name == "float32" else 0.05)


@pytest.mark.parametrize("name", ["float16", "int8", "int8-full", "int4"])
def test_observations_that_are_flattened_first_convert(name: str) -> None:
    network = filled(keras.Sequential([keras.Input((4, 3)), Flatten(), Dense(16, "relu"), Dense(2, name="last")]))
    comparison = convert(network, spec_of((4, 3), 2, bounded=True), name, observations_for(network)).comparison
    assert comparison.mean_action_error < (0.6 if name in ("int2", "int4") else 0.03)


@pytest.mark.parametrize("name", ["dynamic-int8", "int8", "int8-full", "int16x8"])
def test_frames_that_are_flattened_or_pooled_first_keep_their_levels(name: str) -> None:
    # The division by 255 is then not in the first kernel. Taken for bytes, frames would be one step of 255.
    frames = np.random.default_rng(0).integers(0, 256, (200, 6, 6, 2), np.uint8)
    spec = dataclasses.replace(spec_of((6, 6, 2), 2), observation=ObservationSpec((6, 6, 2), (), (), "uint8"))
    network = filled(keras.Sequential([keras.Input((6, 6, 2)), Flatten(), Dense(16, "relu"), Dense(2, name="last")]))
    conversion = convert(network, spec, name, frames)
    actions = DeployedPolicy(network, spec).act(frames)
    assert (
        conversion.comparison.mean_action_error < (0.5 if name in ("int2", "int4") else 0.03) * np.abs(actions).mean()
    )


@pytest.mark.parametrize("name", ["int8", "int8-full", "int16x8"])
@pytest.mark.parametrize("make", [conv_network, None], ids=["convolution", "flattened"])
def test_frames_brighter_than_those_of_calibration_are_not_cut_off(name: str, make) -> None:
    network = keras.Sequential([keras.Input((20, 20, 3)), Flatten(), Dense(3, name="last")]) if make is None else make()
    network = filled(network)
    spec = dataclasses.replace(spec_of((20, 20, 3), 3), observation=ObservationSpec((20, 20, 3), (), (), "uint8"))
    rng = np.random.default_rng(0)
    policy = convert(network, spec, name, rng.integers(0, 90, (200, 20, 20, 3), np.uint8)).policy()
    # Only a little is bright, so that what the layers give stays within what they gave in calibration.
    frames = rng.integers(0, 60, (50, 20, 20, 3), np.uint8)
    frames[:, :2, :2] = 255
    expected = DeployedPolicy(network, spec).act(frames)
    actions = np.stack([policy.act(frame) for frame in frames])
    assert np.abs(actions - expected).mean() < 0.05 * np.abs(expected).mean()


def test_a_layer_in_float_reads_what_has_been_computed() -> None:
    # Its DEQUANTIZE belongs behind the layer that it reads, not behind the last integer layer that reads the same.
    inputs = keras.Input((4,))
    trunk = Dense(8, "relu", name="trunk")(inputs)
    sum_ = keras.layers.Add()([Dense(2, name="left")(trunk), Dense(2, name="right")(trunk)])
    network = filled(keras.Model(inputs, sum_))
    observations = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
    for layers_in_float in (("left",), ("right",), ()):
        recipe = dataclasses.replace(RECIPES["int8"], float_layers=layers_in_float)
        conversion = convert(network, spec_of((4,), 2), recipe, observations)
        produced = set()
        graph = Graph(conversion.artifact.flatbuffer)
        for operator in graph.operators:
            reads = [int(i) for i in operator.inputs if i >= 0 and not graph.is_constant(i)]
            assert set(reads) <= produced | set(graph.inputs)
            produced |= {int(i) for i in operator.outputs}
        assert max(conversion.artifact.manifest.golden_tolerance) < 1


@pytest.mark.parametrize("name", ["int8", "int8-full", "int16x8", "int4"])
@pytest.mark.parametrize("discrete", [False, True])
def test_constant_policies_convert(name: str, discrete: bool) -> None:
    network = filled(keras.Sequential([keras.Input((4,)), Dense(8, "relu"), Dense(3, name="last")]))
    network.layers[-1].set_weights([np.zeros((8, 3)), np.array([0.0, 0.5, 0.1] if discrete else np.zeros(3))])
    spec = spec_of((4,), 3)
    if discrete:
        spec = dataclasses.replace(spec, action=ActionSpec((), (), (), 3))
    observations = np.random.default_rng(1).normal(size=(200, 4))
    comparison = convert(network, spec, name, observations).comparison
    assert comparison.agreement == 1.0 if discrete else comparison.max_action_error < 0.01


def test_a_policy_with_one_choice_converts() -> None:
    network = filled(keras.Sequential([keras.Input((4,)), Dense(1, name="last")]))
    spec = dataclasses.replace(spec_of((4,), 1), action=ActionSpec((), (), (), 1))
    assert convert(network, spec, "int8", observations_for(network)).comparison.agreement == 1.0


def test_a_large_weight_on_what_never_changes_does_not_make_all_steps_coarse() -> None:
    network = filled(keras.Sequential([keras.Input((4,)), Dense(16, "tanh"), Dense(2, name="last")]))
    observations = observations_for(network)
    observations[:, 2] = 0.25
    kernel, bias = network.layers[0].get_weights()
    kernel[2] = 1e4
    network.layers[0].set_weights([kernel, bias - 0.25 * kernel[2]])
    for name in ("int8", "int8-full", "int16x8"):
        assert convert(network, spec_of((4,), 2), name, observations).comparison.mean_action_error < 0.05


def test_layers_without_an_integer_kernel_among_others_calibrate_one_observation_at_a_time() -> None:
    network = keras.Sequential([keras.Input((4,)), Dense(8), keras.layers.LayerNormalization(), Dense(2, name="last")])
    conversion = convert(filled(network), spec_of((4,), 2), "int8", observations_for(network))
    assert conversion.comparison.mean_action_error < 0.1
    assert "Left in float between integer layers" in conversion.artifact.manifest.notes[-1]


def test_weights_that_are_not_finite_are_refused_by_every_recipe() -> None:
    network = filled(keras.Sequential([keras.Input((4,)), Dense(2, name="last")]))
    network.layers[0].bias.assign([np.nan, 0.0])
    for name in RECIPES:
        with pytest.raises(ExportError, match="The weights of the layer last have NaN or infinity in them"):
            convert(network, spec_of((4,), 2), name, observations_for(network))


def test_a_grid_with_a_scale_an_output_is_refused_where_there_is_one_a_layer() -> None:
    network = dense_network()
    grids = {}
    for layer in network.layers:
        kernel, bias = layer.get_weights()
        grids[layer.name] = nearest_grid(kernel, 8, per_channel=True)
        layer.set_weights([grids[layer.name].weights, bias])
    with pytest.raises(GridError, match="the layer first has a scale for each output, and this recipe one for a layer"):
        quantised(network, RECIPES["int8-full"], grids)
