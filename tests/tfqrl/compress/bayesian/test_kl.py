"""Divergences beside their definitions, integrated numerically."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from tfqrl.compress.bayesian.kl import bounded, codebook_kl, log_alpha, log_uniform_kl

# E log|N(0, 1)|: what an all but infinite noise leaves, which the free constant makes 0.
EULER_GAMMA = 0.5772156649015329
OF_NOISE = -0.5 * (EULER_GAMMA + math.log(2.0))


def expected_log_abs(theta: float, sigma: float, spike: float = 0.0) -> float:
    """E log|w - spike| for w ~ N(theta, sigma^2)."""
    at = (spike - theta) / sigma
    ends = sorted({-12.0, 12.0, min(max(at, -12.0), 12.0)})

    def density(e: float) -> float:
        return math.log(abs(theta + sigma * e - spike) or 1e-300) * stats.norm.pdf(e)

    return sum(integrate.quad(density, a, b, limit=400)[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("log_a", np.linspace(-8, 8, 17))
def test_from_the_log_uniform_prior_within_a_hundredth(log_a: float) -> None:
    # KL = E log q - E log p = -log sigma + E log|w| + constants, and w = theta * N(1, alpha).
    true = -0.5 * log_a + expected_log_abs(1.0, math.exp(0.5 * log_a)) - OF_NOISE
    assert float(log_uniform_kl(tf.constant(log_a, tf.float32))) == pytest.approx(true, abs=0.0095)


def test_it_falls_to_nothing_with_the_noise() -> None:
    kl = log_uniform_kl(tf.linspace(-8.0, 8.0, 100)).numpy()
    assert (np.diff(kl) < 0).all()
    assert 0 < kl[-1] < 1e-3


def codebook_truth(theta: float, sigma: float, scale: float) -> float:
    """-log sigma - E log sum_k 1 / |w - c_k|, up to a constant: with it, far from all spikes, noise alone leaves 0."""
    spikes = (-scale, 0.0, scale)
    at = [min(max((spike - theta) / sigma, -12.0), 12.0) for spike in spikes]
    ends = sorted({-12.0, 12.0, *at})

    def density(e: float) -> float:
        w = theta + sigma * e
        return math.log(sum(1.0 / max(abs(w - spike), 1e-300) for spike in spikes)) * stats.norm.pdf(e)

    return -math.log(sigma) - sum(integrate.quad(density, a, b, limit=400)[0] for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("scale", [0.2, 0.05])
def test_from_a_codebook_it_differs_by_at_most_what_is_published(scale: float) -> None:
    grid = [(t * scale, s * scale) for t in np.linspace(-1.5, 1.5, 13) for s in (0.02, 0.1, 0.3)]
    theta, sigma = (np.float32(column) for column in zip(*grid))
    ours = codebook_kl(tf.constant(theta), tf.constant(2 * np.log(sigma)), tf.constant(scale)).numpy()
    true = np.array([codebook_truth(t, s, scale) for t, s in zip(theta.tolist(), sigma.tolist())])
    # Which constant is free.
    error = ours - true - np.median(ours - true)
    assert np.abs(error).max() < 1.07


def test_a_codebook_draws_weights_to_its_values() -> None:
    theta = np.linspace(-0.3, 0.3, 121, dtype=np.float32)
    kl = codebook_kl(tf.constant(theta), tf.fill(theta.shape, 2 * math.log(0.01)), tf.constant(0.2)).numpy()
    lowest = [i for i in range(1, 120) if kl[i] < kl[i - 1] and kl[i] < kl[i + 1]]
    np.testing.assert_allclose(theta[lowest], [-0.2, 0.0, 0.2], atol=1e-6)


def test_noise_beside_signal_is_bounded() -> None:
    theta = tf.constant([1.0, 1e-5, 0.0, 2.0])
    alpha = log_alpha(theta, tf.constant([0.5, 0.0, 0.0, -20.0])).numpy()
    np.testing.assert_allclose(alpha, [0.5, 8.0, 8.0, -8.0], atol=1e-6)


def test_a_bound_lets_back_in_and_not_out() -> None:
    x = tf.constant([-3.0, 0.0, 3.0])
    for sign, through in ((1.0, [0.0, 1.0, 1.0]), (-1.0, [-1.0, -1.0, 0.0])):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = sign * tf.reduce_sum(bounded(x, -1.0, 1.0))
        np.testing.assert_array_equal(tape.gradient(y, x), through)
