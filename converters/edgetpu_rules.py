"""What the Edge TPU takes of each operation: the table of its compiler's limits.

Sources: coral.ai/docs/edgetpu/models-intro (operations, with their limits and the requirements of models), the table of
the same compiler that Axis prints for ARTPEC-7, and reports of edgetpu_compiler in github.com/google-coral/edgetpu. The
compiler's source is closed and its last version, 16, is of 2021. What a rule cannot tell from the model alone, or what
we know from memory only, is not `certain`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_SOFTMAX_ELEMENTS = 16_000


@dataclass(frozen=True)
class Tensor:
    """A tensor of a flatbuffer.

    Attributes:
      index: its place among the tensors of its subgraph; names need not be unique.
      name: its name.
      shape: its shape; -1 where it is dynamic.
      type: of `schema.TensorType`.
      scales: number of its quantisation scales.
      data: its bytes, if it is a constant.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    type: int
    scales: int
    data: bytes | None

    @property
    def dynamic(self) -> bool:
        """Whether some dimension is known only when the model runs."""
        return -1 in self.shape


@dataclass(frozen=True)
class Operation:
    """An operation of a flatbuffer.

    Attributes:
      name: as `schema.BuiltinOperator` has it, or the name of a custom operation.
      version: its version.
      inputs: what it reads; None for an optional input that is not there.
      outputs: what it gives.
      options: its options, as the schema has them; None without any.
    """

    name: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any

    def integers(self, index: int) -> list[int]:
        """The constant int32 values of an input, such as axes."""
        tensor = self.inputs[index]
        return [] if tensor is None or tensor.data is None else np.frombuffer(tensor.data, np.int32).tolist()


# Says what is wrong with an operation; None if nothing is.
Limit = Callable[[Operation], str | None]


@dataclass(frozen=True)
class Rule:
    """What one operation has to keep to.

    Attributes:
      limits: what is checked.
      parameters: inputs that are weights and biases, and must be constants.
      indices: inputs that are shapes or axes: 32-bit integers, constants.
      doubt: why it may stay on the processor though it keeps to everything; empty if it will not.
      max_version: the newest version of the operation that the compiler knows; None if we do not know.
    """

    limits: tuple[Limit, ...] = ()
    parameters: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    doubt: str = ""
    max_version: int | None = None


def _no_fused_activation(operation: Operation) -> str | None:
    return "it has a fused activation" if operation.options.fusedActivationFunction else None


def _one_dilation(operation: Operation) -> str | None:
    options = operation.options
    return "its dilations differ" if options.dilationHFactor != options.dilationWFactor else None


def _default_weights_format(operation: Operation) -> str | None:
    return "its weights are not in the default format" if operation.options.weightsFormat else None


def _one_dimensional_output(operation: Operation) -> str | None:
    return "its output has more than one dimension" if math.prod(operation.outputs[0].shape[:-1]) != 1 else None


def _one_dimensional_input(operation: Operation) -> str | None:
    tensor = operation.inputs[0]
    return "its input has more than one dimension" if tensor and math.prod(tensor.shape[:-1]) != 1 else None


def _few_elements(operation: Operation) -> str | None:
    elements = math.prod(operation.outputs[0].shape)
    return f"it has {elements} elements, more than {MAX_SOFTMAX_ELEMENTS}" if elements > MAX_SOFTMAX_ELEMENTS else None


def _not_over_the_batch(operation: Operation) -> str | None:
    tensor = operation.inputs[0]
    rank = len(tensor.shape) if tensor else 0
    return "it reduces the batch" if 0 in (axis % max(rank, 1) for axis in operation.integers(1)) else None


def _channels_by_fours(operation: Operation) -> str | None:
    tensor = operation.inputs[0]
    if tensor is None or len(tensor.shape) < 2 or tensor.shape[-1] % 4 == 0:
        return None
    over_channels = len(tensor.shape) - 1 in (axis % len(tensor.shape) for axis in operation.integers(1))
    return "it averages over channels whose number is not a multiple of 4" if over_channels else None


def _no_padded_batch(operation: Operation) -> str | None:
    return "it pads the batch" if any(operation.integers(1)[:2]) else None


def _not_packed_batch(operation: Operation) -> str | None:
    return "it packs along the batch" if operation.options.axis % len(operation.outputs[0].shape) == 0 else None


