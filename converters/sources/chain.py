"""Operations in a row, gathered into the layers of a Keras network and the normaliser in front of it.

Elementwise constants disappear: at the front they become the spec's normaliser, elsewhere they are folded into the
layer before or after, at the end they are set against the action bounds, to which the deployed policy scales. All
in float64, so that only the rounding of the finished float32 weights is left.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters.sources import ImportPolicyError
from converters.sources.layers import Layer, build
from edge.artifact import ActionSpec, Normalizer, PolicySpec

Vector = npt.NDArray[np.float64]

# Two float32 constants that are meant to be the same may differ by this fraction.
ROUNDING = 1e-6

# Where an activation's values lie.
RANGES = {"relu": (0.0, np.inf), "tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}


@dataclass
class Linear:
    """A Dense or Conv2D layer: kernel (inputs, outputs) or (height, width, inputs, outputs), bias (outputs,)."""

    kernel: Vector
    bias: Vector
    strides: tuple[int, int] = (1, 1)
    padding: str = "valid"

    def scale_outputs(self, scale: Vector, shift: Vector) -> None:
        """Make it give scale * output + shift, both (outputs,)."""
        self.kernel = self.kernel * scale
        self.bias = self.bias * scale + shift

    def scale_inputs(self, scale: Vector, shift: Vector) -> None:
        """Make it read scale * input + shift, both (inputs,)."""
        self.bias = self.bias + (self.kernel * shift[:, np.newaxis]).reshape(-1, self.bias.size).sum(axis=0)
        self.kernel = self.kernel * scale[:, np.newaxis]


class Chain:
    """What has been gathered. Vectors that are given hold one value an element, in the order of Keras' Flatten.

    Attributes:
      shape: of what comes out so far; (n,) or (height, width, channels).
      touched: whether anything elementwise came since the last layer or activation.
    """

    def __init__(self, spec: PolicySpec) -> None:
        """Begin with the observation, as the environment gives it."""
        self.spec = spec
        self.shape = spec.observation.shape
        self.entries: list[Linear | str] = []
        self._clipped_at: str | None = None
        if spec.observation.dtype == "uint8":
            # The deployed policy divides by 255 before the network.
            self._restart(0.0, 1.0)
            self._scale *= 255.0
        else:
            self._restart(-np.inf, np.inf)

    def affine(self, scale: Vector, shift: Vector) -> None:
        """Every element times `scale` plus `shift`."""
        self._scale, self._shift = self._scale * scale, self._shift * scale + shift
        limits = np.sort([self._low * scale + shift, self._high * scale + shift], axis=0)
        self._low, self._high = limits
        self.touched = True

    def clip(self, low: float, high: float, place: str) -> None:
        """Every element between `low` and `high`."""
        if not low < high:
            raise ImportPolicyError(f"{place} clips to between {low} and {high}, which leaves nothing.")
        known_low, known_high = self._known_range()
        # A value and its bound may be the same number, rounded differently.
        slack = ROUNDING * np.maximum(np.abs(known_low), np.abs(known_high))
        slack = np.where(np.isfinite(slack), slack, 0.0)
        if (known_low >= low - slack).all() and (known_high <= high + slack).all():
            return
        if (low, high) == (0.0, np.inf):
            self.activation("relu", place)
            return
        if not (np.maximum(self._low, low) < np.minimum(self._high, high)).all():
            raise ImportPolicyError(f"{place} leaves nothing of what {self._clipped_at} let through.")
        first = self._clipped_at is None
        self._low, self._high = np.maximum(self._low, low), np.minimum(self._high, high)
        self._clipped_at, self.touched = place, True
        if not self.entries and first and low == -high and self._becomes_normalizer():
            self._normalize(high)

    def activation(self, name: str, place: str) -> None:
        """One of `RANGES`."""
        self._settle(place, None)
        self.entries.append(name)
        self._restart(*RANGES[name])

    def dense(self, kernel: Vector, bias: Vector, place: str) -> None:
        """A matrix product, kernel (inputs, outputs), and a bias, (outputs,)."""
        layer = Linear(kernel, bias)
        self._settle(place, layer)
        if len(self.shape) > 1:
            self.entries.append("flatten")
        self._append(layer, (kernel.shape[1],))

    def conv(self, layer: Linear, shape: tuple[int, int, int], place: str) -> None:
        """A convolution that gives (height, width, channels) `shape`."""
        self._settle(place, layer)
        self._append(layer, shape)

    def finish(self, *, unit_actions: bool) -> tuple[keras.Sequential, PolicySpec]:
        """The network and the spec that it goes with.

        Args:
          unit_actions: whether a continuous action is one in [-1, 1], to be scaled to the bounds, rather than one in
            the environment's units.
        """
        if not any(isinstance(entry, Linear) for entry in self.entries):
            raise ImportPolicyError("The graph has no Gemm, MatMul or Conv between its input and output: no network.")
        action = self.spec.action
        if action.discrete:
            if self._clipped_at:
                raise ImportPolicyError(f"{self._clipped_at} clips the scores of the choices, which is not supported.")
        else:
            self._meet_bounds(action, unit_actions)
        self._settle("The output", None, last=True)
        if len(self.shape) > 1:
            self.entries.append("flatten")
        return self._build(), self.spec

    def _restart(self, low: float, high: float) -> None:
        """Nothing elementwise is pending on what comes now, which lies between `low` and `high`."""
        size = int(np.prod(self.shape))
        self._range = (low, high)
        self._scale, self._shift = np.ones(size), np.zeros(size)
        self._low, self._high = np.full(size, -np.inf), np.full(size, np.inf)
        self._clipped_at, self.touched = None, False

    def _append(self, layer: Linear, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.entries.append(layer)
        self._restart(-np.inf, np.inf)

    def _known_range(self) -> tuple[Vector, Vector]:
        ends = np.sort([self._range[0] * self._scale + self._shift, self._range[1] * self._scale + self._shift], axis=0)
        return np.maximum(ends[0], self._low), np.minimum(ends[1], self._high)

    def _becomes_normalizer(self) -> bool:
        # Bytes have a normalisation of their own, and where the spec has one the graph begins behind it.
        free = self.spec.normalizer is None and self.spec.observation.dtype == "float32"
        mean, std = (values.astype(np.float32) for values in self._mean_and_std())
        return bool(free and np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all())

    def _mean_and_std(self) -> tuple[Vector, Vector]:
        return -self._shift / self._scale, 1 / self._scale

    def _normalize(self, clip: float | None) -> None:
        mean, std = self._mean_and_std()
        normalizer = Normalizer(tuple(map(float, mean)), tuple(map(float, std)), clip)
        self.spec = dataclasses.replace(self.spec, normalizer=normalizer)
        self._restart(-np.inf if clip is None else -clip, np.inf if clip is None else clip)

    def _settle(self, place: str, following: Linear | None, *, last: bool = False) -> None:
        """Put what is pending where it belongs, before something that is not elementwise."""
        if self._clipped_at and self.entries:
            raise ImportPolicyError(
                f"{self._clipped_at} does not clip actions to their bounds; between layers only a clip at 0, which is "
                "Relu, can be represented."
            )
        if self._clipped_at:
            raise ImportPolicyError(
                f"{self._clipped_at} is neither a clip of the observation to -c and c nor one to the action bounds: it "
                "cannot be represented."
            )
        if not ((self._scale != 1) | (self._shift != 0)).any():
            return
        before = self.entries[-1] if self.entries else None
        # One factor for all pixels needs no mean and deviation for each.
        one_factor = len(self.shape) > 1 and not self._shift.any() and (self._scale == self._scale[0]).all()
        if before is None and self._becomes_normalizer() and not (one_factor and following is not None):
            self._normalize(None)
        elif isinstance(before, Linear):
            before.scale_outputs(*self._channelwise(self._scale, self._shift, before.kernel, place))
        elif following is not None:
            if following.padding == "same" and self._shift.any():
                raise ImportPolicyError(
                    f"{place} pads with zeros what was shifted before: it cannot be represented. Export it without "
                    "padding."
                )
            channels = following.kernel.shape[-2]
            if following.kernel.ndim == 2:
                following.scale_inputs(self._scale, self._shift)
            else:
                following.scale_inputs(*self._by_channel(channels, place))
        elif last and len(self.shape) == 1:
            self.entries.append(Linear(np.diag(self._scale), self._shift))
        else:
            raise ImportPolicyError(
                f"{place} follows elementwise constants that no Gemm, MatMul or Conv is beside: not supported."
            )
        self._restart(*self._range)

    def _channelwise(self, scale: Vector, shift: Vector, kernel: Vector, place: str) -> tuple[Vector, Vector]:
        return (scale, shift) if kernel.ndim == 2 else self._by_channel(kernel.shape[-1], place)

    def _by_channel(self, channels: int, place: str) -> tuple[Vector, Vector]:
        scale, shift = self._scale.reshape(-1, channels), self._shift.reshape(-1, channels)
        if (scale != scale[0]).any() or (shift != shift[0]).any():
            raise ImportPolicyError(
                f"The constants before {place} differ from pixel to pixel, which a convolution cannot take in."
            )
        return scale[0], shift[0]

    def _meet_bounds(self, action: ActionSpec, unit_actions: bool) -> None:
        """From actions in the environment's units to what the deployed policy clips to [-1, 1] and scales."""
        bounded, half_range, middle = action.scaling
        units = (half_range == 1) & (middle == 0)
        if self.entries[-1] == "tanh" and not self.touched and not units.all() and not unit_actions:
            raise ImportPolicyError(
                "The graph ends in Tanh, so its actions lie between -1 and 1, but the action bounds are others. If "
                "they are to be scaled to the bounds, as those of Stable-Baselines3's actors are, say so with "
                "unit_actions (--unit-actions); if not, give -1 and 1 as bounds, or the scaling as a last node."
            )
        if not unit_actions:
            self.affine(1 / half_range, -middle / half_range)
        lets_through = np.where(bounded, (self._low <= -1 + ROUNDING) & (self._high >= 1 - ROUNDING), False)
        if self._clipped_at and not lets_through.all():
            raise ImportPolicyError(
                f"{self._clipped_at} clips actions to other bounds than the environment's, {list(action.low)} to "
                f"{list(action.high)}: give those that the policy was trained with."
            )
        self._clipped_at = None
        before = self.entries[-2] if len(self.entries) > 1 else None
        if self.entries[-1] == "sigmoid" and isinstance(before, Linear) and self._near(2.0, -1.0):
            # 2 sigmoid(x) - 1 = tanh(x / 2), and halving is exact.
            half = np.full(before.bias.shape, 0.5)
            before.scale_outputs(half, np.zeros_like(half))
            self.entries[-1] = "tanh"
            self._restart(*RANGES["tanh"])
        elif not isinstance(self.entries[-1], Linear) and self._near(1.0, 0.0):
            self._restart(*self._range)

    def _near(self, scale: float, shift: float) -> bool:
        return bool(np.allclose(self._scale, scale, 0, ROUNDING) and np.allclose(self._shift, shift, 0, ROUNDING))

    def _build(self) -> keras.Sequential:
        layers = []
        for i, entry in enumerate(self.entries):
            following = self.entries[i + 1] if i + 1 < len(self.entries) else None
            activation = following if isinstance(following, str) and following in RANGES else "linear"
            if isinstance(entry, Linear) and entry.kernel.ndim == 2:
                layers.append(Layer("dense", entry.kernel.shape[1], activation))
            elif isinstance(entry, Linear):
                height, width, _, filters = entry.kernel.shape
                layers.append(Layer("conv2d", filters, activation, True, (height, width), entry.strides, entry.padding))
            elif entry == "flatten":
                layers.append(Layer("flatten"))
            elif i == 0 or not isinstance(self.entries[i - 1], Linear):
                layers.append(Layer("activation", activation=entry))
        network = build(self.spec.observation.shape, layers)
        weights = [value for entry in self.entries if isinstance(entry, Linear) for value in (entry.kernel, entry.bias)]
        with np.errstate(over="ignore"):
            weights = [value.astype(np.float32) for value in weights]
        if not all(np.isfinite(value).all() for value in weights):
            raise ImportPolicyError("The weights have NaN or infinity in them, or are beyond the range of float32.")
        network.set_weights(weights)
        return network
