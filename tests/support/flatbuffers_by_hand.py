"""TFLite models made by hand: one operation of any kind, and what edgetpu_compiler makes of a model."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.edgetpu import CUSTOM_OP

TYPES = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int16): schema.TensorType.INT16,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int64): schema.TensorType.INT64,
    np.dtype(np.float32): schema.TensorType.FLOAT32,
}


def pack(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def unpack(flatbuffer: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))


def one_operation(
    name: str,
    inputs: list[tuple[int, ...] | np.ndarray],
    output: tuple[int, ...],
    options: tuple[str, dict[str, Any]] | None = None,
    *,
    dtype: Any = np.int8,
    scales: int = 1,
    version: int = 1,
) -> bytes:
    """A model of one operation.

    Args:
      name: of the operation, as the schema has it.
      inputs: shapes of what it reads (-1: dynamic), and arrays for constants.
      output: shape of what it gives.
      options: name of its table of options, and values in it.
      dtype: of what is not constant.
      scales: number of scales of each int8 constant.
      version: of the operation.
    """
    tensors, buffers = [], [schema.BufferT()]
    for index, given in enumerate([*inputs, output]):
        constant = isinstance(given, np.ndarray)
        shape = given.shape if constant else given
        kind = given.dtype if constant else np.dtype(dtype)
        grid = schema.QuantizationParametersT()
        grid.scale = [0.5] * (scales if constant else 1)
        grid.zeroPoint = [0] * len(grid.scale)
        if constant:
            buffers.append(schema.BufferT(data=np.frombuffer(given.tobytes(), np.uint8)))
        tensors.append(
            schema.TensorT(
                shape=[abs(n) for n in shape],
                shapeSignature=list(shape) if -1 in shape else None,
                type=TYPES[kind],
                buffer=len(buffers) - 1 if constant else 0,
                name=f"tensor{index}".encode(),
                quantization=grid if kind == np.int8 else None,
            )
        )
    operator = schema.OperatorT(opcodeIndex=0, inputs=list(range(len(inputs))), outputs=[len(inputs)])
    if options is not None:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options[0])
        operator.builtinOptions = getattr(schema, f"{options[0]}T")()
        vars(operator.builtinOptions).update(options[1])
    code = getattr(schema.BuiltinOperator, name)
    graph = schema.SubGraphT(
        tensors=tensors,
        inputs=[i for i, given in enumerate(inputs) if not isinstance(given, np.ndarray)],
        outputs=[len(inputs)],
        operators=[operator],
    )
    codes = [schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)]
    return pack(schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph], buffers=buffers))


def compiled(flatbuffer: bytes) -> bytes:
    """A model of one custom operation with the inputs and outputs of `flatbuffer`, as edgetpu_compiler leaves it."""
    model = unpack(flatbuffer)
    graph = model.subgraphs[0]
    graph.operators = [schema.OperatorT(opcodeIndex=0, inputs=list(graph.inputs), outputs=list(graph.outputs))]
    custom = schema.BuiltinOperator.CUSTOM
    model.operatorCodes = [
        schema.OperatorCodeT(builtinCode=custom, deprecatedBuiltinCode=custom, customCode=CUSTOM_OP, version=1)
    ]
    return pack(model)