def _only_zeros_appended(operation: Operation) -> str | None:
    constants = [tensor for tensor in operation.inputs if tensor and tensor.data is not None]
    if constants and (len(operation.inputs) != 2 or any(any(tensor.data or b"") for tensor in constants)):
        return "it concatenates a constant that is not all zeros, or with more than one input"
    return None


def _one_dimensional_alpha(operation: Operation) -> str | None:
    alpha = operation.inputs[1]
    return "its alpha has more than one dimension" if alpha and math.prod(alpha.shape[:-1]) != 1 else None


def _leading_ones(operation: Operation) -> str | None:
    tensor = operation.inputs[0]
    removed = len(tensor.shape) - len(operation.outputs[0].shape) if tensor else 0
    ones = tensor is not None and tensor.shape[:removed] == (1,) * removed
    return None if ones else "it squeezes more than leading dimensions"


def _plain_slice(operation: Operation) -> str | None:
    options = operation.options
    plain = set(operation.integers(3)) == {1} and not options.ellipsisMask and not options.newAxisMask
    return None if plain else "it has strides other than 1, an ellipsis or a new axis"


_RESIZE = Rule(indices=(1,), doubt="depending on the sizes it is left out, for its precision")
_FROM_MEMORY = "we have no table at hand that names it"

RULES: dict[str, Rule] = {
    "ADD": Rule(),
    "AVERAGE_POOL_2D": Rule((_no_fused_activation,)),
    "CONCATENATION": Rule((_no_fused_activation, _only_zeros_appended)),
    # Version 6: google-coral/edgetpu#631.
    "CONV_2D": Rule((_one_dilation,), parameters=(1, 2), max_version=5),
    "DEPTHWISE_CONV_2D": Rule((_one_dilation,), parameters=(1, 2)),
    "EXPAND_DIMS": Rule(indices=(1,)),
    "FULLY_CONNECTED": Rule((_default_weights_format, _one_dimensional_output), parameters=(1, 2)),
    "L2_NORMALIZATION": Rule(),
    "LOGISTIC": Rule(),
    "MAXIMUM": Rule(),
    "MAX_POOL_2D": Rule((_no_fused_activation,)),
    "MEAN": Rule((_not_over_the_batch, _channels_by_fours), indices=(1,)),
    "MINIMUM": Rule(),
    "MUL": Rule(),
    "PACK": Rule((_not_packed_batch,)),
    "PAD": Rule((_no_padded_batch,), indices=(1,)),
    "PRELU": Rule((_one_dimensional_alpha,), parameters=(1,)),
    "QUANTIZE": Rule(),
    "REDUCE_MAX": Rule((_not_over_the_batch,), indices=(1,)),
    "REDUCE_MIN": Rule((_not_over_the_batch,), indices=(1,)),
    "RELU": Rule(),
    "RELU6": Rule(),
    "RELU_N1_TO_1": Rule(),
    "RESHAPE": Rule(indices=(1,), doubt="large ones are left out, and nobody says from which size on"),
    "RESIZE_BILINEAR": _RESIZE,
    "RESIZE_NEAREST_NEIGHBOR": _RESIZE,
    "RSQRT": Rule(doubt=_FROM_MEMORY),
    "SLICE": Rule(indices=(1, 2)),
    "SOFTMAX": Rule((_one_dimensional_input, _few_elements)),
    "SPACE_TO_DEPTH": Rule(),
    "SPLIT": Rule(indices=(0,), doubt="we know from memory only that it must not split the batch"),
    "SQUARED_DIFFERENCE": Rule(doubt=_FROM_MEMORY),
    "SQUEEZE": Rule((_leading_ones,)),
    "STRIDED_SLICE": Rule((_plain_slice,), indices=(1, 2, 3)),
    "SUB": Rule(),
    "SUM": Rule((_not_over_the_batch,), indices=(1,), doubt=_FROM_MEMORY),
    "TANH": Rule(),
    "TRANSPOSE": Rule(indices=(1,), doubt="the compiler leaves some out, without a rule that is told"),
    "TRANSPOSE_CONV": Rule(parameters=(1, 3), indices=(0,), doubt=_FROM_MEMORY),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Rule(doubt="its weights and states are not checked here"),
}
