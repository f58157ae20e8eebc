"""The observations that a conversion is calibrated on, and the ranges that activations take on them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge import interpreter
from edge.artifact import FloatArray, ObservationSpec
from edge.errors import UserError

MIN_OBSERVATIONS = 100


class CalibrationError(UserError):
    """Observations that a conversion cannot be calibrated on."""


def check_observations(observations: npt.ArrayLike, spec: ObservationSpec) -> FloatArray:
    """The observations as float32, (n, *spec.shape).

    Raises:
      CalibrationError: another shape, fewer than `MIN_OBSERVATIONS`, or not finite.
    """
    array = np.asarray(observations, np.float32)
    if array.shape[1:] != spec.shape:
        expected = ", ".join(map(str, ("n", *spec.shape)))
        raise CalibrationError(f"Calibration observations have shape {array.shape}; expected ({expected}).")
    if len(array) < MIN_OBSERVATIONS:
        raise CalibrationError(f"{len(array)} calibration observations are too few; give at least {MIN_OBSERVATIONS}.")
    if not np.isfinite(array).all():
        raise CalibrationError("Calibration observations have NaN or infinity in them.")
    return array


def activation_ranges(flatbuffer: bytes, observations: FloatArray) -> dict[str, tuple[float, float]]:
    """The true lowest and highest value of every float tensor over all observations, by tensor name.

    Not a moving average, which forgets the rare extremes that a controller meets: they are where it is needed most.

    Args:
      flatbuffer: a float32 model that takes one observation at a time.
      observations: (n, *observation.shape) float32.
    """
    # All tensors are to be read after invoke, which the interpreter's memory planner does not allow by itself.
    runner = interpreter.build_for_inspection(flatbuffer)
    input_index = runner.get_input_details()[0]["index"]
    tensors = {d["index"]: d["name"] for d in runner.get_tensor_details() if d["dtype"] == np.float32}
    low = dict.fromkeys(tensors, np.inf)
    high = dict.fromkeys(tensors, -np.inf)
    for observation in observations:
        runner.set_tensor(input_index, observation[np.newaxis])
        runner.invoke()
        for index in list(tensors):
            try:
                values = runner.get_tensor(index)
            except ValueError:
                # Tensors that a delegate made for itself hold nothing.
                del tensors[index]
                continue
            low[index] = min(low[index], float(values.min()))
            high[index] = max(high[index], float(values.max()))
    return {name: (low[index], high[index]) for index, name in tensors.items()}
