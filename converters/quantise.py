"""From a float flatbuffer to one with fewer bits, operator by operator.

The network becomes integer; what surrounds it (normalisation before, action scaling after) stays in float, because it
needs the range that 8 bits lack. A value r is stored as the integer q with r = scale * (q - zero_point).

Sources: the TFLite 8-bit quantisation specification, https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
(zero points of weights are 0, -128 is not a weight, biases are 32-bit at the product of the scales), and of the
kernels, what each demands (tanh and sigmoid have outputs of fixed scale).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.flatbuffer import WITH_WEIGHTS, Graph, Operators, Types
from converters.layers import (
    TANH_INPUT_LIMIT,
    Scale,
    checked_grid,
    layer_of,
    quantise_layer,
    quantization,
    store_as_float16,
)
from converters.recipe import Recipe
from converters.weights import Grid, Steps
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


class UnsupportedOperationError(UserError):
    """A graph with an operation that cannot be integer."""


@dataclass(frozen=True)
class Trained:
    """The grids that a network was trained on.

    Attributes:
      observation: of what it reads.
      kernels: by layer name.
      outputs: by layer name, of what the layer gives: one grid; or those before and behind its tanh, and a coarser one
        behind that; or none.
    """

    observation: Steps
    kernels: Mapping[str, Grid]
    outputs: Mapping[str, tuple[Steps, ...]]


def quantise(
    flatbuffer: bytes,
    recipe: Recipe,
    ranges: Mapping[str, Range],
    grids: Mapping[str, Grid],
    trained: Trained | None = None,
) -> tuple[bytes, tuple[str, ...]]:
    """A flatbuffer as the recipe says, from a float32 one; and notes for the manifest.

    Args:
      flatbuffer: what `converters.tflite.to_float32` gave.
      recipe: bits of weights and activations.
      ranges: lowest and highest value of each activation, by tensor name (see `converters.calibration`); read only if
        the recipe is calibrated.
      grids: the kernels of layers that were trained on a grid, by layer name. Their integers are written as they are,
        packed at their own bits where the recipe packs weights.
      trained: the grids that activations were trained on, which go before `ranges`; of kernels only `grids` counts.

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
    for operator in weighted:
        if (layer := layer_of(graph, operator)) in grids and layer in recipe.float_layers:
            checked_grid(layer, grids[layer], np.moveaxis(graph.constant(operator.inputs[1]), 0, -1))
    if recipe.weight_bits == 16:
        for operator in weighted:
            store_as_float16(graph, operator)
    elif recipe.activations == "dynamic-int8":
        for operator in weighted:
            if layer_of(graph, operator) not in recipe.float_layers:
                quantise_layer(graph, operator, recipe, grids, None)
    elif recipe.calibrated:
        notes = _quantise_statically(graph, recipe, ranges, grids, trained)
    return graph.to_bytes(), notes


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
    graph: Graph,
    recipe: Recipe,
    ranges: Mapping[str, Range],
    grids: Mapping[str, Grid],
    trained: Trained | None,
) -> tuple[str, ...]:
    bits = 16 if recipe.activations == "int16" else 8
    kind = Types.INT16 if bits == 16 else Types.INT8
    scales: dict[int, Scale] = {}
    inside: list[schema.OperatorT] = []
    trained = None if bits == 16 else trained
    # The trained grids of tensors.
    grids_of: dict[int, Steps] = {}
    after: tuple[Steps, ...] = ()
    for operator in list(graph.operators):
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
            if trained is not None and not scales:
                steps = trained.observation
                if steps.low == 0:
                    # Frames, which may not have been divided by 255 yet: their range is known.
                    steps = Steps(ranges[graph.name(reads)][1] / steps.high, 0, steps.high)
                grids_of[reads], scales[reads] = steps, _scale_of(steps)
            else:
                scales[reads] = activation_scale(*ranges[graph.name(reads)], bits)
        if weighted and (refinement := grids_of[reads].refinement if reads in grids_of else 1) > 1:
            fine, step = _refine(graph, operator)
            steps, refined = grids_of[reads], scales[reads].scale / refinement
            scales[fine] = Scale(refined, -128 if steps.low == 0 else 0)
            inside.insert(-1, step)
            reads = fine
        if code == Operators.ARG_MAX:
            continue
        if weighted and trained is not None:
            # Until the next layer with weights; activations may be layers of other names.
            after = trained.outputs.get(layer_of(graph, operator), ())
        if weighted and after:
            grids_of[writes], scales[writes] = after[0], _scale_of(after[0])
        elif code == Operators.TANH and len(after) > 2:
            raw, step = _follow(graph, operator)
            scales[raw] = _scale_of(after[1])
            grids_of[writes], scales[writes] = after[2], _scale_of(after[2])
            inside.append(step)
        else:
            if code == Operators.RESHAPE and reads in grids_of:
                grids_of[writes] = grids_of[reads]
            scales[writes] = _output_scale(graph, operator, ranges, scales[reads], bits)
    within = graph.operators[graph.operators.index(inside[0]) : graph.operators.index(inside[-1])] if inside else []
    left = [f"{graph.operation(o)} of {layer_of(graph, o)}" for o in within if o not in inside]
    for operator in inside:
        code = graph.code(operator)
        if code in WITH_WEIGHTS:
            read, written = scales[int(operator.inputs[0])], scales[int(operator.outputs[0])]
            quantise_layer(graph, operator, recipe, grids, (read, written))
        else:
            graph.set_version(operator, code, _FOLLOWING_VERSIONS.get((code, bits), 1))
    _enter_and_leave(graph, inside, scales, kind, integer_io=recipe.integer_io)
    return (f"Left in float between integer layers: {', '.join(left)}.",) if left else ()


