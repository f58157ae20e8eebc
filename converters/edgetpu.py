"""What of a model will run on Coral's Edge TPU, operation by operation, as far as its published rules tell.

The last word is the compiler's (`converters.edgetpu_compiler`), whose source is closed; this needs nothing installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from ai_edge_litert import schema_py_generated as schema

from converters.edgetpu_rules import RULES, Operation, Rule, Tensor

# The memory on the chip. The compiled program takes its part of it, and in reports of the compiler intermediate results
# do too: how much of it parameters get, only the compiler knows.
CACHE_BYTES = 8 * 2**20

# A tensor may have more dimensions than these if the outer ones are 1.
MAX_RANK = 3

_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if name.isupper()}
_ACTIVATIONS = (schema.TensorType.INT8, schema.TensorType.UINT8)
_PARAMETERS = (*_ACTIVATIONS, schema.TensorType.INT32)

Verdict = Literal["TPU", "may map", "CPU"]


@dataclass(frozen=True)
class OperationReport:
    """Where an operation will run.

    Attributes:
      operation: its name in TFLite.
      layer: name of the tensor that it gives.
      runs_on: TPU, CPU, or "may map": on the TPU unless there is something that cannot be told from outside.
      reason: why not, or not for certain, on the TPU; empty if it is.
      parameter_bytes: bytes of its weights and biases.
    """

    operation: str
    layer: str
    runs_on: Verdict
    reason: str
    parameter_bytes: int


@dataclass(frozen=True)
class StaticReport:
    """A model beside the Edge TPU's published rules.

    Attributes:
      operations: all of them, in order.
      tpu: how many will run on the Edge TPU.
      may_map: how many may.
      cpu: how many will run on the processor.
      parameter_bytes: weights and biases of those that will or may run on the Edge TPU.
      cache_bytes: the memory on its chip, which the compiled program shares with them.
      fits_cache: whether the parameters are not larger than that: an estimate.
      refused: the operation for which the compiler refuses the whole model, and why; None if there is none. Nothing
        runs on the Edge TPU then.
    """

    operations: tuple[OperationReport, ...]
    tpu: int
    may_map: int
    cpu: int
    parameter_bytes: int
    cache_bytes: int
    fits_cache: bool
    refused: str | None = None


def check(flatbuffer: bytes) -> StaticReport:
    """Say of each operation of a model where it will run, and why.

    The compiler makes one piece for the Edge TPU. Operations on the processor may precede it, such as the QUANTIZE of a
    float input; once an operation after it is on the processor, whatever depends on that stays there.

    Args:
      flatbuffer: a TFLite model of one subgraph, without an archive behind it.
    """
    reports: list[OperationReport] = []
    refused = None
    # By index of tensor: what comes from the Edge TPU's piece; what is in doubt, and what is cut off, and by what.
    from_tpu: set[int] = set()
    doubtful: dict[int, str] = {}
    cut_off: dict[int, str] = {}
    for operation in operations(flatbuffer):
        refusal = _refusal(operation)
        verdict, reason = ("CPU", refusal) if refusal else _alone(operation)
        inputs = [tensor.index for tensor in operation.inputs if tensor is not None and tensor.data is None]
        outputs = [tensor.index for tensor in operation.outputs]
        layer = operation.outputs[0].name if outputs else ""
        here = f"{operation.name} {layer}"
        cut_by = next((cut_off[index] for index in inputs if index in cut_off), None)
        doubted_by = next((doubtful[index] for index in inputs if index in doubtful), None)
        if verdict != "CPU" and cut_by is not None:
            verdict, reason = "CPU", f"it follows {cut_by}, and only one piece of a model is mapped"
        elif verdict == "TPU" and doubted_by is not None:
            verdict, reason = "may map", f"it follows {doubted_by}, which may not map"
        if verdict != "CPU":
            from_tpu.update(outputs)
        elif cut_by is not None or not from_tpu.isdisjoint(inputs):
            cut_off |= dict.fromkeys(outputs, cut_by or here)
        if verdict == "may map":
            doubtful |= dict.fromkeys(outputs, doubted_by or here)
        reports.append(OperationReport(operation.name, layer, verdict, reason, _parameter_bytes(operation)))
        if refusal and refused is None:
            refused = f"{here}: {refusal}"
    if refused is not None:
        reports = [
            replace(report, runs_on="CPU", reason=report.reason or "the compiler refuses the model")
            for report in reports
        ]
    counts = {kind: sum(report.runs_on == kind for report in reports) for kind in ("TPU", "may map", "CPU")}
    parameter_bytes = sum(report.parameter_bytes for report in reports if report.runs_on != "CPU")
    return StaticReport(
        tuple(reports),
        counts["TPU"],
        counts["may map"],
        counts["CPU"],
        parameter_bytes,
        CACHE_BYTES,
        parameter_bytes <= CACHE_BYTES,
        refused,
    )


def operations(flatbuffer: bytes) -> list[Operation]:
    """The operations of a model's first subgraph, in the order in which they run."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
    graph = model.subgraphs[0]
    tensors = [_tensor(index, tensor, model.buffers) for index, tensor in enumerate(graph.tensors)]
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        # Models from before 2020 have only the code that is called deprecated.
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        name = _NAMES.get(number, f"operation {number}")
        if name == "CUSTOM":
            name = (code.customCode or b"CUSTOM").decode()
        inputs = [] if operator.inputs is None else operator.inputs
        found.append(
            Operation(
                name,
                code.version,
                tuple(None if index < 0 else tensors[index] for index in inputs),
                tuple(tensors[index] for index in operator.outputs),
                operator.builtinOptions,
            )
        )
    return found


