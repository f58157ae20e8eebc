"""The static check, on models of our own, of TensorFlow's converter, and made by hand."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert import schema_py_generated as schema
from fakes import DATA
from flatbuffers_by_hand import one_operation, pack, unpack

from converters.edgetpu import StaticReport, check
from converters.edgetpu_rules import RULES
from edge import artifact
from edge.records import from_plain, to_json

I8 = np.int8
WEIGHTS = np.ones((4, 8), I8)
BIAS = np.zeros(4, np.int32)
KERNEL = np.ones((4, 3, 3, 2), I8)
CONV = ("Conv2DOptions", {"dilationHFactor": 1, "dilationWFactor": 1})
MEAN = ("ReducerOptions", {"keepDims": True})


def axes(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def checked(name: str) -> StaticReport:
    return check(artifact.read(DATA / name).flatbuffer)


def where(report: StaticReport) -> list[tuple[str, str]]:
    return [(line.operation, line.runs_on) for line in report.operations]


def converted(network: keras.Model, *, batch: int | None = 1, per_channel: bool = False) -> bytes:
    """What TensorFlow's own full-integer conversion makes of a network."""
    shape = network.input_shape[1:]
    function = tf.function(network).get_concrete_function(tf.TensorSpec((batch, *shape), tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    rng = np.random.default_rng(0)
    converter.representative_dataset = lambda: ([rng.normal(size=(1, *shape)).astype(np.float32)] for _ in range(8))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel
    return converter.convert()


@pytest.mark.parametrize("name", ["arm-int8-full.tflite", "lever-int8-full.tflite"])
def test_a_policy_that_is_integer_throughout_runs_on_the_edge_tpu(name: str) -> None:
    report = checked(name)
    assert where(report) == list(zip(["FULLY_CONNECTED", "TANH"] * 2 + ["FULLY_CONNECTED"], ["TPU"] * 5))
    assert (report.tpu, report.may_map, report.cpu) == (5, 0, 0)
    assert [line.reason for line in report.operations] == [""] * 5
    outputs = 2 if name.startswith("arm") else 1
    # The lever's normaliser, which the conversion made, is undone in the first bias.
    assert report.parameter_bytes == 3 * 8 + 8 * 8 + 8 * outputs + (0 if name.startswith("arm") else 8 * 4)
    assert report.fits_cache


def test_what_is_float_before_and_behind_the_network_runs_on_the_processor() -> None:
    report = checked("arm-int8.tflite")
    assert [name for name, on in where(report) if on == "TPU"] == ["FULLY_CONNECTED", "TANH"] * 2 + ["FULLY_CONNECTED"]
    reasons = {line.operation: line.reason for line in report.operations}
    assert reasons["QUANTIZE"] == "it works on float32, not int8 or uint8"
    assert reasons["DEQUANTIZE"] == "the Edge TPU has no such operation"
    assert reasons["ADD"] == "it works on float32, not int8 or uint8"


def test_the_choice_of_a_discrete_policy_is_made_on_the_processor() -> None:
    *_, last, argmax = checked("switch-int8-full.tflite").operations
    assert (last.runs_on, argmax.operation, argmax.runs_on) == ("TPU", "ARG_MAX", "CPU")
    assert argmax.reason == "the Edge TPU has no such operation"


def test_nothing_of_a_float_policy_runs_on_the_edge_tpu() -> None:
    report = checked("arm-float32.tflite")
    assert {on for _, on in where(report)} == {"CPU"}
    assert report.parameter_bytes == 0


def test_a_cnn_maps_up_to_its_reshape_and_may_map_from_there() -> None:
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((16, 16, 4)),
            layers.Conv2D(8, 4, 2, activation="relu"),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(8, activation="tanh"),
            layers.Dense(2),
        ]
    )
    report = check(converted(network))
    assert where(report) == [
        ("CONV_2D", "TPU"),
        ("CONV_2D", "TPU"),
        ("RESHAPE", "may map"),
        ("FULLY_CONNECTED", "may map"),
        ("TANH", "may map"),
        ("FULLY_CONNECTED", "may map"),
    ]
    assert "large ones" in report.operations[2].reason
    assert all(line.reason.startswith("it follows RESHAPE ") for line in report.operations[3:])


def test_weights_with_a_scale_per_output_may_map() -> None:
    network = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    assert where(check(converted(network))) == [("FULLY_CONNECTED", "TPU")] * 2
    first, second = check(converted(network, per_channel=True)).operations
    assert (first.runs_on, second.runs_on) == ("may map", "may map")
    assert "a scale per output" in first.reason


