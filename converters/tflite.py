"""From a graph to a flatbuffer, and from a float flatbuffer to an integer one.

TensorFlow's converter writes the float32 model. Everything with fewer bits is made from that by ai-edge-quantizer,
because it quantises op by op: the network becomes integer while normalisation and action scaling, which need the
range that 8 bits lack, stay in float around it. (TensorFlow's own full-integer conversion would put one scale over
all observations before they are normalised, and the small ones would vanish.)
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import quantizer, recipe_manager
from ai_edge_quantizer.recipe import TFLOperationName

from converters.export import DeployedPolicy
from converters.recipe import Recipe
from edge.artifact import Layer

# The network itself: these ops run on integers, and what surrounds them stays in float.
INTEGER_OPS = (TFLOperationName.FULLY_CONNECTED, TFLOperationName.TANH)

# Beyond this an 8-bit tanh, whose step is 1/128, is at most one step from 1: integer steps spent there are wasted.
TANH_INPUT_LIMIT = 3.0

_BITS = {schema.TensorType.FLOAT32: 32, schema.TensorType.INT8: 8}


def to_float32(policy: DeployedPolicy) -> bytes:
    """The policy as a float32 flatbuffer that takes one observation at a time."""
    function = policy.concrete_function(batch=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], policy).convert())


def quantise(flatbuffer: bytes, recipe: Recipe, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """An integer flatbuffer from a float one.

    Args:
      flatbuffer: what `to_float32` gave.
      recipe: bits of weights and activations.
      ranges: lowest and highest value of each activation tensor, by name (see `converters.calibration`).
    """
    recipes = recipe_manager.RecipeManager()
    for operation in INTEGER_OPS:
        recipes.add_static_config(
            regex=".*",
            operation_name=operation,
            activation_num_bits=8,
            weight_num_bits=recipe.weight_bits,
        )
    task = quantizer.Quantizer(bytearray(flatbuffer))
    task.load_quantization_recipe(recipes.get_quantization_recipe())
    model = _model(flatbuffer)
    into_tanh = {model.subgraphs[0].tensors[o.inputs[0]].name for o in _operators(model, schema.BuiltinOperator.TANH)}
    calibration = {}
    for name, (low, high) in ranges.items():
        if name.encode() in into_tanh:
            low, high = max(low, -TANH_INPUT_LIMIT), min(high, TANH_INPUT_LIMIT)
        calibration[name] = {"min": np.full((1, 1), low, np.float32), "max": np.full((1, 1), high, np.float32)}
    # The library reports its progress to the terminal, which is ours to write to, and warns of an interpreter option.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = task.quantize(calibration, enable_progress_report=False)
    return bytes(result.quantized_model)


def layers(flatbuffer: bytes) -> tuple[Layer, ...]:
    """Every weight matrix in a flatbuffer, as it lies there."""
    model = _model(flatbuffer)
    graph = model.subgraphs[0]
    found = []
    for operator in _operators(model, schema.BuiltinOperator.FULLY_CONNECTED):
        tensor = graph.tensors[operator.inputs[1]]
        weights = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
        bits = _BITS[tensor.type]
        zero = weights == 0 if bits == 8 else weights.view(np.float32) == 0
        found.append(Layer(tensor.name.decode(), tuple(map(int, tensor.shape)), bits, float(zero.mean())))
    return tuple(found)


def output_step(flatbuffer: bytes) -> float | None:
    """The step of the grid on which an integer network gives its output; None for a float model."""
    model = _model(flatbuffer)
    graph = model.subgraphs[0]
    output = graph.tensors[graph.outputs[0]]
    if output.type in (schema.TensorType.INT8, schema.TensorType.UINT8):
        return float(output.quantization.scale[0])
    steps = [
        float(graph.tensors[operator.inputs[0]].quantization.scale[0])
        for operator in _operators(model, schema.BuiltinOperator.DEQUANTIZE)
    ]
    return steps[-1] if steps else None


def _model(flatbuffer: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))


def _operators(model: schema.ModelT, code: int) -> list[schema.OperatorT]:
    return [o for o in model.subgraphs[0].operators if model.operatorCodes[o.opcodeIndex].builtinCode == code]