def _scale_of(steps: Steps) -> Scale:
    """A trained grid inside the 256 integers: its last step is the last of them, beyond which nothing goes."""
    return Scale(steps.scale, 127 - steps.high)


def _refine(graph: Graph, operator: schema.OperatorT) -> tuple[int, schema.OperatorT]:
    """Let an operator read a new tensor, which a QUANTIZE makes of what it read before; returns both.

    Kernels scale their sums down by a rounded product and a rounding shift. Between coarse grids, whose sums are small
    and hardly scaled, that rounds twice; kernels of another kind do not. So sums are made of finer integers.
    """
    reads = int(operator.inputs[0])
    shape = tuple(int(n) for n in graph.tensor(reads).shape)
    fine = graph.add_tensor(f"{graph.name(reads)}_fine", shape, Types.FLOAT32)
    operator.inputs = np.array([fine, *operator.inputs[1:]], np.int32)
    step = graph.new_operator(Operators.QUANTIZE, [reads], [fine], version=2)
    graph.operators.insert(graph.operators.index(operator), step)
    return fine, step


def _follow(graph: Graph, operator: schema.OperatorT) -> tuple[int, schema.OperatorT]:
    """Let an operator write a new tensor, from which a QUANTIZE makes what it wrote before; returns both."""
    writes = int(operator.outputs[0])
    shape = tuple(int(n) for n in graph.tensor(writes).shape)
    raw = graph.add_tensor(f"{graph.name(writes)}_raw", shape, Types.FLOAT32)
    operator.outputs = np.array([raw], np.int32)
    step = graph.new_operator(Operators.QUANTIZE, [raw], [writes], version=2)
    graph.operators.insert(graph.operators.index(operator) + 1, step)
    return raw, step


# The same of those without weights, by the bits of their operands; 1 for the others.
_FOLLOWING_VERSIONS = {
    (Operators.QUANTIZE, 8): 2,
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


def _enter_and_leave(
    graph: Graph, inside: list[schema.OperatorT], scales: Mapping[int, Scale], kind: int, *, integer_io: bool
) -> None:
    """Give integer tensors their type, and put QUANTIZE and DEQUANTIZE where floats go in and come out."""
    produced = {int(operator.outputs[0]) for operator in inside}
    outside = [operator for operator in graph.operators if operator not in inside]
    read_outside = {int(i) for operator in outside for i in operator.inputs}
    for index, scale in scales.items():
        tensor = graph.tensor(index)
        parameters = quantization(np.array([scale.scale], np.float32), scale.zero_point)
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
