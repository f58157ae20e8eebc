"""Policies from ONNX files: feed-forward graphs, as `torch.onnx.export` writes them.

ONNX lays images out as (channels, height, width), Keras as (height, width, channels). So each value that flows through
the graph is followed by its position: an array of the tensor's ONNX shape, for one observation, that says where in
Keras' tensor each element lies. What only rearranges (Reshape, Flatten, Transpose, ...) rearranges that array, and
weights are put into Keras' order when they meet it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from converters.sources import ForeignPolicy, ImportPolicyError, onnx_file, shown
from converters.sources.chain import Chain, Vector
from converters.sources.onnx_file import FLOATS, FLOW, Array, Graph, Step
from converters.sources.onnx_layout import channels_first, convolution, observation_position
from edge.artifact import PolicySpec


def load(path: str | Path, spec: PolicySpec, *, output: str | None = None, unit_actions: bool = False) -> ForeignPolicy:
    """The policy in an ONNX file.

    Its input is what the environment gives: for frames, (height, width, channels) of the spec, or (channels, height,
    width); bytes are divided by 255 in the graph or not, as it was trained. A normalisation at its beginning becomes
    the spec's normaliser, unless that has one already: then the graph is what comes behind it. Continuous actions
    beyond the bounds are clipped to them.

    Args:
      path: the file; weights must be inside.
      spec: what the policy reads and gives.
      output: which of the graph's outputs is the action, or the scores of the choices; needed if there are several.
      unit_actions: whether the graph's actions lie in [-1, 1] and are scaled to the bounds by who runs it, like those
        of Stable-Baselines3's actors; if not, they are in the environment's units.

    Raises:
      ImportPolicyError: the file is damaged, hostile, or not valid ONNX; it has operators that are not supported, or
        not in this order; it does not fit the spec.
    """
    graph = onnx_file.read(path, [*_Reader.ARRANGING, *_Reader.COMPUTING], output)
    # What overflows is found where the weights are finished.
    with np.errstate(all="ignore"):
        reader = _Reader(graph, spec)
        for step in graph.steps:
            reader.take(step)
        network, spec = reader.finish(unit_actions)
    return ForeignPolicy(network, spec, {**graph.origin, "file": shown(Path(path).name)})


class _Reader:
    """Follows one observation through the graph, and hands the chain what is computed."""

    def __init__(self, graph: Graph, spec: PolicySpec) -> None:
        self.spec = spec
        self.chain = Chain(spec)
        self.position = observation_position(graph, spec)
        self.in_bytes = graph.input_dtype == np.uint8
        self.undivided = spec.observation.dtype == "uint8" and not self.in_bytes
        self.chosen_at: str | None = None

    def take(self, step: Step) -> None:
        """One more operation."""
        if step.op in self.ARRANGING:
            _constants(step, 1)
            try:
                self.position = self.ARRANGING[step.op](self, step)
            except (ValueError, LookupError) as error:
                raise ImportPolicyError(f"{step.place} does not fit what it is fed: {error}.") from error
            if self.position.ndim > onnx_file.MAX_RANK:
                raise ImportPolicyError(f"{step.place} gives {self.position.ndim} dimensions: refused.")
        elif self.chosen_at:
            raise ImportPolicyError(f"{step.place} computes with the choice of {self.chosen_at}: not supported.")
        elif self.in_bytes:
            raise ImportPolicyError(f"{step.place} computes with bytes; cast frames to float first.")
        else:
            self.COMPUTING[step.op](self, step)

    def finish(self, unit_actions: bool) -> tuple[Any, PolicySpec]:
        """The network, and the spec with what the graph said of normalisation."""
        action, outputs = self.spec.action, math.prod(self.chain.shape)
        if self.chosen_at and not action.discrete:
            raise ImportPolicyError(f"{self.chosen_at} makes a choice, but the action is continuous: give --discrete.")
        expected = action.n if action.n is not None else math.prod(action.shape)
        if outputs != expected:
            what = f"{expected} choices" if action.discrete else f"{expected} action elements"
            raise ImportPolicyError(f"The graph gives {outputs} values; the spec has {what}.")
        if not self.chosen_at and (self.position.reshape(-1) != np.arange(outputs)).any():
            raise ImportPolicyError("The graph's output is rearranged in a way that is not supported.")
        return self.chain.finish(unit_actions=unit_actions)

    def _transpose(self, step: Step) -> Array:
        return self.position.transpose(step.attributes.get("perm"))

    def _unsqueeze(self, step: Step) -> Array:
        return np.expand_dims(self.position, _axes(step))

    def _cast(self, step: Step) -> Array:
        from onnx import helper

        target = np.dtype(helper.tensor_dtype_to_np_dtype(step.attributes["to"]))
        if not (self.chosen_at or target in FLOATS):
            raise ImportPolicyError(f"{step.place} casts to {target}; only float and double are supported.")
        self.in_bytes = False
        return self.position

    def _flatten(self, step: Step) -> Array:
        axis = step.attributes.get("axis", 1)
        rows = math.prod(self.position.shape[: axis if axis >= 0 else axis + self.position.ndim])
        return self.position.reshape(rows, -1)

    def _reshape(self, step: Step) -> Array:
        (shape,) = _constants(step, 2, 2)
        taken_as_zero = step.attributes.get("allowzero", 0) and (shape == 0).any()
        if not np.issubdtype(shape.dtype, np.integer) or shape.ndim != 1 or (shape < -1).any() or taken_as_zero:
            raise ValueError(f"{shape.reshape(-1)[:8].tolist()} is not supported as a shape")
        # 0 stands for the size that is there.
        return self.position.reshape([int(size) or self.position.shape[i] for i, size in enumerate(shape)])

    def _squeeze(self, step: Step) -> Array:
        axes = _axes(step)
        return self.position.squeeze(axes) if axes else self.position.squeeze()

    def _activation(self, step: Step) -> None:
        self.chain.activation(step.op.lower(), step.place)

    def _elementwise(self, step: Step) -> None:
        first, second = step.inputs
        constant = second if first is FLOW else first
        if not isinstance(constant, np.ndarray) or not np.issubdtype(constant.dtype, np.floating):
            raise ImportPolicyError(f"{step.place} needs a constant of floats.")
        values = self._spread(constant, step.place)
        one, none = np.ones_like(values), np.zeros_like(values)
        if step.op == "Add":
            self.chain.affine(one, values)
        elif step.op == "Sub":
            self.chain.affine(*((one, -values) if first is FLOW else (-one, values)))
        elif step.op == "Mul":
            self.chain.affine(values, none)
        elif first is FLOW:
            self.chain.affine(1 / values, none)
        else:
            raise ImportPolicyError(f"{step.place} divides by a computed tensor, which is not supported.")

    def _clip(self, step: Step) -> None:
        bounds = [step.attributes.get("min"), step.attributes.get("max")]
        for i, value in enumerate(step.inputs[1:3]):
            if isinstance(value, np.ndarray) and value.size == 1 and np.issubdtype(value.dtype, np.floating):
                bounds[i] = float(value.reshape(()))
            elif value is not None:
                raise ImportPolicyError(f"{step.place} has bounds that are not single floats: not supported.")
        if step.inputs[0] is not FLOW:
            raise ImportPolicyError(f"{step.place} clips a constant to computed bounds, which is not supported.")
        self.chain.clip(-math.inf if bounds[0] is None else bounds[0], math.inf if bounds[1] is None else bounds[1],
                        step.place)  # fmt: skip

    def _gemm(self, step: Step) -> None:
        kernel, *rest = _constants(step, 2, 3)
        alpha, beta = step.attributes.get("alpha", 1.0), step.attributes.get("beta", 1.0)
        if step.attributes.get("transA", 0) or self.position.ndim != 2:
            raise ImportPolicyError(f"{step.place} transposes what it is fed, or is not fed one row: not supported.")
        self._dense(alpha * _wide(kernel.T if step.attributes.get("transB", 0) else kernel, step), step)
        if rest:
            self._bias(beta * _wide(rest[0], step), step)

    def _matmul(self, step: Step) -> None:
        first, second = step.inputs
        if isinstance(second, np.ndarray):
            self._dense(_wide(second, step), step)
        elif isinstance(first, np.ndarray) and self.position.size in self.position.shape[:1]:
            # A matrix times a column, or times a vector without a batch axis.
            as_given = self.position.shape
            self.position = self.position.reshape(-1)
            self._dense(_wide(first.T, step), step)
            self.position = self.position.reshape(-1, *as_given[1:])
        else:
            raise ImportPolicyError(f"{step.place} multiplies a matrix by {self.position.shape}, which is no column.")

    def _dense(self, kernel: Vector, step: Step) -> None:
        ahead = self.position.shape[:-1]
        if kernel.ndim != 2 or kernel.shape[:1] != self.position.shape[-1:] or math.prod(ahead) != 1:
            raise ImportPolicyError(
                f"{step.place} multiplies {self.position.shape} by {kernel.shape}, which is not one row by a matrix."
            )
        self._before_weights(step)
        in_order = np.empty_like(kernel)
        in_order[self.position.reshape(-1)] = kernel
        self.chain.dense(in_order, np.zeros(kernel.shape[1]), step.place)
        self.position = np.arange(kernel.shape[1]).reshape(*ahead, -1)

    def _bias(self, bias: Vector, step: Step) -> None:
        values = self._spread(bias, step.place)
        self.chain.affine(np.ones_like(values), values)

    def _conv(self, step: Step) -> None:
        kernel, *rest = _constants(step, 2, 3)
        layer, shape = convolution(step, _wide(kernel, step), self.position, self.chain.shape)
        self._before_weights(step)
        self.chain.conv(layer, shape, step.place)
        self.position = channels_first(shape)[np.newaxis]
        if rest:
            self._bias(_wide(rest[0], step).reshape(-1, 1, 1), step)

    def _argmax(self, step: Step) -> None:
        axis, keep = step.attributes.get("axis", 0), step.attributes.get("keepdims", 1)
        if not -self.position.ndim <= axis < self.position.ndim or self.position.shape[axis] != self.position.size:
            raise ImportPolicyError(f"{step.place} does not choose among all values of its input.")
        if step.attributes.get("select_last_index", 0):
            raise ImportPolicyError(f"{step.place} takes the last of equal values; only the first is supported.")
        if (self.position.reshape(-1) != np.arange(self.position.size)).any():
            raise ImportPolicyError(f"{step.place} is fed by values that were rearranged, which is not supported.")
        self.position = self.position.take([0], axis) if keep else self.position.take(0, axis)
        self.chosen_at = step.place

    def _before_weights(self, step: Step) -> None:
        if self.undivided and not self.chain.touched:
            raise ImportPolicyError(
                f"{step.place} reads float frames that the graph has not scaled: it does not say whether they go "
                "from 0 to 255 or to 1. Put the division by 255 into the graph and export it again."
            )
        self.undivided = False

    def _spread(self, values: Array, place: str) -> Vector:
        """A constant of an elementwise operation, one value an element, in Keras' order."""
        try:
            shape = np.broadcast_shapes(values.shape, self.position.shape)
        except ValueError:
            shape = ()
        if math.prod(shape) != self.position.size or len(shape) > onnx_file.MAX_RANK:
            raise ImportPolicyError(f"{place} combines {self.position.shape} with constants of {values.shape}.")
        self.position = self.position.reshape(shape)
        spread = np.empty(self.position.size)
        spread[self.position.reshape(-1)] = np.broadcast_to(values, shape).reshape(-1)
        return spread

    # Operators that only change where elements lie.
    ARRANGING: ClassVar[dict[str, Callable[[_Reader, Step], Array]]] = {
        "Cast": _cast,
        "Flatten": _flatten,
        "Identity": lambda self, step: self.position,
        "Reshape": _reshape,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
    COMPUTING: ClassVar[dict[str, Callable[[_Reader, Step], None]]] = {
        "Add": _elementwise,
        "ArgMax": _argmax,
        "Clip": _clip,
        "Conv": _conv,
        "Div": _elementwise,
        "Gemm": _gemm,
        "MatMul": _matmul,
        "Mul": _elementwise,
        "Relu": _activation,
        "Sigmoid": _activation,
        "Sub": _elementwise,
        "Tanh": _activation,
    }


def _constants(step: Step, least: int, most: int | None = None) -> list[Array]:
    """The step's inputs behind the first, which must be the computed one; the others constant and there."""
    if step.inputs[0] is not FLOW:
        raise ImportPolicyError(f"{step.place} takes what was computed as something other than its first input.")
    rest = [value for value in step.inputs[1:] if isinstance(value, np.ndarray)]
    if len(rest) + 1 < least or (most is not None and len(rest) + 1 > most):
        raise ImportPolicyError(f"{step.place} lacks an input that must be a constant.")
    return rest


def _axes(step: Step) -> tuple[int, ...]:
    rest = _constants(step, 1, 2)
    return tuple(map(int, rest[0].reshape(-1)[: onnx_file.MAX_RANK] if rest else step.attributes.get("axes", ())))


def _wide(values: Array, step: Step) -> Vector:
    if not np.issubdtype(values.dtype, np.floating):
        raise ImportPolicyError(f"{step.place} has weights of {values.dtype}; only floats are supported.")
    return values.astype(np.float64)
