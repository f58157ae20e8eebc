import math

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tfqrl.exploration import SquashedNormal
from tfqrl.networks import SquashedGaussian

FloatArray = npt.NDArray[np.float64]


def log_prob_of(x: float, std: float = 1.0) -> float:
    """Log-density that is computed where the variable before tanh comes out as x, from noise 0."""
    output, noise = tf.constant([[x, math.log(std)]]), tf.zeros((1, 1))
    return float(SquashedGaussian().sample_with_log_prob(output, noise)[1][0])


def test_the_log_density_at_the_middle_by_hand() -> None:
    # At 0 tanh has slope 1: the normal's own density, 1 / (2 sqrt(2 pi)) for deviation 2.
    assert log_prob_of(0.0, 2.0) == pytest.approx(-math.log(2.0) - 0.5 * math.log(2.0 * math.pi))


def test_the_log_density_of_two_elements_by_hand() -> None:
    # Mean 0.5 and noise 1 at deviation 0.5 give x = 1; mean 0, noise -2, deviation 1 give -2. For each
    # -noise^2 / 2 - log std - log(2 pi) / 2 - log(1 - tanh(x)^2).
    first = -0.5 - math.log(0.5) - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(1.0) ** 2)
    second = -2.0 - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(2.0) ** 2)
    output = tf.constant([[0.5, 0.0, math.log(0.5), 0.0]])
    action, log_prob = SquashedGaussian().sample_with_log_prob(output, tf.constant([[1.0, -2.0]]))
    np.testing.assert_allclose(action, [[math.tanh(1.0), math.tanh(-2.0)]], rtol=1e-6)
    assert log_prob.numpy() == pytest.approx([first + second], abs=1e-6)


def test_the_log_density_is_that_of_the_changed_variable_in_float64() -> None:
    rng = np.random.default_rng(0)
    mean, log_std, noise = rng.normal(0, 1, (1000, 3)), rng.uniform(-3, 1, (1000, 3)), rng.normal(0, 1, (1000, 3))
    mean, log_std, noise = (np.float64(np.float32(x)) for x in (mean, log_std, noise))
    x = mean + np.exp(log_std) * noise
    # 1 - tanh(x)^2 = 1 / cosh(x)^2.
    slope = -2 * np.log(np.cosh(x))
    expected = (-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - slope).sum(axis=1)
    output = tf.constant(np.concatenate([mean, log_std], axis=1), tf.float32)
    action, log_prob = SquashedGaussian().sample_with_log_prob(output, tf.constant(noise, tf.float32))
    np.testing.assert_allclose(action, np.tanh(x), atol=1e-6)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.4), (-1.5, 0.8)])
def test_the_density_integrates_to_one(mean: float, std: float) -> None:
    actions = np.linspace(-0.9999, 0.9999, 200_001)
    noise = (np.arctanh(actions) - mean) / std
    output = np.tile(np.float32([mean, math.log(std)]), (len(actions), 1))
    _, log_prob = SquashedGaussian().sample_with_log_prob(tf.constant(output), tf.constant(noise[:, None], tf.float32))
    density = np.exp(np.float64(log_prob))
    integral = np.sum((density[1:] + density[:-1]) / 2 * np.diff(actions))
    # Beyond +-0.9999 are the tails of the normal beyond +-4.95.
    outside = sum(0.5 * math.erfc((4.95 + sign * mean) / std / math.sqrt(2)) for sign in (-1, 1))
    assert integral == pytest.approx(1.0 - outside, abs=2e-4)