def interface(flatbuffer: bytes) -> list[tuple[list[int], int, list[float], list[int]]]:
    """Shape, type, scales and zero points of each input and output: what a compiled model must keep."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer)).subgraphs[0]
    found = []
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[index]
        grid = tensor.quantization or schema.QuantizationParametersT()
        scale, zero_point = (() if values is None else values for values in (grid.scale, grid.zeroPoint))
        found.append((list(map(int, tensor.shape)), tensor.type, list(map(float, scale)), list(map(int, zero_point))))
    return found


def _tensor(index: int, tensor: schema.TensorT, buffers: list[schema.BufferT]) -> Tensor:
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    scale = None if tensor.quantization is None else tensor.quantization.scale
    data = buffers[tensor.buffer].data
    return Tensor(
        index,
        tensor.name.decode(),
        tuple(map(int, shape if shape is not None else ())),
        tensor.type,
        0 if scale is None else len(scale),
        None if data is None else bytes(data),
    )


def _refusal(operation: Operation) -> str | None:
    """Why the compiler refuses a model with this operation; None if it does not."""
    rule = RULES.get(operation.name)
    if rule is None:
        return None
    if rule.max_version is not None and operation.version > rule.max_version:
        return f"its version is {operation.version}; the compiler knows up to {rule.max_version}"
    if any(tensor is not None and tensor.dynamic for tensor in (*operation.inputs, *operation.outputs)):
        return "it has a dynamic shape"
    return None


def _alone(operation: Operation) -> tuple[Verdict, str]:
    """Where an operation would run if there were no others."""
    rule = RULES.get(operation.name)
    if rule is None:
        return "CPU", "the Edge TPU has no such operation"
    for find in (_wrong_tensor, *rule.limits):
        reason = find(operation)
        if reason is not None:
            return "CPU", reason
    weights = operation.inputs[1] if operation.name == "FULLY_CONNECTED" else None
    if weights is not None and weights.scales > 1:
        return "may map", "its weights have a scale per output, which the compiler is too old to know of"
    return ("may map", rule.doubt) if rule.doubt else ("TPU", "")


def _wrong_tensor(operation: Operation) -> str | None:
    rule = RULES[operation.name]
    for index, tensor in enumerate((*operation.inputs, *operation.outputs)):
        if tensor is None:
            continue
        role = _role(index, rule) if index < len(operation.inputs) else "activation"
        if role == "parameter" and tensor.data is None:
            return "its weights or biases are not constant"
        if role == "index" and tensor.data is None:
            return "a shape or axis of it is not constant"
        if role == "index" and tensor.type != schema.TensorType.INT32:
            return f"a shape or axis of it is {_TYPES[tensor.type]}, not int32"
        if role == "parameter" and tensor.type not in _PARAMETERS:
            return f"its weights or biases are {_TYPES[tensor.type]}, not int8 or uint8"
        if role == "activation" and tensor.type not in _ACTIVATIONS:
            return f"it works on {_TYPES[tensor.type]}, not int8 or uint8"
        if role == "activation" and math.prod(tensor.shape[:-MAX_RANK]) > 1:
            shape = "x".join(map(str, tensor.shape))
            return f"it works on {shape}; only the {MAX_RANK} innermost dimensions may be larger than 1"
    return None


def _role(index: int, rule: Rule) -> Literal["parameter", "index", "activation"]:
    if index in rule.parameters:
        return "parameter"
    return "index" if index in rule.indices else "activation"


def _parameter_bytes(operation: Operation) -> int:
    rule = RULES.get(operation.name, Rule())
    given = [tensor for index, tensor in enumerate(operation.inputs) if index not in rule.indices]
    return sum(len(tensor.data) for tensor in given if tensor is not None and tensor.data is not None)
