"""Policies from ONNX: against onnxruntime, for files that torch exported (tests/data/onnx) and graphs made by hand."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from fakes import DATA
from onnx import TensorProto
from onnx_graphs import box, graph, weights, write

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
