"""Integer weights whose scales lie beside them, as data like any other.

A kernel's scales are parameters of its tensor, which an interpreter copies when it is built. Here they are a constant
that is multiplied with what the layer gives: then all that training changes lies in constants, and kernels that read
those where they lie see what is written there later (`tfqrl.actorq.acting`).
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.flatbuffer import Graph, Operators, Types
from converters.layers import quantization


def separate_scales(flatbuffer: bytes) -> bytes:
    """The same policy with `(x @ integers) * scales + bias` in place of each dense layer with 8-bit weights.

    Activations are quantised symmetrically, because what their zero points would have to be corrected by is computed
    only once. Layers that are not dense, or not integer, stay as they are.
    """
    graph = Graph(flatbuffer)
    operators: list[schema.OperatorT] = []
    for operator in graph.operators:
        operators.append(operator)
        if graph.code(operator) != Operators.FULLY_CONNECTED or graph.tensor(operator.inputs[1]).type != Types.INT8:
            continue
        kernel, output = int(operator.inputs[1]), int(operator.outputs[0])
        bias = int(operator.inputs[2]) if len(operator.inputs) > 2 else -1
        shape, outputs = tuple(graph.tensor(output).shape), graph.tensor(kernel).shape[0]
        scales = np.broadcast_to(graph.scales(kernel), outputs)
        name = graph.name(kernel)
        graph.tensor(kernel).quantization = quantization(np.ones(1, np.float32), 0)
        last = operator
        activation = operator.builtinOptions.fusedActivationFunction
        operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        operator.builtinOptions.asymmetricQuantizeInputs = False
        operator.inputs = np.array([operator.inputs[0], kernel, -1], np.int32)
        constants = [(Operators.MUL, graph.add_tensor(f"{name}/scale", (outputs,), Types.FLOAT32, data=scales))]
        if bias >= 0:
            constants.append((Operators.ADD, bias))
        for code, constant in constants:
            between = graph.add_tensor(f"{name}/{code}", shape, Types.FLOAT32)
            last.outputs = np.array([between], np.int32)
            last = graph.new_operator(code, [between, constant], [output])
            last.builtinOptionsType, last.builtinOptions = _options(code)
            operators.append(last)
        last.builtinOptions.fusedActivationFunction = activation
    graph.operators = operators
    return graph.to_bytes()


def _options(code: int) -> tuple[int, schema.MulOptionsT | schema.AddOptionsT]:
    if code == Operators.MUL:
        return schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    return schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
