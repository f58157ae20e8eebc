"""What an ONNX file says between its input and one output: a row of operations, read without trusting the file.

The `onnx` package parses and checks; nothing here computes. A file that is hostile or damaged is an
`ImportPolicyError`, before anything of the size that it claims is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.sources import ImportPolicyError, shown
from edge.files import read_bounded

# Eight million weights. Protobuf's objects take up to 80 times the bytes that they were in the file.
MAX_FILE_BYTES = 32 * 2**20
MAX_NODES = 1000
MAX_RANK = 8
# A tensor is kept again, in 64 bits, wherever it is used, and a small file may use one without end.
MAX_ELEMENTS = 16 * 2**20
# From here on operators broadcast as numpy does.
OLDEST_OPSET = 7

FLOATS = (np.float32, np.float64)

Array = npt.NDArray[Any]


class Flow:
    """The one tensor in a step's inputs that depends on the observation."""


FLOW = Flow()


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
      op: the operator's name.
      place: where it is, for messages: its operator, place in the file, name, and what it is fed by.
      inputs: constants; `FLOW` where the tensor from the step before goes; None where an optional one is left out.
      attributes: numbers, strings (as bytes), lists of them, arrays.
    """

    op: str
    place: str
    inputs: tuple[Array | Flow | None, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """The row of operations from the input to the chosen output.

    Attributes:
      input_name: the input's name.
      input_shape: its dimensions, None for those that are open; None if the file does not say.
      input_dtype: its type, as numpy has it.
      steps: what is done to it, in order; each takes what the one before gave.
      origin: producer, opset and output.
    """

    input_name: str
    input_shape: tuple[int | None, ...] | None
    input_dtype: np.dtype[Any]
    steps: tuple[Step, ...]
    origin: dict[str, Any]


def read(path: str | Path, operators: Collection[str], output: str | None = None) -> Graph:
    """The row of operations that leads to `output`, which may be left out if there is only one.

    Args:
      path: the file.
      operators: those that may be in the row.
      output: the name of one of the graph's outputs.

    Raises:
      ImportPolicyError: the file cannot be read or is not a valid ONNX model, keeps weights outside, is too large, or
        there is no single row of these operators from one input to the output.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportPolicyError("ONNX files are read by the package onnx: pip install 'tfqrl[onnx]'.") from error
    try:
        data = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ImportPolicyError(f"Cannot read {path}: {error.strerror or error}.") from error
    try:
        model = onnx.ModelProto.FromString(data)
        _check_bounds(model, str(path))
        onnx.checker.check_model(model)
        return _row(model, str(path), operators, output)
    except ImportPolicyError:
        raise
    except Exception as error:
        # Protobuf, the checker and numpy raise what they stumble over, and not the same in each version.
        reason = " ".join(str(error).split())[:200]
        raise ImportPolicyError(
            f"{path} is not an ONNX model, or a damaged one: {shown(reason, 200)} Export the policy again."
        ) from error


