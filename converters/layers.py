"""One layer with fewer bits: its kernel and bias as integers, and what its operator then demands of the interpreter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.flatbuffer import WITH_WEIGHTS, Graph, Operators, Types, pack
from converters.recipe import Recipe
from converters.weights import Grid, GridError, fits_bits, nearest_grid
from edge.artifact import FloatArray

_TYPES = {8: Types.INT8, 4: Types.INT4, 2: Types.INT2}

_PER_BYTE = np.float32(1 / 255)

# Beyond this an 8-bit tanh, whose step is 1/128, is at most one step from 1: integer steps spent there are wasted.
TANH_INPUT_LIMIT = 3.0

# A bias is a 32-bit integer, to which a layer's products are added.
_MAX_BIAS_STEPS = 2.0**30

# The first version of each kernel that computes right, by its operands and the bits of its weights. Where TensorFlow's
# op_version.cc asks for less, tflite-runtime 2.14 was tried and found to load the model and err.
_VERSIONS = {
    (Operators.FULLY_CONNECTED, "float32", 8): 9,
    (Operators.FULLY_CONNECTED, "float32", 4): 12,
    (Operators.FULLY_CONNECTED, "float32", 2): 14,
    (Operators.FULLY_CONNECTED, "int8", 8): 4,
    (Operators.FULLY_CONNECTED, "int8", 4): 10,
    (Operators.FULLY_CONNECTED, "int8", 2): 14,
    (Operators.FULLY_CONNECTED, "int16", 8): 7,
    (Operators.CONV_2D, "float32", 8): 5,
    (Operators.CONV_2D, "float32", 4): 8,
    (Operators.CONV_2D, "int8", 8): 3,
    (Operators.CONV_2D, "int8", 4): 7,
    (Operators.CONV_2D, "int16", 8): 4,
}


@dataclass(frozen=True)
class Scale:
    """How real values are stored as integers.

    Attributes:
      scale: the real size of a step.
      zero_point: the integer that means 0.
    """

    scale: float
    zero_point: int


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


def checked_grid(layer: str, grid: Grid, kernel: FloatArray) -> Grid:
    """The grid of a kernel, outputs last, as the kernel lies in the flatbuffer.

    Raises:
      GridError: it is another one's.
    """
    fits = grid.integers.shape == kernel.shape
    if fits and (grid.weights == kernel).all():
        return grid
    if fits and (grid.weights * _PER_BYTE == kernel).all():
        # The converter multiplied the first kernel by 1/255, rather than each frame.
        return dataclasses.replace(grid, scale=grid.scale * _PER_BYTE)
    raise GridError(
        f"The grid that was given for the layer {layer} is not the grid of its kernel. (A normaliser without a clip is "
        "multiplied into the first kernel: give it one.)"
    )


def quantise_layer(
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
        grid = checked_grid(layer, grids[layer], kernel)
    else:
        grid = nearest_grid(kernel, recipe.weight_bits, per_channel=recipe.per_channel)
        if activations is not None:
            # Biases of 64 bits, beside 16-bit activations, always have room.
            grid = _fitted(grid, kernel, bias * (recipe.activations == "int8"), *activations)
    if grid.scale.ndim and not recipe.per_channel:
        raise GridError(
            f"The grid of the layer {layer} has a scale for each output, and this recipe one for a layer. Convert with "
            "a recipe whose per_channel is true."
        )
    bits = grid.bits if recipe.weight_bits < 8 else 8
    if activations is not None:
        # As many as the widest weight needs, and no fewer than the recipe says: XNNPACK leaves 2 bits to other kernels.
        bits = max(recipe.weight_bits, next(bits for bits in (2, 4, 8) if fits_bits(grid.integers, bits)))
    if not dense:
        # LiteRT 2.3 has 2-bit convolutions, whose results are wrong (tests/converters/test_quantise.py).
        bits = max(bits, 4)
    if activations is not None and bits == 4 and kernel.shape[-2] % 2:
        # XNNPACK does not take these, and the kernels that are left round twice.
        bits = 8
    scale = np.atleast_1d(grid.scale)
    name = graph.name(operator.inputs[1])
    operator.inputs = np.array(operator.inputs, np.int32)
    operator.inputs[1] = graph.add_tensor(
        name,
        np.moveaxis(grid.integers, -1, 0).shape,
        _TYPES[bits],
        data=pack(np.ascontiguousarray(np.moveaxis(grid.integers, -1, 0)), bits),
        quantization=quantization(scale, 0),
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
            quantization=quantization(bias_scale, 0),
        )
    operands = "int16" if recipe.activations == "int16" else "float32" if activations is None else "int8"
    version = _VERSIONS[graph.code(operator), operands, bits]
    if activations is None:
        operator.builtinOptions.asymmetricQuantizeInputs = dense
    if dense and len(scale) > 1 and recipe.activations != "int16":
        # tflite-runtime 2.14 takes the first output's scale for all without a word, or (static, on ARM) crashes.
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


def store_as_float16(graph: Graph, operator: schema.OperatorT) -> None:
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


def quantization(scale: FloatArray, zero_point: int) -> schema.QuantizationParametersT:
    """How a tensor is stored, for its flatbuffer: `scale` (1,), or (outputs,) for each of the outputs."""
    parameters = schema.QuantizationParametersT()
    parameters.scale = np.asarray(scale, np.float32)
    parameters.zeroPoint = np.full(len(scale), zero_point, np.int64)
    # Outputs come first in TFLite's kernels.
    parameters.quantizedDimension = 0
    return parameters
