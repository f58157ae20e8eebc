"""Policies from ONNX: against onnxruntime, for files that torch exported (tests/data/onnx) and graphs made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes import DATA
from onnx import TensorProto, helper, numpy_helper

from converters import convert
from converters.export import DeployedPolicy
from converters.sources import ForeignPolicy, ImportPolicyError
from converters.sources.onnx import load
from converters.sources.spec import policy_spec
from edge.artifact import Normalizer, PolicySpec

RNG = np.random.default_rng(0)
OBSERVATIONS = RNG.normal(size=(1000, 5)).astype(np.float32)
SCALE, MIDDLE = (np.array(v, np.float32) for v in ([1, 0.1, 20, 1000, 0.003], [0, 1, 50, -3000, 0.02]))
FRAMES = RNG.integers(0, 256, (1000, 36, 36, 4), dtype=np.uint8)


def box(low: Any = -1.0, high: Any = 1.0, actions: int = 2, observations: int = 5) -> PolicySpec:
    return policy_spec((observations,), actions, low=low, high=high)


CHOICE = policy_spec((5,), 4, discrete=True)
CAMERA = policy_spec((36, 36, 4), 6, discrete=True, frames=True)


def by_onnxruntime(path: Path | bytes, observations: np.ndarray, output: str | None = None) -> np.ndarray:
    session = onnxruntime.InferenceSession(path if isinstance(path, bytes) else str(path))
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(output and [output], {name: value[np.newaxis]})[0] for value in observations])


def actions_of(policy: ForeignPolicy, observations: np.ndarray) -> np.ndarray:
    return DeployedPolicy(policy.network, policy.spec).act(observations)


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize(
    ("name", "spec", "observations"),
    [
        ("tanh", box(-0.5, 2.0), OBSERVATIONS),
        ("tanh", box(None, None), OBSERVATIONS),
        ("sac", box(), OBSERVATIONS),
        ("normalising", box(), OBSERVATIONS * SCALE + MIDDLE),
        ("sigmoid", box(0.0, 1.0), OBSERVATIONS),
        ("sigmoid", box(-1.0, 3.0), OBSERVATIONS),
        ("scaled", box((-2.0, 0.5), (2.0, 1.0)), OBSERVATIONS),
        ("scaled", box((-2.0, -1.0), (4.0, 1.0)), OBSERVATIONS),
        ("clipped", box(-0.4, 0.4), OBSERVATIONS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_actions_are_those_of_onnxruntime(exporter: str, name: str, spec: PolicySpec, observations: np.ndarray) -> None:
    path = DATA / f"onnx/{name}-{exporter}.onnx"
    low, high = (np.array(v, float) for v in (spec.action.low, spec.action.high))
    expected = by_onnxruntime(path, observations.astype(np.float32))
    within = np.clip(expected, np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high))
    actual = actions_of(load(path, spec), observations.astype(np.float32))
    np.testing.assert_allclose(actual, within, rtol=0, atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 0.3, "the policy does something"


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
def test_choices_and_their_scores_are_those_of_onnxruntime(exporter: str) -> None:
    path = DATA / f"onnx/values-{exporter}.onnx"
    values = by_onnxruntime(path, OBSERVATIONS)
    np.testing.assert_allclose(load(path, CHOICE).network(OBSERVATIONS), values, rtol=0, atol=1e-5)
    path = DATA / f"onnx/choice-{exporter}.onnx"
    choices = by_onnxruntime(path, OBSERVATIONS)
    assert len(set(choices)) == 4
    np.testing.assert_array_equal(actions_of(load(path, CHOICE), OBSERVATIONS), choices)


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("name", ["frames", "frames-last"])
def test_frames_of_bytes_are_read_in_the_environments_order(name: str, exporter: str) -> None:
    path = DATA / f"onnx/{name}-{exporter}.onnx"
    fed = FRAMES if name == "frames-last" else FRAMES.transpose(0, 3, 1, 2)
    values = by_onnxruntime(path, fed)
    policy = load(path, CAMERA)
    np.testing.assert_allclose(policy.network(FRAMES * np.float32(1 / 255)), values, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(actions_of(policy, FRAMES), values.argmax(axis=1))
    assert policy.spec == CAMERA
    kinds = [type(layer).__name__ for layer in policy.network.layers]
    assert kinds == ["Conv2D", "Conv2D", "Conv2D", "Flatten", "Dense", "Dense"]


def test_a_normalisation_in_front_becomes_the_specs() -> None:
    policy = load(DATA / "onnx/normalising-script.onnx", box())
    normalizer = policy.spec.normalizer
    assert normalizer is not None
    assert normalizer.clip == 10.0
    np.testing.assert_array_equal(np.float32(normalizer.mean), MIDDLE)
    np.testing.assert_array_equal(np.float32(normalizer.std), SCALE)
    assert len(policy.network.layers) == 3


def test_the_last_tanh_is_the_networks_own_where_the_scale_is_that_of_the_bounds() -> None:
    for name, spec in (("scaled", box((-2.0, 0.5), (2.0, 1.0))), ("sigmoid", box(0.0, 1.0)), ("sac", box())):
        layers = load(DATA / f"onnx/{name}-script.onnx", spec).network.layers
        assert [layer.activation.__name__ for layer in layers] == ["relu", "relu", "tanh"], name
    # Other bounds take one more layer behind the activation.
    assert len(load(DATA / "onnx/sigmoid-script.onnx", box(-1.0, 3.0)).network.layers) == 4


def test_actions_in_unit_range_are_scaled_only_when_told(tmp_path: Path) -> None:
    path = DATA / "onnx/sac-script.onnx"
    with pytest.raises(ImportPolicyError, match=r"ends in Tanh.*--unit-actions"):
        load(path, box(-2.0, 4.0))
    actual = actions_of(load(path, box(-2.0, 4.0), unit_actions=True), OBSERVATIONS)
    np.testing.assert_allclose(actual, 1 + 3 * by_onnxruntime(path, OBSERVATIONS), rtol=0, atol=1e-5)


def test_an_imported_policy_converts(tmp_path: Path) -> None:
    policy = load(DATA / "onnx/normalising-dynamo.onnx", box())
    observations = OBSERVATIONS * SCALE + MIDDLE
    conversion = convert(policy.network, policy.spec, "float32", observations, training=policy.origin)
    expected = np.clip(by_onnxruntime(DATA / "onnx/normalising-dynamo.onnx", observations), -1, 1)
    runner = conversion.policy()
    np.testing.assert_allclose([runner.act(value) for value in observations[:100]], expected[:100], rtol=0, atol=1e-5)
    assert conversion.artifact.manifest.training["format"] == "onnx"


# Graphs made by hand.


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def graph(
    nodes: list[tuple[Any, ...]],
    constants: dict[str, Any],
    *,
    inputs: tuple[Any, ...] = ("batch", 5),
    outputs: tuple[str, ...] = ("y",),
    dtype: int = TensorProto.FLOAT,
    **options: Any,
) -> bytes:
    """Nodes are (operator, inputs, output, attributes); x is the input."""
    made = [helper.make_node(op, read.split(), [gives], **dict(*rest)) for op, read, gives, *rest in nodes]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    kinds = [TensorProto.INT64 if name == "choice" else dtype for name in outputs]
    value_infos = [
        helper.make_tensor_value_info(name, kind, ("n", "m")[: len(inputs)]) for name, kind in zip(outputs, kinds)
    ]
    entry = [helper.make_tensor_value_info("x", dtype, inputs)]
    options = {"opset_imports": [helper.make_opsetid("", 17)], "ir_version": 8, **options}
    return helper.make_model(helper.make_graph(made, "g", entry, value_infos, tensors), **options).SerializeToString()


def write(folder: Path, data: bytes) -> Path:
    (folder / "policy.onnx").write_bytes(data)
    return folder / "policy.onnx"


W1, B1, W2, B2 = weights(5, 7), weights(7), weights(7, 2), weights(2)
TWO_LAYERS = {"w": W1, "b": B1, "v": W2, "c": B2}

VARIANTS = {
    "bias first": (
        [("MatMul", "x w", "h"), ("Add", "b h", "a"), ("Relu", "a", "r"), ("MatMul", "r v", "y")],
        TWO_LAYERS,
    ),
    "bias as a row": (
        [("MatMul", "x w", "h"), ("Add", "h b", "a"), ("Tanh", "a", "r"), ("Gemm", "r v c", "y")],
        {"w": W1, "b": B1[None], "v": W2, "c": B2[None]},
    ),
    "gemm with everything": (
        [("Gemm", "x w b", "h", {"alpha": 0.5, "beta": 2.0, "transB": 1}), ("Sigmoid", "h", "r"),
         ("MatMul", "r v", "y")],
        {"w": W1.T.copy(), "b": np.float32(0.3), "v": W2},
    ),
    "constants between layers": (
        [("MatMul", "x w", "h"), ("Mul", "h s", "i"), ("Sub", "i b", "a"), ("Relu", "a", "r"), ("Div", "r s", "t"),
         ("Sub", "one t", "u"), ("MatMul", "u v", "y")],
        {**TWO_LAYERS, "s": np.linspace(0.5, 2, 7, dtype=np.float32), "one": np.float32(1)},
    ),
    "clip as relu": ([("MatMul", "x w", "h"), ("Clip", "h zero", "r"), ("MatMul", "r v", "y")],
                     {**TWO_LAYERS, "zero": np.float32(0)}),
    "negated input": ([("Sub", "b x", "n"), ("MatMul", "n w", "y")], {"b": B1[:5], "w": W1[:, :2]}),
    "clip then shift in front": (
        [("Clip", "x low high", "k"), ("Sub", "k b", "n"), ("MatMul", "n w", "y")],
        {"low": np.float32(-1), "high": np.float32(1), "b": B1[:5], "w": W1[:, :2]},
    ),
    "reshapes that change nothing": (
        [("Unsqueeze", "x one", "u"), ("Squeeze", "u one", "s"), ("Reshape", "s rows", "r"), ("Flatten", "r", "f"),
         ("Identity", "f", "i"), ("Cast", "i", "k", {"to": TensorProto.FLOAT}), ("Gemm", "k w", "y")],
        {"one": np.array([1]), "rows": np.array([-1, 5]), "w": W1[:, :2]},
    ),
    "bounds after a clip": (
        [("MatMul", "x w", "h"), ("Clip", "h low high", "k"), ("Mul", "k two", "m"), ("Add", "m two", "y")],
        {"w": W1[:, :2], "low": np.float32(-2), "high": np.float32(1), "two": np.float32(2)},
    ),
    "tanh, clipped for nothing": (
        [("MatMul", "x w", "h"), ("Tanh", "h", "t"), ("Clip", "t low high", "k"), ("Mul", "k three", "m"),
         ("Add", "m one", "y")],
        {"w": W1[:, :2], "low": np.float32(-1), "high": np.float32(1), "three": np.float32(3), "one": np.float32(1)},
    ),
    "activation alone in front": ([("Tanh", "x", "t"), ("MatMul", "t w", "y")], {"w": W1[:, :2]}),
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_graphs_made_by_hand_act_as_in_onnxruntime(variant: str, tmp_path: Path) -> None:
    data = graph(*VARIANTS[variant])
    # These bounds are those of the variants that end in a clip, and cut something off the others.
    spec = box(-2.0, 4.0)
    actual = actions_of(load(write(tmp_path, data), spec), OBSERVATIONS)
    np.testing.assert_allclose(actual, np.clip(by_onnxruntime(data, OBSERVATIONS), -2, 4), rtol=0, atol=1e-5)


def test_a_graph_without_a_batch_axis_and_in_double(tmp_path: Path) -> None:
    nodes = [("MatMul", "w x", "h"), ("Add", "h b", "a"), ("Tanh", "a", "t"), ("MatMul", "t v", "y")]
    constants = {"w": W1.T.astype(float), "b": B1.astype(float), "v": W2.astype(float)}
    data = graph(nodes, constants, inputs=(5,), dtype=TensorProto.DOUBLE)
    session = onnxruntime.InferenceSession(data)
    expected = [session.run(None, {"x": value.astype(float)})[0] for value in OBSERVATIONS]
    actual = actions_of(load(write(tmp_path, data), box(None, None)), OBSERVATIONS)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_shifts_before_and_after_convolutions_are_folded(stride: int, tmp_path: Path) -> None:
    nodes = [
        ("Div", "x c", "d"), ("Sub", "d one", "s"), ("Conv", "s k b", "h", {"strides": [stride, stride]}),
        ("Relu", "h", "r"), ("Mul", "r m", "i"), ("Conv", "i l", "j"), ("Add", "j n", "o"),
        ("Conv", "o l", "p", {"auto_pad": "VALID"}), ("Reshape", "p flat", "f"), ("MatMul", "f w", "y"),
    ]  # fmt: skip
    side = (12 - 3) // stride + 1 - 4
    constants = {
        "c": np.float32(127.5), "one": np.float32(1), "k": weights(4, 2, 3, 3), "b": weights(4),
        "m": weights(4, 1, 1), "l": weights(4, 4, 3, 3) / 4, "n": weights(1, 4, 1, 1, seed=1),
        "flat": np.array([0, -1]), "w": weights(4 * side * side, 3) / 10,
    }  # fmt: skip
    data = graph(nodes, constants, inputs=(1, 2, 12, 12))
    frames = FRAMES[:200, :12, :12, :2]
    expected = by_onnxruntime(data, frames.transpose(0, 3, 1, 2).astype(np.float32))
    policy = load(write(tmp_path, data), policy_spec((12, 12, 2), 3, discrete=True, frames=True))
    actual = policy.network(frames * np.float32(1 / 255))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_the_output_is_chosen_by_name(tmp_path: Path) -> None:
    nodes = [("MatMul", "x w", "h"), ("Tanh", "h", "value"), ("Relu", "h", "y")]
    path = write(tmp_path, graph(nodes, {"w": W1[:, :2]}, outputs=("y", "value")))
    with pytest.raises(ImportPolicyError, match="has 2 outputs; say which one is the action: y, value"):
        load(path, box())
    with pytest.raises(ImportPolicyError, match="has no output 'action'; it has: y, value"):
        load(path, box(), output="action")
    np.testing.assert_allclose(
        actions_of(load(path, box(), output="value"), OBSERVATIONS),
        by_onnxruntime(path, OBSERVATIONS, "value"), rtol=0, atol=1e-5,
    )  # fmt: skip


def test_a_spec_with_a_normaliser_has_the_graph_behind_it(tmp_path: Path) -> None:
    data = graph([("Sub", "x b", "s"), ("MatMul", "s w", "y")], {"b": B1[:5], "w": W1[:, :2]})
    spec = box(None, None)
    normalizer = Normalizer((1.0,) * 5, (2.0,) * 5, 3.0)
    spec = PolicySpec(spec.observation, spec.action, None, normalizer)
    policy = load(write(tmp_path, data), spec)
    assert policy.spec == spec
    expected = by_onnxruntime(data, np.clip((OBSERVATIONS - 1) / 2, -3, 3).astype(np.float32))
    np.testing.assert_allclose(actions_of(policy, OBSERVATIONS), expected, rtol=0, atol=1e-5)


LOW, HIGH = {"low": np.float32(-1), "high": np.float32(1)}, {}
TO_TWO = {"w": W1[:, :2], "k": np.float32(0.5), "low": np.float32(-0.5), "high": np.float32(0.25)}

REFUSED = {
    "operator": ([("MatMul", "x w", "h"), ("Softplus", "h", "y")], TO_TWO,
                 r"Softplus \(node 1, fed by 'h'\) is not supported. Supported are Add, ArgMax"),
    "branch": ([("MatMul", "x w", "h"), ("Tanh", "h", "t"), ("Add", "h t", "y")], TO_TWO,
               r"Add \(node 2, fed by 't'\) reads 'h', which is not what the step before"),
    "two computed": ([("MatMul", "x w", "h"), ("Mul", "h h", "y")], TO_TWO,
                     r"Mul \(node 1, fed by 'h'\) joins two computed tensors"),
    "clip in the middle": ([("MatMul", "x w", "h"), ("Clip", "h low high", "t"), ("Tanh", "t", "y")], TO_TWO,
                           r"Clip \(node 1, fed by 'h'\) is neither a clip"),
    "other clip": ([("MatMul", "x w", "h"), ("Clip", "h low high", "y")], TO_TWO,
                   r"Clip \(node 1, fed by 'h'\) clips actions to other bounds than the environment's"),
    "lopsided clip in front": ([("Clip", "x low high", "t"), ("MatMul", "t w", "y")], TO_TWO, "cannot be represented"),
    "empty clip": ([("MatMul", "x w", "h"), ("Clip", "h high low", "y")], TO_TWO, "leaves nothing"),
    "constant divided": ([("MatMul", "x w", "h"), ("Div", "k h", "y")], TO_TWO, "divides by a computed tensor"),
    "elementwise alone": ([("Tanh", "x", "h"), ("Mul", "h k", "t"), ("Tanh", "t", "u"), ("MatMul", "u w", "y")], TO_TWO,
                          "elementwise constants that no Gemm"),
    "nothing learnt": ([("Tanh", "x", "y")], {}, "5 values; the spec has 2"),
    "wrong outputs": ([("MatMul", "x w", "y")], {"w": W1}, "The graph gives 7 values; the spec has 2 action elements"),
    "a choice": ([("MatMul", "x w", "h"), ("ArgMax", "h", "choice", {"axis": 1})], TO_TWO, "the action is continuous"),
    "transposed": ([("Gemm", "x w", "y", {"transA": 1})], TO_TWO, "transposes what it is fed"),
    "mixes rows": ([("Reshape", "x s", "h"), ("MatMul", "h w", "y")], {"w": W1[:1, :2], "s": np.array([5, 1])},
                   "not one row by a matrix"),
    "impossible reshape": ([("Reshape", "x s", "h"), ("MatMul", "h w", "y")], {"w": W1, "s": np.array([2**40, -1])},
                           r"Reshape \(node 0, fed by 'x'\) does not fit"),
    "growing": ([("Add", "x k", "h"), ("MatMul", "h w", "y")], {"k": weights(1000, 1, 5), "w": W1[:, :2]},
                r"combines \(1, 5\) with constants of \(1000, 1, 5\)"),
    "not finite": ([("Div", "x k", "h"), ("MatMul", "h w", "y")], {"k": np.float32(0), "w": W1[:, :2]},
                   "NaN or infinity"),
    "bytes": ([("Cast", "x", "h", {"to": TensorProto.INT32}), ("MatMul", "h w", "y")], TO_TWO, "casts to int32"),
    "computed constants": ([("Add", "k low", "a"), ("MatMul", "x w", "h"), ("Add", "h a", "y")], TO_TWO,
                           r"Add \(node 0, fed by 'k'\) computes with constants"),
    "no observation": ([("Identity", "w", "y")], TO_TWO, "depends on no input"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_represented_is_refused_with_its_place(case: str, tmp_path: Path) -> None:
    nodes, constants, message = REFUSED[case]
    path = write(tmp_path, graph(nodes, constants, outputs=(nodes[-1][2],)))
    with pytest.raises(ImportPolicyError, match=message):
        load(path, box())


CONVOLUTIONS = {
    "groups": ({"group": 2}, weights(2, 1, 3, 3), "groups or dilations"),
    "dilations": ({"dilations": [2, 2]}, weights(2, 2, 3, 3), "groups or dilations"),
    "one-sided pads": ({"pads": [2, 0, 0, 0]}, weights(2, 2, 3, 3), r"pads by \[2, 0, 0, 0\]"),
    "huge pads": ({"pads": [2**40] * 4}, weights(2, 2, 3, 3), "pads by"),
    "huge strides": ({"strides": [2**60, 1]}, weights(2, 2, 3, 3), "has strides of"),
    "too large": ({}, weights(2, 2, 13, 3), r"a kernel of \(13, 3\) for an image of \(12, 12\)"),
    "channels": ({}, weights(2, 3, 3, 3), r"a kernel of \(2, 3, 3, 3\) on 2 channels"),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_that_keras_lacks_are_refused(case: str, tmp_path: Path) -> None:
    attributes, kernel, message = CONVOLUTIONS[case]
    nodes = [("Div", "x c", "d"), ("Conv", "d k", "h", attributes), ("Flatten", "h", "y")]
    data = graph(nodes, {"k": kernel, "c": np.float32(255)}, inputs=(1, 2, 12, 12))
    with pytest.raises(ImportPolicyError, match=message):
        load(write(tmp_path, data), policy_spec((12, 12, 2), 3, discrete=True, frames=True))


def test_frames_of_unclear_range_are_refused(tmp_path: Path) -> None:
    nodes = [("Conv", "x k", "h"), ("Flatten", "h", "y")]
    path = write(tmp_path, graph(nodes, {"k": weights(1, 2, 12, 12)}, inputs=(1, 2, 12, 12)))
    with pytest.raises(ImportPolicyError, match="whether they go from 0 to 255 or to 1"):
        load(path, policy_spec((12, 12, 2), 1, discrete=True, frames=True))


def test_an_observation_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, graph([("MatMul", "x w", "y")], {"w": W1[:, :2]}))
    with pytest.raises(ImportPolicyError, match=r"'x' is \(\?, 5\); the observation is \(6,\)"):
        load(path, box(observations=6))
    path = write(tmp_path, graph([("MatMul", "x w", "y")], {"w": W1[:, :2]}, inputs=(32, 5)))
    with pytest.raises(ImportPolicyError, match=r"'x' is \(32, 5\)"):
        load(path, box())


# Hostile files.


def test_weights_in_other_files_are_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(W1.tobytes())
    model = onnx.load_model_from_string(graph([("MatMul", "x w", "y")], {"w": W1}))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    with pytest.raises(ImportPolicyError, match="keeps 'w' in another file, which is not read"):
        load(write(tmp_path, model.SerializeToString()), box())


@pytest.mark.parametrize("dims", [[2**62, 2**62], [-1, 5], [2**31, 2**31, 4], [1] * 70, [5, 3], [0, 5]])
def test_sizes_that_are_not_there_are_refused_before_they_are_allocated(dims: list[int], tmp_path: Path) -> None:
    model = onnx.load_model_from_string(graph([("MatMul", "x w", "y")], {"w": W1[:, :2]}))
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    with pytest.raises(ImportPolicyError):
        load(write(tmp_path, model.SerializeToString()), box())


def test_cycles_and_endless_rows_are_refused(tmp_path: Path) -> None:
    cycle = graph([("Add", "x b", "h"), ("Relu", "r", "q"), ("Relu", "q", "r"), ("Identity", "r", "y")], {"b": B1[:5]})
    with pytest.raises(ImportPolicyError):
        load(write(tmp_path, cycle), box())
    row = [("Relu", "x" if i == 0 else f"t{i}", f"t{i + 1}") for i in range(5000)]
    with pytest.raises(ImportPolicyError, match="has 5000 nodes: more than the 1000"):
        load(write(tmp_path, graph(row, {}, outputs=("t5000",))), box())


def test_files_that_are_too_large_or_missing_or_empty_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(33 * 2**20)
    for name, message in (("large.onnx", "larger than 32 MiB"), ("none.onnx", "No such file"), (".", "Is a directory")):
        with pytest.raises(ImportPolicyError, match=message):
            load(tmp_path / name, box())
    with pytest.raises(ImportPolicyError, match="not an ONNX model"):
        load(write(tmp_path, b""), box())


def test_graphs_within_graphs_and_functions_are_refused(tmp_path: Path) -> None:
    inner = onnx.load_model_from_string(graph([("MatMul", "x w", "y")], {"w": W1}))
    model = onnx.load_model_from_string(graph([("MatMul", "x w", "y")], {"w": W1}))
    model.graph.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner.graph)
    with pytest.raises(ImportPolicyError, match="a graph or sparse tensor of its own"):
        load(write(tmp_path, model.SerializeToString()), box())
    model = onnx.load_model_from_string(graph([("MatMul", "x w", "y")], {"w": W1}))
    model.functions.add(name="f", domain="d")
    with pytest.raises(ImportPolicyError, match="functions or sparse weights"):
        load(write(tmp_path, model.SerializeToString()), box())


@pytest.mark.parametrize("name", ["normalising-script", "scaled-dynamo", "frames-last-script"])
def test_mutated_files_are_policies_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = (DATA / f"onnx/{name}.onnx").read_bytes()
    spec = CAMERA if "frames" in name else box((-2.0, 0.5), (2.0, 1.0))
    refused: list[str] = []
    for _ in range(300):
        data = bytearray(original)
        for _ in range(rng.integers(1, 6)):
            place = rng.integers(len(data)) if rng.random() < 0.3 else rng.integers(min(600, len(data)))
            data[place] = rng.integers(256)
        if rng.random() < 0.2:
            data = data[: rng.integers(len(data))]
        try:
            load(write(tmp_path, bytes(data)), spec)
        except ImportPolicyError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 300
    for sentence in refused:
        assert sentence.isprintable()
        assert len(sentence) < 1000
