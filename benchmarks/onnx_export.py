"""The same network as ONNX, float and int8, for the peers that run it in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import tf_keras as keras
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

from edge.artifact import FloatArray


def to_onnx(network: keras.Model) -> bytes:
    """An MLP of dense layers as an ONNX model with the input `observation`, (1, n) float32."""
    nodes, weights, name = [], [], "observation"
    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    for i, layer in enumerate(layers):
        kernel, bias = layer.get_weights()
        weights += [numpy_helper.from_array(kernel, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
        nodes += [
            helper.make_node("MatMul", [name, f"w{i}"], [f"m{i}"]),
            helper.make_node("Add", [f"m{i}", f"b{i}"], [f"a{i}"]),
        ]
        name = f"a{i}"
        activation = layer.activation.__name__
        if activation != "linear":
            nodes.append(helper.make_node({"relu": "Relu", "tanh": "Tanh"}[activation], [name], [f"h{i}"]))
            name = f"h{i}"
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, [1, network.input_shape[1]])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, network.output_shape[1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Observations(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, observations: FloatArray) -> None:
        self._feeds = iter([{"observation": observation[np.newaxis]} for observation in observations])

    def get_next(self) -> dict[str, FloatArray] | None:
        return next(self._feeds, None)


def to_int8(float_file: Path, int8_file: Path, observations: FloatArray) -> None:
    """Onnxruntime's own static quantisation, weights and activations, calibrated on float32 observations (n, size)."""
    quantization.quantize_static(
        float_file,
        int8_file,
        _Observations(observations),
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QInt8,
    )