def _check_bounds(model: Any, source: str) -> None:
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise ImportPolicyError(f"{source} has {len(graph.node)} nodes: more than the {MAX_NODES} that are read.")
    if len(model.functions) or len(graph.sparse_initializer):
        raise ImportPolicyError(
            f"{source} has functions or sparse weights of its own, which are not supported. Export it without."
        )
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or len(attribute.graphs) or attribute.HasField("sparse_tensor"):
                raise ImportPolicyError(
                    f"{shown(node.op_type)} (node {shown(node.name)!r}) of {source} has a graph or sparse tensor of "
                    "its own: not supported."
                )
    for tensor in _tensors(graph):
        # Loading them would follow a path that the file names.
        if tensor.external_data or tensor.data_location:
            raise ImportPolicyError(
                f"{source} keeps {shown(tensor.name)!r} in another file, which is not read. Export it with its weights "
                "inside: torch.onnx.export(..., external_data=False)."
            )
        if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > MAX_FILE_BYTES:
            raise ImportPolicyError(
                f"{shown(tensor.name)!r} of {source} claims a shape that no file of this size can hold: refused."
            )
        if len(tensor.dims) > MAX_RANK:
            raise ImportPolicyError(f"{shown(tensor.name)!r} of {source} has {len(tensor.dims)} dimensions: refused.")


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _row(model: Any, source: str, operators: Collection[str], output: str | None) -> Graph:
    from onnx import helper, numpy_helper

    graph = model.graph
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise ImportPolicyError(f"{source} uses opset {opset}; from {OLDEST_OPSET} on they are read. Export it again.")
    chosen = _choose([value.name for value in graph.output], source, output)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    needed = _needed(graph, chosen)
    entries = [name for name in inputs if name in needed]
    if len(entries) != 1:
        reads = f"{len(entries)} inputs ({', '.join(map(shown, entries[:10]))})" if entries else "no input"
        raise ImportPolicyError(f"{shown(chosen)!r} of {source} depends on {reads}; a policy reads one observation.")

    _check_operators(graph, entries[0], needed, operators)
    sigmoids = {name for node in graph.node if node.op_type == "Sigmoid" for name in node.output}
    elements = 0
    flow, constants, steps = entries[0], dict[str, Array](), list[Step]()
    for index, node in enumerate(graph.node):
        if not any(name in needed for name in node.output):
            continue
        for name in node.input:
            if name in weights and name not in constants:
                constants[name] = numpy_helper.to_array(weights[name])
                if not constants[name].size:
                    raise ImportPolicyError(f"{shown(name)!r} of {source} is a tensor without elements: refused.")
        place = _place(node, index, flow)
        if node.domain not in ("", "ai.onnx"):
            raise ImportPolicyError(f"{place} is of the domain {shown(node.domain)!r}, which is not supported.")
        values: list[Array | Flow | None] = []
        for name in node.input:
            if name == flow:
                values.append(FLOW)
            elif not name or name in constants:
                values.append(constants[name] if name else None)
            elif node.op_type == "Mul" and not sigmoids.isdisjoint(node.input):
                raise ImportPolicyError(
                    f"{place} multiplies by a Sigmoid, as an activation such as SiLU or GELU does: not supported. Of "
                    "activations Relu, Tanh and Sigmoid are."
                )
            else:
                raise ImportPolicyError(
                    f"{place} reads {shown(name)!r}, which is not what the step before it gives: branches, skipped "
                    "connections and secondary outputs are not supported."
                )
        elements += sum(value.size for value in values if isinstance(value, np.ndarray))
        if elements > MAX_ELEMENTS:
            raise ImportPolicyError(f"{source} works with more constants than the {MAX_ELEMENTS} that are read.")
        step = Step(
            node.op_type,
            place,
            tuple(values),
            {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
        )
        computed = sum(value is FLOW for value in values)
        if computed > 1:
            raise ImportPolicyError(f"{place} joins two computed tensors, which is not supported.")
        if computed:
            steps.append(step)
            flow = node.output[0]
        else:
            constants[node.output[0]] = _constant(step)
    if flow != chosen:
        raise ImportPolicyError(f"{shown(chosen)!r} of {source} is not what a row of operations leads to.")

    entry = inputs[entries[0]].type.tensor_type
    shape = None
    if entry.HasField("shape"):
        shape = tuple(size.dim_value if size.dim_value > 0 else None for size in entry.shape.dim)
    origin = {
        "format": "onnx",
        "producer": shown(f"{model.producer_name} {model.producer_version}".strip()),
        "opset": int(opset),
        "output": shown(chosen),
    }
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(entry.elem_type))
    return Graph(shown(entries[0]), shape, dtype, tuple(steps), origin)


def _check_operators(graph: Any, entry: str, needed: set[str], operators: Collection[str]) -> None:
    """Refuse what is not known, before it is refused for standing in a branch, as most of it does."""
    computed = {entry}
    for index, node in enumerate(graph.node):
        if computed.isdisjoint(node.input) or needed.isdisjoint(node.output):
            continue
        computed.update(node.output)
        if node.op_type not in operators:
            activation = ": it is part of an activation such as GELU" if node.op_type == "Erf" else ""
            raise ImportPolicyError(
                f"{_place(node, index, entry)} is not supported{activation}. Supported are "
                f"{', '.join(sorted(operators))}, and Constant."
            )


def _choose(names: list[str], source: str, output: str | None) -> str:
    if output is None and len(names) == 1:
        return names[0]
    if output in names:
        return output
    listed = ", ".join(map(shown, names[:20]))
    if output is None:
        raise ImportPolicyError(f"{source} has {len(names)} outputs; say which one is the action: {listed}.")
    raise ImportPolicyError(f"{source} has no output {output!r}; it has: {listed}.")


def _needed(graph: Any, output: str) -> set[str]:
    """The names of all tensors that `output` depends on."""
    producers = {name: node for node in graph.node for name in node.output if name}
    needed, waiting = set[str](), [output]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += [source for source in producers[name].input if source] if name in producers else []
    return needed


def _place(node: Any, index: int, flow: str) -> str:
    fed_by = flow if flow in node.input else next(iter(node.input), "nothing")
    name = f" {shown(node.name)!r}" if node.name else ""
    return f"{shown(node.op_type)} (node {index}{name}, fed by {shown(fed_by)!r})"


def _constant(step: Step) -> Array:
    """What a step makes that reads no computed tensor; steps that only hand on or cast."""
    if step.op == "Constant":
        for name, value in step.attributes.items():
            if name == "value":
                from onnx import numpy_helper

                return np.asarray(numpy_helper.to_array(value))
            if name in ("value_float", "value_floats"):
                return np.asarray(value, np.float32)
            if name in ("value_int", "value_ints"):
                return np.asarray(value, np.int64)
    elif step.op in ("Identity", "Cast") and isinstance(step.inputs[0], np.ndarray):
        value = step.inputs[0]
        if step.op == "Identity":
            return value
        from onnx import helper

        return value.astype(helper.tensor_dtype_to_np_dtype(step.attributes["to"]))
    elif step.op == "Transpose" and isinstance(step.inputs[0], np.ndarray):
        return step.inputs[0].transpose(step.attributes.get("perm"))
    raise ImportPolicyError(f"{step.place} computes with constants, which is not supported here: fold them on export.")
