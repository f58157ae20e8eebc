import dataclasses
import functools
import pickle

import numpy as np
import pytest
import tf_keras as keras
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import RECIPES, convert
from converters.export import DeployedPolicy
from converters.flatbuffer import Graph, Operators
from converters.quantise import WITH_WEIGHTS, quantise
from converters.recipe import Recipe
from converters.template import Template, TemplateError
from converters.tflite import to_float32
from converters.weights import nearest_grid
from edge import interpreter
from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from edge.errors import UnknownNameError
from edge.policy import Policy
from tfqrl.networks import mlp

N, FRAME = 5, (12, 12, 2)
FREE = ObservationSpec((N,), (None,) * N, (None,) * N)
FRAMES = ObservationSpec(FRAME, (), (), "uint8")
SCALED, DISCRETE = ActionSpec((2,), (-1.0, -2.0), (1.0, 6.0)), ActionSpec((), (), (), 3)
UNBOUNDED = ActionSpec((2,), (None,) * 2, (None,) * 2)
NORMALIZER = Normalizer((0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 1.5, 2.0, 0.7, 1.1), 10.0)

PER_TENSOR = dataclasses.replace(RECIPES["dynamic-int8"], name="per-tensor", per_channel=False)
IN_FLOAT = dataclasses.replace(RECIPES["dynamic-int8"], name="output in float", float_layers=("output",))
ALL = [RECIPES["float32"], RECIPES["float16"], RECIPES["dynamic-int8"], PER_TENSOR]


