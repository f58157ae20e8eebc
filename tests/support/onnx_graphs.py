"""ONNX graphs made by hand, and the specs that go with them."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from converters.sources.spec import policy_spec
from edge.artifact import PolicySpec


def box(low: Any = -1.0, high: Any = 1.0, actions: int = 2, observations: int = 5) -> PolicySpec:
    return policy_spec((observations,), actions, low=low, high=high)


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
