"""A normaliser for networks that were trained without one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container

import numpy as np
import tf_keras as keras

from edge.artifact import FloatArray, Normalizer, PolicySpec

# As generous as what agents are trained with: the calibrated range, inside it, is what an integer input ends at.
_MIN_CLIP = 10.0


def normalised(
    network: keras.Model, spec: PolicySpec, observations: FloatArray, fixed: Container[str] = ()
) -> tuple[keras.Model, PolicySpec, tuple[str, ...]]:
    """The same function with a normaliser before it, made from observations and undone in the first layer.

    Integers that begin at raw observations have one scale for all of them, and small ones vanish beside large ones. Up
    to float rounding the function stays what it was, within the clip that the normaliser has.

    Args:
      network: as in `converters.convert`.
      spec: as in `converters.convert`.
      observations: (n, *observation.shape) float32, calibration's.
      fixed: names of layers whose weights must stay what they are.

    Returns:
      The network, the spec, and notes for the manifest. The same network and spec where the spec has a normaliser or
      observations are frames, or where the first layer cannot undo one.
    """
    if spec.normalizer is not None or spec.observation.dtype != "float32":
        return network, spec, ()
    first = _first_layer(network)
    if first is None or not first.use_bias or first.name in fixed:
        note = "Observations were not normalised: the first layer is none that could undo it."
        return network, spec, (note,)
    flat = observations.reshape(len(observations), -1).astype(np.float64)
    mean, std = flat.mean(axis=0).astype(np.float32), flat.std(axis=0).astype(np.float32)
    # Below this a deviation is float rounding of the mean.
    constant = std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    kernel, bias = first.get_weights()
    # What never changed has no deviation. It gets 1, or less, so that large weights on it do not make all steps coarse.
    size = np.abs(kernel).max(axis=1)
    largest = float((std * size)[~constant].max(initial=0.0)) or 1.0
    std = np.where(constant, np.minimum(1.0, largest / np.maximum(size, 1e-30)), std).astype(np.float32)
    clip = max(_MIN_CLIP, math.ceil(float(np.abs((flat - mean) / std).max())))
    undone = keras.models.clone_model(network)
    undone.set_weights(network.get_weights())
    shift = mean.astype(np.float64) @ kernel
    undone.get_layer(first.name).set_weights([std[:, None] * kernel, (bias + shift).astype(np.float32)])
    notes = ["Normalised by mean and deviation of the calibration observations; the first layer undoes it."]
    if constant.any():
        numbers = ", ".join(map(str, np.flatnonzero(constant)))
        notes.append(f"Observation elements that were constant in calibration, whose deviation is a guess: {numbers}.")
    normalizer = Normalizer(tuple(map(float, mean)), tuple(map(float, std)), float(clip))
    return undone, dataclasses.replace(spec, normalizer=normalizer), tuple(notes)


def _first_layer(network: keras.Model) -> keras.layers.Dense | None:
    """The Dense layer that all observations go into, of a network whose layers are in a row."""
    if not isinstance(network, keras.Sequential):
        return None
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dense):
            # Of matrices, it is applied to each row.
            return layer if len(layer.input_shape) == 2 else None
        if not isinstance(layer, keras.layers.Flatten):
            return None
    return None