# Named, because the names are in the flatbuffer.
def cnn() -> keras.Sequential:
    layers = [
        keras.Input(FRAME),
        keras.layers.Conv2D(5, 4, 2, activation="relu", name="near"),
        keras.layers.Conv2D(7, 3, 1, activation="relu", name="far"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(6, "relu", name="hidden"),
        keras.layers.Dense(3, name="output"),
    ]
    return keras.Sequential(layers, name="cnn")


def bare() -> keras.Sequential:
    """No biases, and an activation of its own."""
    layers = [
        keras.Input((N,)),
        keras.layers.Dense(7, use_bias=False, name="hidden"),
        keras.layers.Activation("relu", name="relu"),
        keras.layers.Dense(2, use_bias=False, name="output"),
    ]
    return keras.Sequential(layers, name="bare")


CASES = {
    "tanh": (lambda: mlp(N, (8, 4), 2), PolicySpec(FREE, SCALED, 50.0, NORMALIZER)),
    "relu, no normaliser": (lambda: mlp(N, (8, 4), 2, activation="relu"), PolicySpec(FREE, SCALED, 50.0, None)),
    "discrete": (lambda: mlp(N, (8,), 3), PolicySpec(FREE, DISCRETE, None, NORMALIZER)),
    # Without a clip between them, the converter multiplies the first kernel by 1/deviation.
    "normaliser in the kernel": (
        lambda: mlp(N, (8,), 2),
        PolicySpec(FREE, UNBOUNDED, None, dataclasses.replace(NORMALIZER, clip=None)),
    ),
    "logits": (lambda: mlp(N, (8,), 3), PolicySpec(FREE, DISCRETE, None, NORMALIZER)),
    "no biases": (bare, PolicySpec(FREE, SCALED, None, NORMALIZER)),
    # And here by 1/255.
    "frames": (cnn, PolicySpec(FRAMES, DISCRETE, 15.0, None)),
}
# Whose graph ends with one number a choice.
LOGITS = ("logits", "frames")


@functools.cache
def template_of(case: str, chosen: Recipe) -> Template:
    make, spec = CASES[case]
    return Template(make(), spec, chosen, logits=case in LOGITS)


def drawn(case: str, seed: int) -> tuple[keras.Sequential, PolicySpec]:
    """The network of a case with random weights, and its spec with a random normaliser if it has one."""
    rng = np.random.default_rng(seed)
    make, spec = CASES[case]
    network = make()
    network.set_weights([rng.normal(0.0, 0.5, values.shape) for values in network.get_weights()])
    if spec.normalizer is not None:
        mean, std = tuple(rng.normal(size=N).tolist()), tuple(rng.uniform(0.1, 9.0, N).tolist())
        spec = dataclasses.replace(spec, normalizer=dataclasses.replace(spec.normalizer, mean=mean, std=std))
    return network, spec


def converted(case: str, network: keras.Sequential, spec: PolicySpec, chosen: Recipe) -> bytes:
    flatbuffer = to_float32(DeployedPolicy(network, spec, logits=case in LOGITS))
    return flatbuffer if chosen.weight_bits == 32 else quantise(flatbuffer, chosen, {}, {})[0]


def observations(spec: PolicySpec, n: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    if spec.observation.dtype == "uint8":
        return rng.integers(0, 256, (n, *spec.observation.shape), dtype=np.uint8)
    return rng.normal(size=(n, *spec.observation.shape)).astype(np.float32)


@pytest.mark.parametrize("chosen", [*ALL, IN_FLOAT], ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_what_is_converted_byte_for_byte(case: str, chosen: Recipe) -> None:
    template = template_of(case, chosen)
    network, spec = drawn(case, 1)
    template.write(network.get_weights(), spec.normalizer)
    assert template.flatbuffer == converted(case, network, spec, chosen)
    assert template.spec == spec


@pytest.mark.parametrize("chosen", ["float32", "float16", "dynamic-int8"])
def test_the_policy_acts_as_the_one_that_convert_makes_and_keeps_its_weights(chosen: str) -> None:
    network, spec = drawn("tanh", 3)
    seen = observations(spec, 200)
    conversion = convert(network, spec, chosen, seen)
    template = template_of("tanh", RECIPES[chosen])
    template.write(network.get_weights(), spec.normalizer)
    assert template.flatbuffer == conversion.artifact.flatbuffer
    expected, policy = conversion.policy(), template.policy()
    other, other_spec = drawn("tanh", 4)
    template.write(other.get_weights(), other_spec.normalizer)
    changed = template.policy()
    assert (policy.spec, changed.spec) == (spec, other_spec)
    for observation in seen[:50]:
        np.testing.assert_array_equal(policy.act(observation), expected.act(observation))
    assert any((policy.act(observation) != changed.act(observation)).any() for observation in seen[:50])


def test_a_new_template_has_the_networks_weights_and_leaves_the_network_alone() -> None:
    network, spec = drawn("tanh", 5)
    before = network.get_weights()
    template = Template(network, spec, "dynamic-int8")
    assert template.flatbuffer == converted("tanh", network, spec, RECIPES["dynamic-int8"])
    for left, had in zip(network.get_weights(), before):
        np.testing.assert_array_equal(left, had)


def outputs(flatbuffer: bytes, seen: np.ndarray) -> np.ndarray:
    running, _ = interpreter.build(flatbuffer, 1)
    reads, gives = running.get_input_details()[0]["index"], running.get_output_details()[0]["index"]
    found = []
    for observation in seen:
        running.set_tensor(reads, observation[np.newaxis])
        running.invoke()
        found.append(running.get_tensor(gives))
    return np.array(found)


# What the converter makes a simpler graph of: a template, whose graph stays as it is, has to act the same.
@pytest.mark.parametrize("chosen", ALL[::2], ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("case", ["tanh", "frames"])
@pytest.mark.parametrize("zero", ["biases", "a layer", "half the outputs of a layer", "all"])
def test_zeros_act_as_if_they_had_been_converted(case: str, chosen: Recipe, zero: str) -> None:
    network, spec = drawn(case, 6)
    weights = network.get_weights()
    if zero == "biases":
        weights = [values * (values.ndim > 1) for values in weights]
    elif zero == "all":
        weights = [values * 0.0 for values in weights]
    else:
        weights[2][..., :: 2 if zero.startswith("half") else 1] = 0.0
    network.set_weights(weights)
    template = template_of(case, chosen)
    template.write(weights, spec.normalizer)
    seen = observations(spec, 30)
    np.testing.assert_array_equal(
        outputs(bytes(template.flatbuffer), seen), outputs(converted(case, network, spec, chosen), seen)
    )


# The constants of layers by name: "kernel", "bias", and "scale" of integers.
def read_back(flatbuffer: bytes) -> list[dict[str, np.ndarray]]:
    graph = Graph(bytes(flatbuffer))
    layers = []
    for operator in graph.operators:
        if graph.code(operator) in WITH_WEIGHTS:
            indices = []
            for index in operator.inputs[1:]:
                widened = graph.producer(index)
                indices.append(index if widened is None else widened.inputs[0])
                assert widened is None or graph.code(widened) == Operators.DEQUANTIZE
            kernel, bias = (graph.constant(index) for index in indices)
            layers.append({"kernel": np.moveaxis(kernel, 0, -1), "bias": bias, "scale": graph.scales(indices[0])})
    return layers


MAGNITUDES = [1.0, 0.0, 1e38, 1e5, 65519.0, 1e-7, 1e-34, 1e-38, 1e-42, 1e-45]


@st.composite
def weights_of(draw: st.DrawFn, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Random weights whose outputs are of very different magnitude, with zeros of both signs and ties between steps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arrays = []
    for shape in shapes:
        magnitudes = draw(st.lists(st.sampled_from(MAGNITUDES), min_size=shape[-1], max_size=shape[-1]))
        values = rng.uniform(-1.0, 1.0, shape)
        if draw(st.booleans()):
            values = np.rint(values * 254) / 254  # half steps
        with np.errstate(under="ignore"):
            arrays.append((values * magnitudes).astype(np.float32))
    return arrays


def check_tensor_by_tensor(case: str, chosen: Recipe, weights: list[np.ndarray]) -> None:
    template = template_of(case, chosen)
    template.write(weights)
    for i, found in enumerate(read_back(template.flatbuffer)):
        kernel, bias = weights[2 * i : 2 * i + 2]
        if case == "frames" and i == 0:
            kernel = kernel * np.float32(1 / 255)
        if chosen.weight_bits == 8:
            grid = nearest_grid(kernel, 8, per_channel=chosen.per_channel)
            kernel = grid.integers
            np.testing.assert_array_equal(found["scale"], np.atleast_1d(grid.scale))
        elif chosen.weight_bits == 16:
            kernel, bias = (np.clip(values, -65504, 65504).astype(np.float16) for values in (kernel, bias))
        # As bytes: a zero keeps its sign.
        assert found["kernel"].tobytes() == kernel.tobytes()
        assert found["kernel"].dtype == kernel.dtype
        assert found["bias"].tobytes() == bias.tobytes()


@pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("case", ["tanh", "frames"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_tensor_is_the_nearest_of_its_kind(case: str, chosen: Recipe, data: st.DataObject) -> None:
    shapes = [values.shape for values in CASES[case][0]().get_weights()]
    check_tensor_by_tensor(case, chosen, data.draw(weights_of(shapes)))


@pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("magnitude", [1e38, 7e4, 1e-42])
def test_huge_and_tiny_weights_are_written_as_they_are_converted(chosen: Recipe, magnitude: float) -> None:
    network, spec = drawn("frames", 8)
    with np.errstate(under="ignore"):
        network.set_weights([(values * magnitude).astype(np.float32) for values in network.get_weights()])
    template = template_of("frames", chosen)
    template.write(network.get_weights())
    assert template.flatbuffer == converted("frames", network, spec, chosen)


def spoilt(*, layer: int, value: float) -> list[np.ndarray]:
    weights = drawn("tanh", 9)[0].get_weights()
    weights[layer][..., 1] = value
    return weights


@pytest.mark.parametrize("chosen", ALL, ids=lambda chosen: chosen.name)
@pytest.mark.parametrize(
    ("weights", "normalizer", "message"),
    [
        (spoilt(layer=0, value=np.nan), None, "The kernel of hidden_0 has NaN or infinity in it"),
        (spoilt(layer=3, value=np.inf), None, "The bias of hidden_1 has NaN or infinity in it"),
        (spoilt(layer=4, value=-np.inf), None, "The kernel of output has NaN or infinity in it"),
        (
            [values * 1e300 for values in map(np.float64, spoilt(layer=0, value=1.0))],
            None,
            "kernel of hidden_0 has NaN",
        ),
        (
            drawn("discrete", 9)[0].get_weights(),
            None,
            r"takes 6 arrays \(kernel of hidden_0, bias of hidden_0, .*\); it was given 4",
        ),
        (
            mlp(N, (8, 6), 2).get_weights(),
            None,
            r"kernel of hidden_1 has the shape \(8, 4\) in this template; it was given \(8, 6\)",
        ),
        ([values.T for values in drawn("tanh", 9)[0].get_weights()], None, r"\(5, 8\) in .* given \(8, 5\)"),
        (None, dataclasses.replace(NORMALIZER, std=(1.0, 1.0, 0.0, 1.0, 1.0)), "finite and above 0"),
        (None, dataclasses.replace(NORMALIZER, std=(1.0, 1.0, np.nan, 1.0, 1.0)), "finite and above 0"),
        (None, dataclasses.replace(NORMALIZER, mean=(1.0, 1.0, 1e39, 1.0, 1.0)), "means must be finite"),
        (None, dataclasses.replace(NORMALIZER, clip=5.0), r"5 elements, clipped at 10\.0; .* is clipped at 5\.0"),
        (None, Normalizer((0.0,) * 4, (1.0,) * 4, 10.0), "it was given has 4 means, 4 deviations"),
    ],
)
def test_a_refused_write_leaves_the_flatbuffer_as_it_was(
    chosen: Recipe, weights: list[np.ndarray] | None, normalizer: Normalizer | None, message: str
) -> None:
    network, spec = drawn("tanh", 9)
    template = template_of("tanh", chosen)
    template.write(network.get_weights(), spec.normalizer)
    before = bytes(template.flatbuffer)
    other = [values + 1 for values in network.get_weights()]
    with pytest.raises(TemplateError, match=message):
        template.write(other if weights is None else weights, normalizer)
    assert template.flatbuffer == before
    assert template.spec == spec


def test_a_normaliser_that_the_template_does_not_have_is_refused() -> None:
    network, _ = drawn("relu, no normaliser", 1)
    with pytest.raises(TemplateError, match="made with no normaliser"):
        template_of("relu, no normaliser", RECIPES["float32"]).write(network.get_weights(), NORMALIZER)


def test_a_first_kernel_that_overflows_when_the_normaliser_is_put_into_it_is_refused() -> None:
    network, spec = drawn("normaliser in the kernel", 1)
    template = template_of("normaliser in the kernel", RECIPES["float32"])
    template.write(network.get_weights(), spec.normalizer)
    before = bytes(template.flatbuffer)
    assert spec.normalizer is not None
    tiny = dataclasses.replace(spec.normalizer, std=(1e-30,) * N)
    with pytest.raises(TemplateError, match="kernel of hidden_0 has NaN or infinity"):
        template.write([values * np.float32(1e20) for values in network.get_weights()], tiny)
    assert template.flatbuffer == before


@pytest.mark.parametrize("chosen", ["int8", "int8-full", "int16x8", "int4", "int2"])
def test_recipes_whose_numbers_are_not_the_weights_alone_have_no_template(chosen: str) -> None:
    network, spec = drawn("tanh", 1)
    with pytest.raises(TemplateError, match=f"none for {chosen}"):
        Template(network, spec, chosen)
    with pytest.raises(UnknownNameError, match="Did you mean 'float32'"):
        Template(network, spec, "float23")


@pytest.mark.parametrize("first", [keras.layers.BatchNormalization(), keras.layers.LayerNormalization()])
def test_a_network_whose_weights_the_converter_rearranges_has_no_template(first: keras.layers.Layer) -> None:
    network = keras.Sequential([keras.Input((N,)), keras.layers.Dense(4), first, keras.layers.Dense(2)])
    with pytest.raises(TemplateError, match="converter rearranges the weights of"):
        Template(network, CASES["tanh"][1], "float32")


def test_what_is_sent_to_an_actor_is_the_flatbuffer() -> None:
    network, spec = drawn("tanh", 1)
    template = template_of("tanh", RECIPES["dynamic-int8"])
    template.write(network.get_weights(), spec.normalizer)
    assert Policy(bytes(template.flatbuffer), template.spec).act(np.zeros(N)) == pytest.approx(
        template.policy().act(np.zeros(N))
    )
    with pytest.raises(TypeError, match="read-only"):
        template.flatbuffer[0] = 0
    # A copy of its views would no longer be views of its flatbuffer.
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(template)


def test_weights_that_are_as_good_as_zero_have_a_scale_that_kernels_take() -> None:
    for magnitude in (0.0, 1e-45, 1e-38, 9e-36):
        grid = nearest_grid(np.full((3, 2), magnitude, np.float32), 8, per_channel=True)
        assert (grid.scale == np.float32(1 / 127)).all()
        assert not grid.integers.any()
    small = nearest_grid(np.full((3, 2), 2e-35, np.float32), 8, per_channel=False)
    assert small.integers.min() == 127
    assert small.scale >= np.finfo(np.float32).tiny
