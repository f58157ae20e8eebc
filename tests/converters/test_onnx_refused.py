"""ONNX files that are not taken: what Keras' layers cannot represent, and what is damaged or hostile."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import DATA
from onnx import TensorProto
from onnx_graphs import box, graph, weights, write

from converters.sources import ImportPolicyError, onnx_file
from converters.sources.onnx import load
from converters.sources.spec import policy_spec

W1, B1 = weights(5, 7), weights(7)
CAMERA = policy_spec((36, 36, 4), 6, discrete=True, frames=True)
TO_TWO = {"w": W1[:, :2], "k": np.float32(0.5), "low": np.float32(-0.5), "high": np.float32(0.25)}

REFUSED = {
    "operator": ([("MatMul", "x w", "h"), ("Softplus", "h", "y")], TO_TWO,
                 r"Softplus \(node 1, fed by 'h'\) is not supported. Supported are Add, ArgMax"),
    "branch": ([("MatMul", "x w", "h"), ("Tanh", "h", "t"), ("Add", "h t", "y")], TO_TWO,
               r"Add \(node 2, fed by 't'\) reads 'h', which is not what the step before"),
    "two computed": ([("MatMul", "x w", "h"), ("Mul", "h h", "y")], TO_TWO,
                     r"Mul \(node 1, fed by 'h'\) joins two computed tensors"),
    "clip in the middle": ([("MatMul", "x w", "h"), ("Clip", "h low high", "t"), ("Tanh", "t", "y")], TO_TWO,
                           r"Clip \(node 1, fed by 'h'\) .*between layers only a clip at 0"),
    "hidden clip": ([("MatMul", "x w", "h"), ("Clip", "h low high", "t"), ("MatMul", "t v", "y")],
                    {**TO_TWO, "v": weights(2, 2)},
                    r"Clip \(node 1, fed by 'h'\) .*between layers only a clip at 0, which is Relu, can be"),
    "other clip": ([("MatMul", "x w", "h"), ("Clip", "h low high", "y")], TO_TWO,
                   r"Clip \(node 1, fed by 'h'\) clips actions to other bounds than the environment's"),
    "lopsided clip in front": ([("Clip", "x low high", "t"), ("MatMul", "t w", "y")], TO_TWO, "cannot be represented"),
    "empty clip": ([("MatMul", "x w", "h"), ("Clip", "h high low", "y")], TO_TWO, "leaves nothing"),
    "constant divided": ([("MatMul", "x w", "h"), ("Div", "k h", "y")], TO_TWO, "divides by a computed tensor"),
    "elementwise alone": ([("Tanh", "x", "h"), ("Mul", "h k", "t"), ("Tanh", "t", "u"), ("MatMul", "u w", "y")], TO_TWO,
                          "elementwise constants that no Gemm"),
    "nothing learnt": ([("Tanh", "x", "y")], {}, "5 values; the spec has 2"),
    "unclear tanh": (
        [("MatMul", "x w", "h"), ("Tanh", "h", "t"), ("Clip", "t minus plus", "y")],
        {"w": W1[:, :2], "minus": np.float32(-1), "plus": np.float32(1)},
        "ends in Tanh",
    ),
    "text": ([("MatMul", "x w", "y")], {"w": np.full((5, 2), "x", object)}, "has weights of object"),
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
        load(path, box(-2.0, 2.0))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("MatMul", "x w", "h"), ("Sigmoid", "h", "s"), ("Mul", "h s", "y")],
         r"Mul \(node 2, fed by 's'\) .*an activation such as SiLU or GELU.* Relu, Tanh and Sigmoid are"),
        ([("MatMul", "x w", "h"), ("Div", "h k", "d"), ("Erf", "d", "e"), ("Add", "e k", "a"), ("Mul", "h a", "y")],
         r"Erf \(node 2, fed by 'd'\) is not supported: it is part of an activation such as GELU"),
        ([("MatMul", "x w", "h"), ("ReduceMean", "h", "m"), ("Sub", "h m", "d"), ("Tanh", "d", "y")],
         r"ReduceMean \(node 1, fed by 'h'\) is not supported. Supported are Add"),
    ],
)  # fmt: skip
def test_an_operator_that_is_not_supported_is_named_although_it_stands_in_a_branch(
    nodes: list, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ImportPolicyError, match=message):
        load(write(tmp_path, graph(nodes, TO_TWO)), box(-2.0, 2.0))


def test_an_operator_that_the_output_does_not_need_may_be_any(tmp_path: Path) -> None:
    nodes = [("MatMul", "x w", "y"), ("Softplus", "y", "std")]
    load(write(tmp_path, graph(nodes, TO_TWO, outputs=("y", "std"))), box(None, None), output="y")


def test_weights_that_are_used_again_and_again_are_counted_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    square = {"w": weights(6, 6), "v": weights(5, 6), "i": np.ones((5, 6), np.int8)}
    again = [("MatMul", "x v", "h0"), *(("MatMul", f"h{i} w", f"h{i + 1}") for i in range(4))]
    path = write(tmp_path, graph(again, square, outputs=("h4",)))
    casts = [("Cast", f"c{i}" if i else "i", f"c{i + 1}", {"to": TensorProto.DOUBLE}) for i in range(4)]
    cast = tmp_path / "cast.onnx"
    cast.write_bytes(graph([*casts, ("MatMul", "x c4", "y")], square))
    for name, elements in ((path, 30 + 4 * 36), (cast, 4 * 30 + 30)):
        monkeypatch.setattr(onnx_file, "MAX_ELEMENTS", elements)
        load(name, box(None, None, actions=6))
        monkeypatch.setattr(onnx_file, "MAX_ELEMENTS", elements - 1)
        with pytest.raises(ImportPolicyError, match="more constants than the"):
            load(name, box(None, None, actions=6))


CONVOLUTIONS = {
    "groups": ({"group": 2}, weights(2, 1, 3, 3), "groups or dilations"),
    "dilations": ({"dilations": [2, 2]}, weights(2, 2, 3, 3), "groups or dilations"),
    "one-sided pads": (
        {"pads": [2, 0, 0, 0]},
        weights(2, 2, 3, 3),
        r"pads by \[2, 0, 0, 0\].*Export it without padding, or with .*explicit",
    ),
    "huge pads": ({"pads": [2**40] * 4}, weights(2, 2, 3, 3), "pads by"),
    "huge strides": ({"strides": [2**60, 1]}, weights(2, 2, 3, 3), "has strides of"),
    "too large": ({}, weights(2, 2, 13, 3), r"a kernel of \(13, 3\) for an image of \(12, 12\)"),
    "filters beyond reason": ({}, weights(200_000, 2, 1, 1), "gives 28800000 values: refused"),
    "integers": ({}, np.ones((2, 2, 3, 3), np.int8), "has weights of int8"),
    "channels": ({}, weights(2, 3, 3, 3), r"a kernel of \(2, 3, 3, 3\) on 2 channels"),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions_that_keras_lacks_are_refused(case: str, tmp_path: Path) -> None:
    attributes, kernel, message = CONVOLUTIONS[case]
    nodes = [("Div", "x c", "d"), ("Conv", "d k", "h", attributes), ("Flatten", "h", "y")]
    data = graph(nodes, {"k": kernel, "c": np.float32(255)}, inputs=(1, 2, 12, 12))
    with pytest.raises(ImportPolicyError, match=message):
        load(write(tmp_path, data), policy_spec((12, 12, 2), 3, discrete=True, frames=True))


def test_a_shift_before_padding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    nodes = [("Div", "x c", "d"), ("Sub", "d k", "s"), ("Conv", "s v", "h", {"pads": [1, 1, 1, 1]}),
             ("Flatten", "h", "y")]  # fmt: skip
    constants = {"c": np.float32(255), "k": np.float32(0.5), "v": weights(1, 2, 3, 3)}
    path = write(tmp_path, graph(nodes, constants, inputs=(1, 2, 12, 12)))
    with pytest.raises(ImportPolicyError, match=r"pads with zeros what was shifted before.*Export it without padding"):
        load(path, policy_spec((12, 12, 2), 144, discrete=True, frames=True))


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


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportPolicyError, match=r"pip install 'tfqrl\[onnx\]'"):
        load(DATA / "onnx/tanh-script.onnx", box())


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
