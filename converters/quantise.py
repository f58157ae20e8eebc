"""From a float flatbuffer to one with fewer bits, operator by operator.

The network becomes integer; what surrounds it (normalisation before, action scaling after) stays in float, because it
needs the range that 8 bits lack. A value r is stored as the integer q with r = scale * (q - zero_point).

Sources: the TFLite 8-bit quantisation specification, https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
(zero points of weights are 0, -128 is not a weight, biases are 32-bit at the product of the scales), and of the
kernels, what each demands (tanh and sigmoid have outputs of fixed scale).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.flatbuffer import WITH_WEIGHTS, Graph, Operators, Types, pack
from converters.recipe import Recipe
from converters.weights import Grid, GridError, nearest_grid
from edge.artifact import FloatArray
from edge.errors import UnknownNameError, UserError

Range = tuple[float, float]

# These go on in integers where what they read is integer, by the bits of activations.
FOLLOWING = {
    8: (
        Operators.TANH,
        Operators.LOGISTIC,
        Operators.RELU,
        Operators.RELU6,
        Operators.RELU_N1_TO_1,
        Operators.RESHAPE,
        Operators.ARG_MAX,
    ),
    16: (Operators.TANH, Operators.LOGISTIC, Operators.RELU, Operators.RESHAPE),
}

# Beyond this an 8-bit tanh, whose step is 1/128, is at most one step from 1: integer steps spent there are wasted.
TANH_INPUT_LIMIT = 3.0

_TYPES = {8: Types.INT8, 4: Types.INT4, 2: Types.INT2}

_PER_BYTE = np.float32(1 / 255)

# A bias is a 32-bit integer, to which a layer's products are added.
_MAX_BIAS_STEPS = 2.0**30


class UnsupportedOperationError(UserError):
    """A graph with an operation that cannot be integer."""


@dataclass(frozen=True)
class Scale:
    """How real values are stored as integers.

    Attributes:
      scale: the real size of a step.
      zero_point: the integer that means 0.
    """

    scale: float
    zero_point: int


def quantise(
    flatbuffer: bytes, recipe: Recipe, ranges: Mapping[str, Range], grids: Mapping[str, Grid]
) -> tuple[bytes, tuple[str, ...]]:
    """A flatbuffer as the recipe says, from a float32 one; and notes for the manifest.

    Args:
      flatbuffer: what `converters.tflite.to_float32` gave.
      recipe: bits of weights and activations.
      ranges: lowest and highest value of each activation, by tensor name (see `converters.calibration`); read only if
        the recipe is calibrated.
      grids: the kernels of layers that were trained on a grid, by layer name. Their integers are written as they are,
        packed at their own bits where the recipe packs weights.

    Raises:
      UnsupportedOperationError: all is to be integer, and some operation cannot be; it is named, with its layer.
      UnknownNameError: the recipe keeps a layer in float, or a grid is for one, that does not exist.
      GridError: a grid is not the kernel of its layer.
    """
    graph, notes = Graph(flatbuffer), ()
    weighted = [o for o in graph.operators if graph.code(o) in WITH_WEIGHTS and graph.is_constant(o.inputs[1])]
    layers = {layer_of(graph, operator) for operator in weighted}
    for name in (*recipe.float_layers, *grids):
        if name not in layers:
            raise UnknownNameError("layer with weights", name, layers)
    if recipe.weight_bits == 16:
        for operator in weighted:
            _store_as_float16(graph, operator)
    elif recipe.activations == "dynamic-int8":
        for operator in weighted:
            if layer_of(graph, operator) not in recipe.float_layers:
                _quantise_weights(graph, operator, recipe, grids, None)
    elif recipe.calibrated:
        notes = _quantise_statically(graph, recipe, ranges, grids)
    return graph.to_bytes(), notes


def layer_of(graph: Graph, operator: schema.OperatorT) -> str:
    """The Keras layer that an operator came from: in the name of its weights, network/layer/operation, or output's.

    Where the converter has put several operations into one, the tensor has all their names.
    """
    weighted = graph.code(operator) in WITH_WEIGHTS
    names = graph.name(operator.inputs[1] if weighted else operator.outputs[0]).split(";")
    paths = [name.split("/") for name in names if not weighted or "/MatMul" in name or "/Conv2D" in name]
    path = paths[0] if paths else names[0].split("/")
    before = graph.producer(int(operator.inputs[0]))
    if len(path) == 1 and before is not None and not weighted:
        # The graph's output is called after the signature.
        return layer_of(graph, before)
    if weighted or len(path) < 3:
        return path[-2] if len(path) > 1 else path[0]
    return path[1]


def activation_scale(low: float, high: float, bits: int) -> Scale:
    """The scale of an activation that lies in [low, high]; zero always has an integer of its own.

    8 bits are asymmetric, -128..127; 16 bits symmetric, -32767..32767, because their kernels know no zero point.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        return Scale(max(-low, high, 1e-6) / 32767, 0)
    scale = max(high - low, 1e-6) / 255
    return Scale(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def _quantise_statically(
    graph: Graph, recipe: Recipe, ranges: Mapping[str, Range], grids: Mapping[str, Grid]
) -> tuple[str, ...]:
    bits = 16 if recipe.activations == "int16" else 8
    kind = Types.INT16 if bits == 16 else Types.INT8
    scales: dict[int, Scale] = {}
    inside: list[schema.OperatorT] = []
    for operator in graph.operators:
        reads, writes, code = int(operator.inputs[0]), int(operator.outputs[0]), graph.code(operator)
        weighted = code in WITH_WEIGHTS and graph.is_constant(operator.inputs[1])
        # With integer input, frames or matrices may be flattened before the first layer.
        flattens = code == Operators.RESHAPE and recipe.integer_io and reads in graph.inputs
        follows = flattens or (code in FOLLOWING[bits] and reads in scales)
        if not (weighted or follows) or layer_of(graph, operator) in recipe.float_layers:
            if recipe.integer_io:
                raise UnsupportedOperationError(
                    f"{graph.operation(operator)} of the layer {layer_of(graph, operator)} has no integer kernel here, "
                    f"and {recipe.name} leaves nothing in float. Convert with int8, which leaves it in float."
                )
            continue
        inside.append(operator)
        if reads not in scales:
            scales[reads] = activation_scale(*ranges[graph.name(reads)], bits)
        if code != Operators.ARG_MAX:
            scales[writes] = _output_scale(graph, operator, ranges, scales[reads], bits)
    within = graph.operators[graph.operators.index(inside[0]) : graph.operators.index(inside[-1])] if inside else []
    left = [f"{graph.operation(o)} of {layer_of(graph, o)}" for o in within if o not in inside]
    for operator in inside:
        code = graph.code(operator)
        if code in WITH_WEIGHTS:
            read, written = scales[int(operator.inputs[0])], scales[int(operator.outputs[0])]
            _quantise_weights(graph, operator, recipe, grids, (read, written))
        else:
            graph.set_version(operator, code, _FOLLOWING_VERSIONS.get((code, bits), 1))
    _enter_and_leave(graph, inside, scales, kind, integer_io=recipe.integer_io)
    return (f"Left in float between integer layers: {', '.join(left)}.",) if left else ()


# The first version of each kernel that computes right, by its operands and the bits of its weights. Where TensorFlow's
# op_version.cc asks for less, tflite-runtime 2.14 was tried and found to load the model and err.
_VERSIONS = {
    (Operators.FULLY_CONNECTED, "float32", 8): 9,
    (Operators.FULLY_CONNECTED, "float32", 4): 12,
    (Operators.FULLY_CONNECTED, "float32", 2): 14,
    (Operators.FULLY_CONNECTED, "int8", 8): 4,
    (Operators.FULLY_CONNECTED, "int16", 8): 7,
    (Operators.CONV_2D, "float32", 8): 5,
    (Operators.CONV_2D, "float32", 4): 8,
    (Operators.CONV_2D, "int8", 8): 3,
    (Operators.CONV_2D, "int16", 8): 4,
}
# The same of those without weights, by the bits of their operands; 1 for the others.
_FOLLOWING_VERSIONS = {
    (Operators.TANH, 8): 2,
    (Operators.LOGISTIC, 8): 2,
    (Operators.RELU, 8): 2,
    (Operators.RELU6, 8): 2,
    (Operators.ARG_MAX, 8): 2,
    (Operators.TANH, 16): 3,
    (Operators.LOGISTIC, 16): 3,
    (Operators.RELU, 16): 3,
}


def _output_scale(
    graph: Graph, operator: schema.OperatorT, ranges: Mapping[str, Range], read: Scale, bits: int
) -> Scale:
    code, index = graph.code(operator), int(operator.outputs[0])
    if code == Operators.RESHAPE:
        return read
    if code == Operators.TANH:
        return Scale(1 / 128 if bits == 8 else 1 / 32768, 0)
    if code == Operators.LOGISTIC:
        return Scale(1 / 256, -128) if bits == 8 else Scale(1 / 32768, 0)
    fused = code in WITH_WEIGHTS and _fused(operator) == schema.ActivationFunctionType.RELU_N1_TO_1
    if fused or code == Operators.RELU_N1_TO_1:
        # An action within its bounds: the ends are steps, and so is the middle.
        return Scale(1 / 127 if bits == 8 else 1 / 32767, 0)
    low, high = ranges[graph.name(index)]
    if any(graph.code(consumer) == Operators.TANH for consumer in graph.consumers(index)) and bits == 8:
        low, high = max(low, -TANH_INPUT_LIMIT), min(high, TANH_INPUT_LIMIT)
    return activation_scale(low, high, bits)


def _fused(operator: schema.OperatorT) -> int:
    return int(operator.builtinOptions.fusedActivationFunction)


def _quantise_weights(
    graph: Graph,
    operator: schema.OperatorT,
    recipe: Recipe,
    grids: Mapping[str, Grid],
    activations: tuple[Scale, Scale] | None,
) -> None:
    """Make a layer's kernel integer and, if the activations that it reads and writes are too, its bias."""
    layer, dense = layer_of(graph, operator), graph.code(operator) == Operators.FULLY_CONNECTED
    # TFLite has outputs first: (outputs, inputs), (outputs, height, width, inputs); Keras has them last.
    kernel = np.moveaxis(graph.constant(operator.inputs[1]), 0, -1)
    bias_index = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
    bias = graph.constant(bias_index) if bias_index >= 0 else np.zeros(kernel.shape[-1], np.float32)
    if layer in grids:
        grid = grids[layer]
        if grid.integers.shape == kernel.shape and (grid.weights * _PER_BYTE == kernel).all():
            # The converter multiplied the first kernel by 1/255, rather than each frame.
            grid = dataclasses.replace(grid, scale=grid.scale * _PER_BYTE)
        elif grid.integers.shape != kernel.shape or (grid.weights != kernel).any():
            raise GridError(
                f"The grid that was given for the layer {layer} is not the grid of its kernel. (A normaliser without a "
                "clip is multiplied into the first kernel: give it one.)"
            )
    else:
        grid = nearest_grid(kernel, recipe.weight_bits, per_channel=recipe.per_channel)
        if activations is not None:
            grid = _fitted(grid, kernel, bias, *activations)
    if grid.scale.ndim and not recipe.per_channel:
        raise GridError(
            f"The grid of the layer {layer} has a scale for each output, and this recipe one for a layer. Convert with "
            "one scale an output: int8 without --per-tensor, for one."
        )
    bits = grid.bits if recipe.weight_bits < 8 else 8
    if not dense:
        # LiteRT 2.3 has 2-bit convolutions, whose results are wrong (tests/converters/test_quantise.py).
        bits = max(bits, 4)
    scale = np.atleast_1d(grid.scale)
    name = graph.name(operator.inputs[1])
    operator.inputs = np.array(operator.inputs, np.int32)
    operator.inputs[1] = graph.add_tensor(
        name,
        np.moveaxis(grid.integers, -1, 0).shape,
        _TYPES[bits],
        data=pack(np.ascontiguousarray(np.moveaxis(grid.integers, -1, 0)), bits),
        quantization=_parameters(scale, 0),
    )
    if activations is not None and bias_index >= 0:
        bias_scale = np.float32(activations[0].scale) * scale
        wide = recipe.activations == "int16"
        steps = np.rint(bias.astype(np.float64) / bias_scale)
        if not (np.abs(steps) < 2.0**31).all() and not wide:
            raise GridError(f"The bias of the layer {layer} is beyond 32 bits at the scale of its grid.")
        operator.inputs[2] = graph.add_tensor(
            graph.name(bias_index),
            bias.shape,
            Types.INT64 if wide else Types.INT32,
            data=steps.astype(np.int64 if wide else np.int32),
            quantization=_parameters(bias_scale, 0),
        )
    operands = "int16" if recipe.activations == "int16" else "float32" if activations is None else "int8"
    version = _VERSIONS[graph.code(operator), operands, bits]
    if activations is None:
        operator.builtinOptions.asymmetricQuantizeInputs = dense
        if dense and len(scale) > 1:
            # An older kernel would take the first output's scale for all, and err without a word.
            version = max(version, 12)
    graph.set_version(operator, graph.code(operator), version)


def _fitted(grid: Grid, kernel: FloatArray, bias: FloatArray, read: Scale, written: Scale) -> Grid:
    """A grid that kernels take: coarser where the bias would not fit its integer, any where all weights are zero."""
    needed = np.abs(bias) / np.float32(read.scale * _MAX_BIAS_STEPS)
    constant = ~grid.integers.reshape(-1, kernel.shape[-1]).any(axis=0)
    if grid.scale.ndim == 0:
        needed, constant = needed.max(), constant.all()
    scale = np.where(constant, np.float32(written.scale / read.scale), grid.scale)
    scale = np.maximum(scale, needed).astype(np.float32)
    if (scale == grid.scale).all():
        return grid
    return Grid(np.rint(kernel / scale).astype(np.int8), scale, grid.bits)


def _store_as_float16(graph: Graph, operator: schema.OperatorT) -> None:
    """Let a DEQUANTIZE, which runs once when the model is loaded, make float32 of stored float16 weights."""
    operator.inputs = np.array(operator.inputs, np.int32)
    for position in range(1, len(operator.inputs)):
        index = int(operator.inputs[position])
        if index < 0:
            continue
        values, name = graph.constant(index), graph.name(index)
        limit = np.finfo(np.float16).max
        half = np.clip(values, -limit, limit).astype(np.float16)
        stored = graph.add_tensor(name, values.shape, Types.FLOAT16, data=half)
        restored = graph.add_tensor(f"{name}_float32", values.shape, Types.FLOAT32)
        widen = graph.new_operator(Operators.DEQUANTIZE, [stored], [restored], version=3)
        graph.operators.insert(graph.operators.index(operator), widen)
        operator.inputs[position] = restored


def _enter_and_leave(
    graph: Graph, inside: list[schema.OperatorT], scales: Mapping[int, Scale], kind: int, *, integer_io: bool
) -> None:
    """Give integer tensors their type, and put QUANTIZE and DEQUANTIZE where floats go in and come out."""
    produced = {int(operator.outputs[0]) for operator in inside}
    outside = [operator for operator in graph.operators if operator not in inside]
    read_outside = {int(i) for operator in outside for i in operator.inputs}
    for index, scale in scales.items():
        tensor = graph.tensor(index)
        parameters = _parameters(np.array([scale.scale], np.float32), scale.zero_point)
        entering = index not in produced
        leaving = not entering and (index in read_outside or index in graph.outputs)
        if (not entering and not leaving) or integer_io:
            tensor.type, tensor.quantization = kind, parameters
            continue
        shape = tuple(int(n) for n in tensor.shape)
        twin = graph.add_tensor(f"{graph.name(index)}_integer", shape, kind, quantization=parameters)
        users = [operator for operator in inside if index in operator.inputs or index in operator.outputs]
        for operator in users:
            operator.inputs = np.array([twin if i == index else i for i in operator.inputs], np.int32)
            operator.outputs = np.array([twin if i == index else i for i in operator.outputs], np.int32)
        if entering:
            convert = graph.new_operator(Operators.QUANTIZE, [index], [twin], version=1 if kind == Types.INT8 else 2)
            graph.operators.insert(graph.operators.index(users[0]), convert)
        else:
            version = 2 if kind == Types.INT8 else 3
            convert = graph.new_operator(Operators.DEQUANTIZE, [twin], [index], version=version)
            graph.operators.insert(graph.operators.index(users[0]) + 1, convert)


def _parameters(scale: FloatArray, zero_point: int) -> schema.QuantizationParametersT:
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.asarray(scale, np.float32)
    parameters.zeroPoint = np.full(len(scale), zero_point, np.int64)
    # The outputs, which come first in TFLite's kernels.
    parameters.quantizedDimension = 0
    return parameters
