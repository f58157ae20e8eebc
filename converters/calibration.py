"""The observations that a conversion is calibrated on, and the ranges that activations take on them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from converters.flatbuffer import Graph, Types
from converters.recipe import MIN_OBSERVATIONS, Calibration
from edge import interpreter
from edge.artifact import ObservationSpec
from edge.errors import UserError

Array = npt.NDArray[np.generic]

# Observations that the graph is run on at a time, and values of one tensor that are kept for percentiles.
_BATCH = 256
_KEPT_VALUES = 500_000

# The part in the middle that a percentile range keeps.
_MIDDLE = 0.999


class CalibrationError(UserError):
    """Observations that a conversion cannot be calibrated on."""


def check_observations(observations: npt.ArrayLike, spec: ObservationSpec) -> npt.NDArray[np.generic]:
    """The observations in the spec's dtype, (n, *spec.shape).

    Raises:
      CalibrationError: another shape or kind, fewer than `MIN_OBSERVATIONS`, or not finite.
    """
    try:
        array = np.asarray(observations)
        if array.dtype.kind not in "biuf":
            raise CalibrationError(f"Calibration observations are {array.dtype}; they must be real numbers.")
        if spec.dtype == "uint8" and array.dtype != np.uint8:
            raise CalibrationError(f"Calibration observations are {array.dtype}; frames are uint8, 0 to 255.")
        array = array.astype(spec.dtype, copy=False)
    except (ValueError, TypeError) as error:
        raise CalibrationError(f"Calibration observations are not an array of numbers: {error}.") from error
    if array.shape[1:] != spec.shape or not array.ndim:
        expected = ", ".join(map(str, ("n", *spec.shape)))
        raise CalibrationError(f"Calibration observations have shape {array.shape}; expected ({expected}).")
    if len(array) < MIN_OBSERVATIONS:
        raise CalibrationError(f"{len(array)} calibration observations are too few; give at least {MIN_OBSERVATIONS}.")
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
    if len(bad):
        raise CalibrationError(
            f"Calibration observations have NaN or infinity in them, in {len(bad)} of {len(array)}, first in number "
            f"{bad[0]}. Leave those out."
        )
    return array


def activation_ranges(
    flatbuffer: bytes, observations: Array, method: Calibration, bits: int = 8
) -> dict[str, tuple[float, float]]:
    """The lowest and highest value that each activation is to be able to take, by tensor name.

    With "min-max" those are the true extremes over all observations. (Not their moving average, which forgets the rare
    ones that a controller meets: they are where it is needed most.)

    Args:
      flatbuffer: a float32 model that takes one observation at a time.
      observations: (n, *observation.shape), as the model takes them.
      method: how the range follows from the values: see `converters.recipe.Recipe`.
      bits: of an activation, which "mse" weighs the range against.
    """
    # All tensors are to be read after invoke, which the interpreter's memory planner does not allow by itself.
    runner = interpreter.build_for_inspection(flatbuffer)
    input_index = runner.get_input_details()[0]["index"]
    batch_size = _BATCH
    try:
        runner.resize_tensor_input(input_index, (_BATCH, *observations.shape[1:]))
        runner.allocate_tensors()
    except RuntimeError:
        # Some graph of one observation cannot take more.
        runner = interpreter.build_for_inspection(flatbuffer)
        batch_size = 1
    graph = Graph(flatbuffer)
    constants = {i for operator in graph.operators for i in operator.inputs if i >= 0 and graph.is_constant(i)}
    ends = {int(i) for operator in graph.operators for i in (*operator.inputs, *operator.outputs) if i >= 0}
    activations = [i for i in sorted(ends - constants) if graph.tensor(i).type == Types.FLOAT32]
    rng = np.random.default_rng(0)
    values: dict[int, list[Array]] = {i: [] for i in activations}
    for first in range(0, len(observations), batch_size):
        batch = observations[first : first + batch_size]
        if len(batch) < batch_size:
            runner.resize_tensor_input(input_index, batch.shape)
            runner.allocate_tensors()
        runner.set_tensor(input_index, batch)
        runner.invoke()
        for i in activations:
            found = runner.get_tensor(i).reshape(-1)
            kept = [found.min(), found.max()]
            if method != "min-max":
                share = max(1, _KEPT_VALUES * len(batch) // len(observations))
                kept = found if len(found) <= share else rng.choice(found, share, replace=False)
            values[i].append(np.asarray(kept))
    return {graph.name(i): _range(np.concatenate(values[i]), method, 2**bits - 1) for i in activations}


def _range(values: Array, method: Calibration, steps: int) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if method == "percentile":
        low, high = (float(v) for v in np.quantile(values, [(1 - _MIDDLE) / 2, (1 + _MIDDLE) / 2]))
    if method == "mse":
        fractions = np.linspace(1.0, 0.2, 41)
        errors = [_squared_error(values, low * fraction, high * fraction, steps) for fraction in fractions]
        best = float(fractions[int(np.argmin(errors))])
        low, high = low * best, high * best
    return low, high


def _squared_error(values: Array, low: float, high: float, steps: int) -> float:
    """What so many steps between the two ends cost, on average."""
    step = max(max(high, 0.0) - min(low, 0.0), 1e-6) / steps
    return float(np.mean((np.clip(np.rint(values / step) * step, low, high) - values) ** 2))