def test_a_batch_of_any_size_is_refused() -> None:
    network = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(2)])
    (line,) = check(converted(network, batch=None)).operations
    assert (line.runs_on, line.reason) == ("CPU", "it has a dynamic shape")


def test_nothing_runs_on_the_edge_tpu_of_a_model_that_the_compiler_refuses() -> None:
    layers = keras.layers
    network = keras.Sequential([layers.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.Conv2D(4, 3)])
    model = unpack(converted(network))
    code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
    assert check(pack(model)).tpu == 2
    code.version = 6
    report = check(pack(model))
    assert report.refused is not None
    assert report.refused.endswith("its version is 6; the compiler knows up to 5")
    assert (report.tpu, report.may_map, report.cpu, report.parameter_bytes) == (0, 0, 2, 0)


def test_what_follows_an_operation_on_the_processor_stays_there() -> None:
    # The second of three layers gets an activation that the Edge TPU does not have.
    model = unpack(artifact.read(DATA / "arm-int8-full.tflite").flatbuffer)
    model.operatorCodes.append(
        schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.ELU, deprecatedBuiltinCode=schema.BuiltinOperator.ELU)
    )
    model.subgraphs[0].operators[1].opcodeIndex = len(model.operatorCodes) - 1
    report = check(pack(model))
    assert where(report) == list(
        zip(["FULLY_CONNECTED", "ELU", "FULLY_CONNECTED", "TANH", "FULLY_CONNECTED"], ["TPU", *["CPU"] * 4])
    )
    assert report.operations[2].reason.startswith("it follows ELU mlp/hidden_0/Tanh, and only one piece")
    assert report.operations[4].reason == report.operations[2].reason
    assert report.parameter_bytes == 3 * 8, "what runs on the processor needs no room on the chip"


@pytest.mark.parametrize(("columns", "fits"), [(8192, True), (8193, False)])
def test_parameters_that_exceed_the_chips_memory_are_seen(columns: int, fits: bool) -> None:
    weights = np.ones((1024, columns), I8)
    report = check(one_operation("FULLY_CONNECTED", [(1, columns), weights], (1, 1024), ("FullyConnectedOptions", {})))
    assert report.parameter_bytes == weights.size
    assert report.cache_bytes == 8 * 2**20
    assert (report.fits_cache, report.tpu) == (fits, 1)


