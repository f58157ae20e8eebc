"""Between a plant's units and a network whose input or output tensor is integer: normalise, quantise, and back.

A network with float input and output has all of this in its graph. One with integer tensors, which the Edge TPU wants,
works in normalised units: its input is the observation normalised by the manifest, its output an action in [-1, 1] for
each element that has bounds. A real value r is stored as the integer q with r = scale * (q - zero_point).

Frames are bytes already. A network with integer tensors sees them divided by 255, which is its input's scale, so that a
byte is either the integer itself or 128 above it. Logits are real values, in no other units than their own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import ActionSpec, Normalizer
from edge.errors import ManifestError


class Quantiser:
    """Writes observations into an integer tensor, without allocating.

    Attributes:
      values: float32 array of the observation's shape, in which the caller puts the observation before `store`.
    """

    def __init__(self, tensor: npt.NDArray[Any], scale: float, zero_point: int, normalizer: Normalizer | None) -> None:
        """Prepare to fill `tensor`, one observation without its batch axis, of int8 or uint8.

        Raises:
          ManifestError: the tensor has no scale.
        """
        _check_scale(scale, "input")
        self._tensor = tensor
        limits = np.iinfo(tensor.dtype)
        shape = tensor.shape
        mean, std, clip = np.zeros(shape), np.ones(shape), math.inf
        if normalizer is not None:
            mean, std = (np.asarray(values, np.float64).reshape(shape) for values in (normalizer.mean, normalizer.std))
            clip = math.inf if normalizer.clip is None else normalizer.clip
        # q = (x - mean) / std / scale + zero_point, with the zero point moved into the mean: one operation less, and
        # the large part of an observation far from zero is still subtracted first.
        self._gain = (1 / (std * scale)).astype(np.float32)
        self._offset = (mean - zero_point * std * scale).astype(np.float32)
        # Normalised values end at `clip`, integers at the ends of their type. The limits lie before the gain, which
        # could otherwise overflow.
        lowest, highest = max(limits.min, zero_point - clip / scale), min(limits.max, zero_point + clip / scale)
        self._lowest = (lowest * std * scale).astype(np.float32)
        self._highest = (highest * std * scale).astype(np.float32)
        self.values = np.zeros(shape, np.float32)

    def store(self) -> None:
        """Normalise and quantise `values`, which must be finite, into the tensor; `values` is used up."""
        values = self.values
        np.subtract(values, self._offset, values)
        np.maximum(values, self._lowest, out=values)
        np.minimum(values, self._highest, out=values)
        np.multiply(values, self._gain, values)
        self._tensor[...] = np.rint(values, values)


class FrameQuantiser:
    """Writes frames into an integer tensor, without allocating."""

    def __init__(self, tensor: npt.NDArray[Any], scale: float, zero_point: int) -> None:
        """Prepare to fill `tensor`, one frame without its batch axis, of int8 or uint8.

        Raises:
          ManifestError: the tensor's integers are not bytes divided by 255.
        """
        expected = int(np.iinfo(tensor.dtype).min)
        # A converter may have rounded the scale to float32, after a division that it rounded too.
        if not math.isclose(scale, 1 / 255, rel_tol=1e-6) or zero_point != expected:
            raise ManifestError(
                f"The graph's {tensor.dtype} input has the scale {scale:g} and the zero point {zero_point}; for frames "
                f"these must be 1/255 and {expected}. Convert again."
            )
        self._tensor = tensor.view(np.uint8)
        # From 0..255 to -128..127, in two's complement, is the highest bit turned round.
        self._flip = np.uint8(-expected)

    def store(self, frame: npt.NDArray[np.uint8]) -> None:
        """Write a frame of the tensor's shape into it."""
        np.bitwise_xor(frame, self._flip, self._tensor)


class Dequantiser:
    """Makes float actions of an integer tensor."""

    def __init__(self, tensor: npt.NDArray[Any], scale: float, zero_point: int, spec: ActionSpec) -> None:
        """Prepare to read `tensor`, one action without its batch axis, of int8 or uint8.

        Raises:
          ManifestError: the tensor has no scale.
        """
        _check_scale(scale, "output")
        self._tensor = tensor
        bounded, half_range, middle = (values.reshape(spec.shape) for values in spec.scaling)
        self._gain = (half_range * scale).astype(np.float32)
        self._offset = (middle - half_range * scale * zero_point).astype(np.float32)
        self._low = np.where(bounded, middle - half_range, -math.inf).astype(np.float32)
        self._high = np.where(bounded, middle + half_range, math.inf).astype(np.float32)

    def action(self) -> npt.NDArray[np.float32]:
        """The action in the plant's units, within its bounds, in a new array."""
        action: npt.NDArray[np.float32] = self._tensor * self._gain
        np.add(action, self._offset, action)
        np.maximum(action, self._low, out=action)
        return np.minimum(action, self._high, out=action)


class LogitsDequantiser:
    """Makes float logits of an integer tensor."""

    def __init__(self, tensor: npt.NDArray[Any], scale: float, zero_point: int) -> None:
        """Prepare to read `tensor`, (n,) of int8 or uint8.

        Raises:
          ManifestError: the tensor has no scale.
        """
        _check_scale(scale, "output")
        self._tensor, self._scale = tensor, np.float32(scale)
        self._zero_point = np.float32(zero_point)

    def logits(self) -> npt.NDArray[np.float32]:
        """The logits, (n,), in a new array."""
        logits: npt.NDArray[np.float32] = np.subtract(self._tensor, self._zero_point, dtype=np.float32)
        np.multiply(logits, self._scale, logits)
        return logits


def _check_scale(scale: float, which: str) -> None:
    if not 0 < scale < math.inf:
        raise ManifestError(f"The graph's integer {which} has the scale {scale:g}, which means nothing. Convert again.")
