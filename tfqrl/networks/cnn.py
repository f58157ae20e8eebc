"""Convolutional networks for camera frames."""

from __future__ import annotations

import math

import tf_keras as keras

from converters.dueling import DuelingOutput
from edge.errors import UsageError

# The three convolutions need so many pixels each way to leave one.
MIN_PIXELS = 36


def nature_cnn(
    shape: tuple[int, int, int],
    outputs: int,
    *,
    output_gain: float = 1.0,
    dueling: bool = False,
    precision: str = "float32",
    seed: int = 0,
    name: str = "nature_cnn",
) -> keras.Sequential:
    """The network of Mnih et al. 2015 (Nature 518), (batch, *shape) -> (batch, outputs), with a linear output.

    `shape` is height, width, channels; 84, 84, 4 there. Frames come divided by 255, float32. Weights are orthogonal
    with gain sqrt(2), the output's with `output_gain`; `seed` fixes them. `precision` is that of the arithmetic before
    the output layer. With `dueling`, the hidden dense layer is there twice, side by side, for value and advantage
    (`DuelingOutput`), as in Wang et al. 2016 (arXiv 1511.06581).

    Raises:
      UsageError: the frames are too small.
    """
    check_pixels(shape)

    def initializer(layer: int) -> keras.initializers.Initializer:
        gain = output_gain if layer == 4 else math.sqrt(2)
        return keras.initializers.Orthogonal(gain, seed=seed + layer)

    layers = keras.layers
    hidden, output = (1024, DuelingOutput) if dueling else (512, layers.Dense)
    dtype = "float32" if precision == "float32" else keras.mixed_precision.Policy(f"mixed_{precision}")
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(32, 8, 4, activation="relu", kernel_initializer=initializer(0), dtype=dtype, name="conv_0"),
            layers.Conv2D(64, 4, 2, activation="relu", kernel_initializer=initializer(1), dtype=dtype, name="conv_1"),
            layers.Conv2D(64, 3, 1, activation="relu", kernel_initializer=initializer(2), dtype=dtype, name="conv_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(hidden, "relu", kernel_initializer=initializer(3), dtype=dtype, name="hidden"),
            output(outputs, kernel_initializer=initializer(4), name="output"),
        ],
        name=name,
    )


def check_pixels(shape: tuple[int, ...]) -> None:
    """See whether the Nature CNN can take frames of `shape`: height, width, channels.

    Raises:
      UsageError: it cannot.
    """
    if min(shape[:2]) < MIN_PIXELS:
        raise UsageError(
            f"The Nature CNN takes frames of at least {MIN_PIXELS}x{MIN_PIXELS} pixels, as (height, width, channels); "
            f"it was given {shape}."
        )