@pytest.mark.parametrize(
    ("flatbuffer", "verdict", "reason"),
    [
        (one_operation("ABS", [(1, 8)], (1, 8)), "CPU", "no such operation"),
        (one_operation("TANH", [(1, 8)], (1, 8), dtype=np.int16), "CPU", "it works on int16"),
        (one_operation("TANH", [(-1, 8)], (-1, 8)), "CPU", "dynamic shape"),
        (one_operation("TANH", [(5, 4, 3)], (5, 4, 3)), "TPU", ""),
        (one_operation("TANH", [(1, 1, 5, 4, 3)], (1, 1, 5, 4, 3)), "TPU", ""),
        (one_operation("TANH", [(2, 5, 4, 3)], (2, 5, 4, 3)), "CPU", "it works on 2x5x4x3; only the 3 innermost"),
        (one_operation("FULLY_CONNECTED", [(1, 8), WEIGHTS, BIAS], (1, 4), ("FullyConnectedOptions", {})), "TPU", ""),
        (one_operation("FULLY_CONNECTED", [(1, 8), (4, 8)], (1, 4), ("FullyConnectedOptions", {})),
         "CPU", "weights or biases are not constant"),
        (one_operation("FULLY_CONNECTED", [(1, 8), WEIGHTS.astype(np.float32)], (1, 4), ("FullyConnectedOptions", {})),
         "CPU", "weights or biases are float32"),
        (one_operation("FULLY_CONNECTED", [(3, 8), WEIGHTS], (3, 4), ("FullyConnectedOptions", {})),
         "CPU", "more than one dimension"),
        (one_operation("FULLY_CONNECTED", [(1, 8), WEIGHTS], (1, 4), ("FullyConnectedOptions", {"weightsFormat": 1})),
         "CPU", "default format"),
        (one_operation("CONV_2D", [(1, 9, 9, 2), KERNEL, BIAS], (1, 7, 7, 4), CONV, scales=4, version=3), "TPU", ""),
        (one_operation("CONV_2D", [(1, 9, 9, 2), KERNEL, BIAS], (1, 7, 7, 4), CONV, version=6),
         "CPU", "its version is 6; the compiler knows up to 5"),
        (one_operation("CONV_2D", [(1, 9, 9, 2), KERNEL, BIAS], (1, 7, 5, 4),
                       ("Conv2DOptions", {"dilationHFactor": 1, "dilationWFactor": 2})), "CPU", "dilations differ"),
        (one_operation("MAX_POOL_2D", [(1, 8, 8, 2)], (1, 4, 4, 2), ("Pool2DOptions", {"fusedActivationFunction": 1})),
         "CPU", "fused activation"),
        (one_operation("MEAN", [(1, 8, 8, 6), axes(1, 2)], (1, 1, 1, 6), MEAN), "TPU", ""),
        (one_operation("MEAN", [(1, 8, 8, 6), axes(-1)], (1, 8, 8, 1), MEAN), "CPU", "not a multiple of 4"),
        (one_operation("MEAN", [(1, 8, 8, 6), axes(0)], (1, 8, 8, 6), MEAN), "CPU", "reduces the batch"),
        (one_operation("MEAN", [(1, 8, 8, 6), (1,)], (1, 8, 8, 6), MEAN), "CPU", "not constant"),
        (one_operation("MEAN", [(1, 8, 8, 6), np.array([1])], (1, 8, 8, 6), MEAN), "CPU", "int64, not int32"),
        (one_operation("PAD", [(1, 8), np.array([[0, 1], [0, 0]], np.int32)], (2, 8)), "CPU", "pads the batch"),
        (one_operation("PAD", [(1, 8), np.array([[0, 0], [1, 1]], np.int32)], (1, 10)), "TPU", ""),
        (one_operation("PACK", [(1, 8), (1, 8)], (2, 1, 8), ("PackOptions", {"axis": 0})), "CPU", "along the batch"),
        (one_operation("PACK", [(1, 8), (1, 8)], (1, 8, 2), ("PackOptions", {"axis": -1})), "TPU", ""),
        (one_operation("CONCATENATION", [(1, 8), np.ones((1, 2), I8)], (1, 10), ("ConcatenationOptions", {})),
         "CPU", "not all zeros"),
        (one_operation("CONCATENATION", [(1, 8), np.zeros((1, 2), I8)], (1, 10), ("ConcatenationOptions", {})),
         "TPU", ""),
        (one_operation("PRELU", [(1, 4, 8), np.ones((4, 8), I8)], (1, 4, 8)), "CPU", "alpha"),
        (one_operation("SOFTMAX", [(1, 16_000)], (1, 16_000)), "TPU", ""),
        (one_operation("SOFTMAX", [(1, 16_001)], (1, 16_001)), "CPU", "16001 elements"),
        (one_operation("SOFTMAX", [(2, 8)], (2, 8)), "CPU", "more than one dimension"),
        (one_operation("SQUEEZE", [(1, 1, 8)], (8,)), "TPU", ""),
        (one_operation("SQUEEZE", [(8, 1)], (8,)), "CPU", "leading"),
        (one_operation("STRIDED_SLICE", [(1, 8), axes(0, 0), axes(1, 8), axes(1, 2)], (1, 4),
                       ("StridedSliceOptions", {})), "CPU", "strides other than 1"),
        (one_operation("STRIDED_SLICE", [(1, 8), axes(0, 0), axes(1, 4), axes(1, 1)], (1, 4),
                       ("StridedSliceOptions", {})), "TPU", ""),
        (one_operation("TRANSPOSE", [(3, 8), axes(1, 0)], (8, 3)), "may map", "leaves some out"),
        (one_operation("SUM", [(1, 8), axes(1)], (1,), MEAN), "may map", "no table"),
        (one_operation("RESIZE_BILINEAR", [(1, 8, 8, 2), axes(16, 16)], (1, 16, 16, 2)), "may map", "precision"),
    ],
)  # fmt: skip
def test_each_limit_is_seen(flatbuffer: bytes, verdict: str, reason: str) -> None:
    (line,) = check(flatbuffer).operations
    assert line.runs_on == verdict
    assert reason in line.reason
    assert bool(line.reason) == bool(reason)


def test_the_table_names_operations_of_the_schema() -> None:
    assert set(RULES) <= set(vars(schema.BuiltinOperator))


def test_the_report_survives_json() -> None:
    report = checked("switch-int8.tflite")
    assert from_plain(StaticReport, json.loads(to_json(report)), "report") == report
