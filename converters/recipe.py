"""Named, serialisable ways to convert a policy.

A name says what the integers are: `int8` has 8-bit weights and 8-bit activations between float input and output.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from edge.errors import UnknownNameError, UsageError

Activations = Literal["float32", "dynamic-int8", "int8", "int16"]
Calibration = Literal["min-max", "percentile", "mse"]

# On fewer, a range or a comparison says little.
MIN_OBSERVATIONS = 100

LITERT = "ai-edge-litert"
LITERT_2_BIT = "ai-edge-litert 2.1.5"  # the oldest tried that has the kernels; 2.1.0 has not
TFLITE_RUNTIME = "tflite-runtime 2.14"


_COMBINATIONS: tuple[tuple[int, Activations], ...] = (
    (32, "float32"),
    (16, "float32"),
    (8, "dynamic-int8"),
    (4, "dynamic-int8"),
    (2, "dynamic-int8"),
    (8, "int8"),
    (4, "int8"),
    (2, "int8"),
    (8, "int16"),
)


@dataclass(frozen=True)
class Tolerance:
    """What a conversion may cost; one that costs more is rejected.

    Attributes:
      action_error: mean absolute difference of a continuous action, as a fraction of half the range between its bounds
        (of 1, where it has none).
      agreement: least fraction of observations on which a discrete policy chooses the same.
      return_loss: fraction of the float policy's mean return. A conversion is rejected if its loss is shown to be
        larger: if the whole 95 % interval of the difference lies beyond it.
    """

    action_error: float
    agreement: float
    return_loss: float


@dataclass(frozen=True)
class Recipe:
    """A way to convert.

    Attributes:
      name: what it is called on the command line and in the manifest.
      summary: one line for people.
      weight_bits: bits of a weight: 32 and 16 are float, 8, 4 and 2 integer.
      activations: what flows between the layers. dynamic-int8: floats, made 8-bit integers before each layer with a
        scale of the moment.
      integer_io: whether the model's input and output tensors are integer too; `edge` then normalises and scales.
      per_channel: whether each output of a layer has a weight scale of its own, rather than the layer one.
      calibration: how the range of an activation is taken from the observations: its true extremes; the 99.9 % in the
        middle; or the range with the least mean squared error.
      calibration_observations: how many observations it is calibrated on, at most.
      float_layers: names of layers that stay in float.
      tolerance: what it may cost.
    """

    name: str
    summary: str
    weight_bits: int
    activations: Activations
    integer_io: bool
    per_channel: bool
    tolerance: Tolerance
    calibration: Calibration = "min-max"
    calibration_observations: int = 10_000
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be combined."""
        if (self.weight_bits, self.activations) not in _COMBINATIONS:
            raise UsageError(
                f"{self.weight_bits}-bit weights and {self.activations} activations cannot be combined; these can: "
                + ", ".join(f"{bits} and {activations}" for bits, activations in _COMBINATIONS)
                + "."
            )
        if self.float_layers and (self.weight_bits > 8 or self.integer_io):
            raise UsageError(
                f"The recipe {self.name} has no float layers to choose: they are for dynamic-int8, int8, int16x8, "
                "int4 and int2."
            )
        if self.calibration_observations < MIN_OBSERVATIONS:
            raise UsageError(
                f"Calibrate on at least {MIN_OBSERVATIONS} observations, not {self.calibration_observations}."
            )

    @property
    def calibrated(self) -> bool:
        """Whether the recipe needs the ranges of activations."""
        return self.activations in ("int8", "int16")

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The interpreters that load what it makes, and compute it right (tests/converters/test_runtimes.py)."""
        if self.weight_bits == 2:
            return (LITERT_2_BIT,)
        if self.per_channel and self.activations != "int16":
            return (LITERT,)
        if self.weight_bits < 8 and self.activations != "int8":
            return (LITERT,)
        return LITERT, TFLITE_RUNTIME

    def plain(self) -> dict[str, Any]:
        """For the manifest."""
        return {**dataclasses.asdict(self), "runtimes": list(self.runtimes)}


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "float32",
            "32-bit floats throughout",
            weight_bits=32,
            activations="float32",
            integer_io=False,
            per_channel=False,
            tolerance=Tolerance(1e-4, 0.999, 0.02),
        ),
        Recipe(
            "float16",
            "weights stored as 16-bit floats; arithmetic in float32",
            weight_bits=16,
            activations="float32",
            integer_io=False,
            per_channel=False,
            tolerance=Tolerance(0.01, 0.99, 0.02),
        ),
        Recipe(
            "dynamic-int8",
            "8-bit weights; activations become 8-bit layer by layer, with a scale of the moment; no calibration",
            weight_bits=8,
            activations="dynamic-int8",
            integer_io=False,
            per_channel=True,
            tolerance=Tolerance(0.05, 0.9, 0.02),
        ),
        Recipe(
            "int8",
            "8-bit integer kernels between float input and output",
            weight_bits=8,
            activations="int8",
            integer_io=False,
            per_channel=False,
            tolerance=Tolerance(0.05, 0.9, 0.02),
        ),
        Recipe(
            "int8-full",
            "8-bit integers from input to output, as the Edge TPU wants them",
            weight_bits=8,
            activations="int8",
            integer_io=True,
            per_channel=False,
            tolerance=Tolerance(0.05, 0.9, 0.02),
        ),
        Recipe(
            "int16x8",
            "8-bit weights, 16-bit activations: closer to float, slower than it on most processors",
            weight_bits=8,
            activations="int16",
            integer_io=False,
            per_channel=True,
            tolerance=Tolerance(0.05, 0.9, 0.02),
        ),
        Recipe(
            "int4",
            "4-bit weights, two in a byte; activations as in dynamic-int8",
            weight_bits=4,
            activations="dynamic-int8",
            integer_io=False,
            per_channel=True,
            tolerance=Tolerance(0.2, 0.8, 0.05),
        ),
        Recipe(
            "int2",
            "2-bit weights, four in a byte, for networks trained for that; activations as in dynamic-int8",
            weight_bits=2,
            activations="dynamic-int8",
            integer_io=False,
            per_channel=True,
            tolerance=Tolerance(0.2, 0.8, 0.05),
        ),
    )
}


# Of any other network they make what int8 makes, worse: the grids of its weights are the nearest.
TRAINED_RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "int8x4",
            "int8 with 4-bit weights, two in a byte, for networks trained on such a grid",
            weight_bits=4,
            activations="int8",
            integer_io=False,
            per_channel=False,
            tolerance=Tolerance(0.2, 0.8, 0.05),
        ),
        Recipe(
            "int8x2",
            "int8 with 2-bit weights, four in a byte, for networks trained on such a grid",
            weight_bits=2,
            activations="int8",
            integer_io=False,
            per_channel=False,
            tolerance=Tolerance(0.2, 0.8, 0.05),
        ),
    )
}


def get(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
      UnknownNameError: there is none.
    """
    known = RECIPES | TRAINED_RECIPES
    if name not in known:
        raise UnknownNameError("recipe", name, known)
    return known[name]