@pytest.mark.parametrize("x", [-100.0, -20.0, 20.0, 100.0])
def test_the_log_density_stays_exact_where_tanh_rounds_to_one(x: float) -> None:
    # log(1 - tanh(x)^2) is 2 log 2 - 2 |x| there, to within exp(-40).
    assert log_prob_of(x) == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * math.log(2.0) + 2 * abs(x), rel=1e-6)
    output = tf.constant([[x, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(output)
        action, log_prob = SquashedGaussian().sample_with_log_prob(output, tf.zeros((1, 1)))
    assert action.numpy() == math.copysign(1.0, x)
    # d/dx of -log(1 - tanh(x)^2) is 2 tanh(x); log_std has its own -1, noise being 0.
    np.testing.assert_allclose(tape.gradient(log_prob, output), [[math.copysign(2.0, x), -1.0]], rtol=1e-6)


@pytest.mark.parametrize(("log_std", "clipped"), [(-1e9, -20.0), (-20.0, -20.0), (2.0, 2.0), (50.0, 2.0)])
def test_the_log_deviation_is_bounded(log_std: float, clipped: float) -> None:
    noise = tf.constant([[1.5]])
    action, log_prob = SquashedGaussian().sample_with_log_prob(tf.constant([[0.25, log_std]]), noise)
    x = 0.25 + 1.5 * math.exp(clipped)
    slope = 2 * (math.log(2.0) - x - math.log1p(math.exp(-2 * x)))
    expected = -0.5 * 1.5**2 - clipped - 0.5 * math.log(2 * math.pi) - slope
    np.testing.assert_allclose(action, [[math.tanh(x)]], rtol=1e-6)
    np.testing.assert_allclose(log_prob, [expected], rtol=1e-5)


def test_a_log_deviation_beyond_its_bounds_gets_no_gradient() -> None:
    output = tf.constant([[0.1, 0.1, 0.1, -30.0, 0.5, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(output)
        _, log_prob = SquashedGaussian().sample_with_log_prob(output, tf.ones((1, 3)))
    gradient = tape.gradient(log_prob, output).numpy()[0]
    assert (gradient[[3, 5]] == 0.0).all()
    assert (gradient[[0, 1, 2, 4]] != 0.0).all()


def test_the_action_follows_its_mean_and_deviation() -> None:
    # action = tanh(mean + std noise): slopes 1 - tanh(x)^2 and (1 - tanh(x)^2) std noise, at x = 0.2 + 0.5 x 2 = 1.2.
    output = tf.constant([[0.2, math.log(0.5)]])
    with tf.GradientTape() as tape:
        tape.watch(output)
        action, _ = SquashedGaussian().sample_with_log_prob(output, tf.constant([[2.0]]))
    slope = 1 - math.tanh(1.2) ** 2
    np.testing.assert_allclose(tape.gradient(action, output), [[slope, slope]], rtol=1e-5)


def test_host_and_tensorflow_sample_the_same_variable() -> None:
    class Recorded:
        def standard_normal(self, shape: tuple[int, ...], dtype: type) -> FloatArray:
            return noise

    rng = np.random.default_rng(0)
    noise = rng.standard_normal((7, 2), np.float32)
    output = np.float32(rng.normal(0, 3, (7, 4)))
    actions = SquashedNormal()(lambda x: x, output, Recorded())  # type: ignore[arg-type]
    np.testing.assert_allclose(actions, SquashedGaussian().sample_with_log_prob(output, noise)[0], atol=1e-6)
    assert actions.dtype == np.float32


def test_host_samples_have_the_moments_that_they_should() -> None:
    output = np.tile(np.float32([0.5, -2.0, 0.0, math.log(0.1)]), (20_000, 1))
    x = np.arctanh(np.float64(SquashedNormal()(lambda x: x, output, np.random.default_rng(0))))
    np.testing.assert_allclose(x.mean(axis=0), [0.5, -2.0], atol=0.03)
    np.testing.assert_allclose(x.std(axis=0), [1.0, 0.1], rtol=0.03)


def test_xla_gives_the_same() -> None:
    squashed, rng = SquashedGaussian(), np.random.default_rng(0)
    output, noise = (tf.constant(rng.normal(0, 10, (64, n)), tf.float32) for n in (6, 3))
    compiled = tf.function(squashed.sample_with_log_prob, jit_compile=True)
    for result, expected in zip(compiled(output, noise), squashed.sample_with_log_prob(output, noise)):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_computed_in_float32() -> None:
    output, noise = tf.constant([[0.3, -1.0]], tf.bfloat16), tf.constant([[0.5]], tf.bfloat16)
    narrow = SquashedGaussian().sample_with_log_prob(output, noise)
    wide = SquashedGaussian().sample_with_log_prob(tf.cast(output, tf.float32), tf.cast(noise, tf.float32))
    for result, expected in zip(narrow, wide):
        assert result.dtype == tf.float32
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("noise", [(4, 1), (3, 2), (4,)])
def test_noise_of_another_shape_is_refused(noise: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rank|dimension"):
        SquashedGaussian().sample_with_log_prob(tf.zeros((4, 4)), tf.zeros(noise))
