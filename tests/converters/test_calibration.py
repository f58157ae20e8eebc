import numpy as np
import pytest

from converters.calibration import CalibrationError, activation_ranges, check_observations
from converters.export import DeployedPolicy
from converters.flatbuffer import Graph
from converters.tflite import to_float32
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from tfqrl.networks import mlp

SPEC = PolicySpec(
    ObservationSpec((5,), (None,) * 5, (None,) * 5), ActionSpec((2,), (-1.0,) * 2, (1.0,) * 2), None, None
)
FRAMES = ObservationSpec((4, 4, 1), (), (), "uint8")
OBSERVATIONS = np.random.default_rng(0).normal(size=(2000, 5)).astype(np.float32)
NETWORK = mlp(5, (32,), 2, output_gain=1.0)


def ranges(method, observations: np.ndarray = OBSERVATIONS) -> tuple[str, dict[str, tuple[float, float]]]:
    flatbuffer = to_float32(DeployedPolicy(NETWORK, SPEC))
    graph = Graph(flatbuffer)
    return graph.name(graph.inputs[0]), activation_ranges(flatbuffer, observations, method)


def test_ranges_are_the_true_extremes() -> None:
    observations = OBSERVATIONS.copy()
    observations[417, 2] = 40.0  # one rare extreme, which a moving average would forget
    name, found = ranges("min-max", observations)
    assert found[name] == (observations.min(), 40.0)


def test_weights_are_not_among_them() -> None:
    # Given as ranges they once made every weight per-tensor.
    _, found = ranges("min-max")
    assert len(found) == 4, "input, hidden sums, their tanh, action"
    kernel, bias = NETWORK.layers[0].get_weights()
    hidden = OBSERVATIONS @ kernel + bias
    assert any(np.allclose(pair, (hidden.min(), hidden.max()), atol=1e-4) for pair in found.values())


def test_a_percentile_leaves_the_outermost_out() -> None:
    observations = OBSERVATIONS.copy()
    observations[417, 2] = 40.0
    name, found = ranges("percentile", observations)
    assert found[name] == pytest.approx(tuple(np.quantile(observations, [0.0005, 0.9995])), rel=1e-5)
    assert found[name][1] < 5


def test_the_mse_range_errs_less_than_the_extremes() -> None:
    observations = OBSERVATIONS.copy()
    observations[417, 2] = 400.0
    name, found = ranges("mse", observations)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.mean((np.clip(np.rint(observations / step) * step, low, high) - observations) ** 2))

    extremes = (float(observations.min()), 400.0)
    assert error(*found[name]) < error(*extremes)
    # With 16 bits the outlier costs less than cutting it off does.
    flatbuffer = to_float32(DeployedPolicy(NETWORK, SPEC))
    assert activation_ranges(flatbuffer, observations, "mse", 16)[name][1] > 395
    # Without outliers there is little to gain.
    name, found = ranges("mse")
    assert found[name][1] > 0.5 * OBSERVATIONS.max()


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        (OBSERVATIONS[:, :4], r"expected \(n, 5\)"),
        (OBSERVATIONS[0], r"expected \(n, 5\)"),
        (np.float32(3), r"expected \(n, 5\)"),
        (OBSERVATIONS[:20], "20 calibration observations are too few; give at least 100"),
        (
            np.where(OBSERVATIONS > 2, np.nan, OBSERVATIONS),
            r"NaN or infinity .* in \d+ of 2000, first in number \d",
        ),
        ([["a"] * 5] * 200, "they must be real numbers"),
        (OBSERVATIONS * 1j, "complex64; they must be real numbers"),
        ([[1.0] * 5, [1.0] * 4], "not an array of numbers"),
    ],
)
def test_observations_that_cannot_calibrate_are_refused(observations: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        check_observations(observations, SPEC.observation)


def test_frames_are_bytes() -> None:
    frames = np.zeros((100, 4, 4, 1), np.uint8)
    assert check_observations(frames, FRAMES).dtype == np.uint8
    with pytest.raises(CalibrationError, match="float64; frames are uint8, 0 to 255"):
        check_observations(frames / 255, FRAMES)
