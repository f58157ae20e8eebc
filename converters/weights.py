"""Values on a grid: integers times a scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.artifact import FloatArray
from edge.errors import UserError

IntArray = npt.NDArray[np.int8]

_AS_GOOD_AS_ZERO = np.float32(1e-35)


class GridError(UserError):
    """Weights that do not lie on the grid that they are said to lie on."""


@dataclass(frozen=True)
class Steps:
    """The grid of an activation: the integers from low to high, times a scale."""

    scale: float
    low: int
    high: int

    @property
    def refinement(self) -> int:
        """How many times finer a grid of 8 bits can be that has all of these steps."""
        return 255 // self.high if self.low == 0 else 127 // self.high

    def __call__(self, values: FloatArray) -> FloatArray:
        """The nearest of them, float32."""
        scale = np.float32(self.scale)
        return np.asarray(np.clip(np.rint(values / scale), self.low, self.high) * scale, np.float32)


@dataclass(frozen=True)
class Grid:
    """A kernel as integers; the weights are integers * scale, in float32.

    Attributes:
      integers: int8 in Keras' layout, outputs on the last axis; (inputs, outputs) or (height, width, inputs, outputs).
      scale: float32, () for one scale or (outputs,) for one an output.
      bits: 8, 4 or 2: -127..127, -8..7 or -2..1.
    """

    integers: IntArray
    scale: FloatArray
    bits: int

    def __post_init__(self) -> None:
        """Refuse integers beyond the bits, and scales that mean nothing."""
        if self.bits not in (8, 4, 2):
            raise GridError(
                f"Weights are packed at 8, 4 or 2 bits, not {self.bits}: give the next that is wide enough."
            )
        if not fits_bits(self.integers, self.bits):
            raise GridError(
                f"Integers from {self.integers.min()} to {self.integers.max()} do not fit {self.bits} bits, "
                f"{_lowest(self.bits)} to {2 ** (self.bits - 1) - 1}."
            )
        if self.scale.shape not in ((), self.integers.shape[-1:]):
            raise GridError(
                f"{self.scale.shape} is no shape for the scale of {self.integers.shape} weights; give one scale, or "
                f"{self.integers.shape[-1]}."
            )
        if not (np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise GridError("The scale of a grid must be above 0 and finite.")

    @property
    def weights(self) -> FloatArray:
        """The weights, float32, in Keras' layout."""
        return self.integers.astype(np.float32) * self.scale

    @classmethod
    def of(cls, kernel: FloatArray, scale: npt.ArrayLike, bits: int) -> Grid:
        """The grid of a kernel that was trained on one: exactly, or not at all.

        Raises:
          GridError: some weight is not an integer times its scale, or needs more bits.
        """
        scale = np.asarray(scale, np.float32)
        integers = np.rint(kernel / scale)
        if not (np.abs(integers) <= 128).all():
            raise GridError(f"Weights up to {np.abs(integers).max():.0f} steps from zero do not fit {bits} bits.")
        grid = cls(integers.astype(np.int8), scale, bits)
        off = grid.weights != kernel
        if off.any():
            raise GridError(
                f"{int(off.sum())} of {kernel.size} weights are not whole multiples of their scale. Give the scale "
                "that they were trained with, and float32 weights made as integer * scale."
            )
        return grid


def fits_bits(integers: IntArray, bits: int) -> bool:
    """Whether weights of 2, 4 or 8 bits can be these."""
    return not integers.size or bool(_lowest(bits) <= integers.min() and integers.max() < 2 ** (bits - 1))


def _lowest(bits: int) -> int:
    # TFLite's 8-bit weights leave -128 out.
    return -127 if bits == 8 else -(2 ** (bits - 1))


def nearest_grid(kernel: FloatArray, bits: int, *, per_channel: bool) -> Grid:
    """The grid that a trained kernel is rounded to.

    With 8 bits the largest weight is the last step. With fewer, where most steps would go to a few large weights, the
    scale is the one of least squared error, of those from that down to a fifth of it.
    """
    steps = 2 ** (bits - 1) - 1
    scale = best_scale(kernel.reshape(-1, kernel.shape[-1]), -steps, steps, per_channel=per_channel)
    integers = np.clip(np.rint(kernel / scale), -steps, steps).astype(np.int8)
    return Grid(integers, scale, bits)


def best_scale(rows: FloatArray, low: int, high: int, *, per_channel: bool) -> FloatArray:
    """The scale at which integers from low to high come closest to values, () or (columns,) float32.

    Where there are 127 steps or more, the largest value is the last, so that none is cut off.
    """
    best = widest = range_scale(rows, high, per_channel=per_channel)
    if high < 127:
        error = np.full(widest.shape, np.inf)
        for fraction in np.linspace(1.0, 0.2, 81, dtype=np.float32):
            scale = widest * fraction
            squared = (np.clip(np.rint(rows / scale), low, high) * scale - rows) ** 2
            squared = squared.sum(axis=0) if per_channel else squared.sum()
            best = np.where(squared < error, scale, best)
            error = np.minimum(squared, error)
    return np.asarray(best, np.float32)


def range_scale(rows: FloatArray, high: int, *, per_channel: bool) -> FloatArray:
    """The scale at which the largest value is step `high`, () or (columns,) float32; NaN or infinite if that is."""
    axis = 0 if per_channel else None
    largest = np.maximum(rows.max(axis=axis), -rows.min(axis=axis))
    # A layer of nothing but zeros needs some scale, and kernels refuse one that is below float32's normal numbers.
    return np.where(largest < _AS_GOOD_AS_ZERO, np.float32(1), largest) / np.float32(high)
