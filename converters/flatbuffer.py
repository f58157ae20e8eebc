"""TFLite flatbuffers as objects, by the schema that comes with the interpreter."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Operators = schema.BuiltinOperator
Types = schema.TensorType

# The operators of layers with weights.
WITH_WEIGHTS = (Operators.FULLY_CONNECTED, Operators.CONV_2D)

# The width of a value, by the type of its tensor.
BITS = {Types.FLOAT32: 32, Types.FLOAT16: 16, Types.INT8: 8, Types.INT4: 4, Types.INT2: 2}
DTYPES = {
    Types.FLOAT32: np.dtype(np.float32),
    Types.FLOAT16: np.dtype(np.float16),
    Types.INT8: np.dtype(np.int8),
    Types.UINT8: np.dtype(np.uint8),
    Types.INT16: np.dtype(np.int16),
    Types.INT32: np.dtype(np.int32),
    Types.INT64: np.dtype(np.int64),
}
_OPERATOR_NAMES = {code: name for name, code in vars(Operators).items() if isinstance(code, int)}


class _AlignedBuffer(schema.BufferT):
    """A buffer at a multiple of 16 bytes, as the schema demands and its generated code does not see to."""

    def Pack(self, builder: Any) -> Any:
        data = np.asarray(self.data, np.uint8)
        builder.StartVector(1, len(data), 16)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data.tobytes()
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)


class Graph:
    """The one graph of a model, for reading and rewriting.

    Attributes:
      model: the model.
      operators: its operators, in the order in which they run.
    """

    def __init__(self, flatbuffer: bytes) -> None:
        """Parse a flatbuffer."""
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
        self._graph = self.model.subgraphs[0]
        self.operators: list[schema.OperatorT] = list(self._graph.operators)

    @property
    def inputs(self) -> list[int]:
        """Indices of the input tensors."""
        return [int(index) for index in self._graph.inputs]

    @property
    def outputs(self) -> list[int]:
        """Indices of the output tensors."""
        return [int(index) for index in self._graph.outputs]

    def tensor(self, index: int) -> schema.TensorT:
        """A tensor by its index."""
        return self._graph.tensors[index]

    def name(self, index: int) -> str:
        """A tensor's name: the path of the layer that it belongs to."""
        return str(self.tensor(index).name.decode())

    def code(self, operator: schema.OperatorT) -> int:
        """Which operation it is, of `Operators`."""
        return int(self.model.operatorCodes[operator.opcodeIndex].builtinCode)

    def operation(self, operator: schema.OperatorT) -> str:
        """Its name, such as FULLY_CONNECTED."""
        return _OPERATOR_NAMES[self.code(operator)]

    def is_constant(self, index: int) -> bool:
        """Whether a tensor's values are in the file."""
        data = self.model.buffers[self.tensor(index).buffer].data
        return data is not None and len(data) > 0

    def constant(self, index: int) -> npt.NDArray[Any]:
        """The values of a constant tensor; integers of 4 and 2 bits come unpacked, as int8."""
        tensor = self.tensor(index)
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        shape = () if tensor.shape is None else tuple(int(n) for n in tensor.shape)
        if tensor.type in (Types.INT4, Types.INT2):
            return unpack(data, BITS[tensor.type], int(np.prod(shape))).reshape(shape)
        return data.view(DTYPES[tensor.type]).reshape(shape)

    def scales(self, index: int) -> npt.NDArray[np.float32]:
        """The scales of a quantised tensor, one or one an output; empty for a float one."""
        quantization = self.tensor(index).quantization
        scale = None if quantization is None else quantization.scale
        return np.zeros(0, np.float32) if scale is None else np.asarray(scale, np.float32)

    def producer(self, index: int) -> schema.OperatorT | None:
        """The operator whose output the tensor is; None for inputs and constants."""
        return next((o for o in self.operators if index in o.outputs), None)

    def consumers(self, index: int) -> list[schema.OperatorT]:
        """The operators that read the tensor."""
        return [o for o in self.operators if index in o.inputs]

    def add_tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: int,
        *,
        data: npt.NDArray[Any] | None = None,
        quantization: schema.QuantizationParametersT | None = None,
    ) -> int:
        """Add a tensor, constant if it has data (bytes as they are to lie in the file); returns its index."""
        buffer = schema.BufferT()
        if data is not None:
            buffer.data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), np.array(shape, np.int32), kind
        tensor.buffer, tensor.quantization = len(self.model.buffers) - 1, quantization
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def new_operator(self, code: int, inputs: list[int], outputs: list[int], version: int = 1) -> schema.OperatorT:
        """An operator without options, for the caller to put in its place among `operators`."""
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        self.set_version(operator, code, version)
        return operator

    def set_version(self, operator: schema.OperatorT, code: int, version: int) -> None:
        """Say what an operator demands of the interpreter: one that is too old then refuses, rather than errs."""
        for index, known in enumerate(self.model.operatorCodes):
            if (known.builtinCode, known.version) == (code, version):
                operator.opcodeIndex = index
                return
        added = schema.OperatorCodeT()
        added.builtinCode, added.version = code, version
        added.deprecatedBuiltinCode = min(code, Operators.PLACEHOLDER_FOR_GREATER_OP_CODES)
        self.model.operatorCodes.append(added)
        operator.opcodeIndex = len(self.model.operatorCodes) - 1

    def to_bytes(self) -> bytes:
        """The model, without what nothing refers to any more."""
        graph, model = self._graph, self.model
        graph.operators = self.operators
        used = sorted({int(i) for o in self.operators for i in (*o.inputs, *o.outputs) if i >= 0} | {*graph.inputs})
        place = {old: new for new, old in enumerate(used)} | {-1: -1}
        graph.tensors = [graph.tensors[i] for i in used]
        graph.inputs, graph.outputs = (
            np.array([place[i] for i in ends], np.int32) for ends in (self.inputs, self.outputs)
        )
        for operator in self.operators:
            operator.inputs = np.array([place[i] for i in operator.inputs], np.int32)
            operator.outputs = np.array([place[i] for i in operator.outputs], np.int32)
        for signature in model.signatureDefs or []:
            for end in (*signature.inputs, *signature.outputs):
                end.tensorIndex = place[end.tensorIndex]
        codes = sorted({operator.opcodeIndex for operator in self.operators})
        for operator in self.operators:
            operator.opcodeIndex = codes.index(operator.opcodeIndex)
        model.operatorCodes = [model.operatorCodes[i] for i in codes]
        # By convention the first buffer is empty, for all tensors that are not constant. What the metadata says of
        # TensorFlow's conversion is in the manifest.
        model.metadata = None
        buffers = [schema.BufferT()]
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            tensor.buffer = 0
            if data is not None and len(data):
                buffer = _AlignedBuffer()
                buffer.data = data
                buffers.append(buffer)
                tensor.buffer = len(buffers) - 1
        model.buffers = buffers
        builder = flatbuffers.Builder(sum(len(b.data) for b in buffers[1:]) + 4096)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def pack(integers: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.uint8]:
    """Integers of 8, 4 or 2 bits as bytes, the first in the lowest bits; the last byte is filled up with zeros."""
    if bits == 8:
        return integers.reshape(-1).view(np.uint8)
    per_byte = 8 // bits
    values = np.zeros(-(-integers.size // per_byte) * per_byte, np.uint8)
    values[: integers.size] = integers.reshape(-1).view(np.uint8) & (2**bits - 1)
    shifted = values.reshape(-1, per_byte) << np.arange(0, 8, bits, dtype=np.uint8)
    return np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8)


def unpack(data: npt.NDArray[np.uint8], bits: int, n: int) -> npt.NDArray[np.int8]:
    """The inverse of `pack`: `n` integers."""
    if bits == 8:
        return data.view(np.int8)[:n]
    values = (data[:, None] >> np.arange(0, 8, bits, dtype=np.uint8)).reshape(-1)[:n] & (2**bits - 1)
    sign = 2 ** (bits - 1)
    return ((values ^ sign).astype(np.int16) - sign).astype(np.int8)
