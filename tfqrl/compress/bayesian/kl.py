"""Divergences of a weight's normal posterior from its prior, per weight and in nats.

A weight is N(theta, sigma^2), and alpha = sigma^2 / theta^2 is the ratio of its noise to its signal.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Molchanov et al. 2017, arXiv 1701.05369, eq. 14.
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695


def log_uniform_kl(log_alpha: tf.Tensor) -> tf.Tensor:
    """From the log-uniform prior p(|w|) ~ 1 / |w| (Molchanov et al. 2017, arXiv 1701.05369, eq. 14).

    The prior is improper, and so the divergence has a constant that is free: here it goes to 0 as alpha grows, where
    nothing is known of the weight.

    Args:
      log_alpha: of weights, any shape.

    Returns:
      The same shape; the fit is within 0.01 of the true value.
    """
    return _K1 * tf.sigmoid(-(_K2 + _K3 * log_alpha)) + 0.5 * tf.math.softplus(-log_alpha)


def codebook_kl(theta: tf.Tensor, log_variance: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """From a prior with a log-uniform spike at each of -scale, 0 and scale (Achterhold et al. 2018, section 3.2).

    Args:
      theta: means of weights, any shape.
      log_variance: logarithms of their variances, the same shape.
      scale: of the codebook, ().

    Returns:
      The same shape; an approximation that is off by up to 1.07 where spikes meet (the paper's figure 2).
    """
    # Derived for a codebook of -REFERENCE, 0, REFERENCE; others are that one, scaled.
    to_reference = REFERENCE / scale
    theta, log_variance = theta * to_reference, log_variance + 2.0 * tf.math.log(to_reference)
    near = {spike: tf.exp(-tf.square(theta - spike) / (2.0 * SPIKE_REACH**2)) for spike in (-REFERENCE, REFERENCE)}
    kl = (1.0 - tf.add_n(list(near.values()))) * log_uniform_kl(log_alpha(theta, log_variance))
    return kl + tf.add_n(
        [part * log_uniform_kl(log_alpha(theta - spike, log_variance)) for spike, part in near.items()]
    )


# Of the codebook for which the approximation was fitted, and how far its spikes reach (Achterhold et al. 2018).
REFERENCE = 0.2
SPIKE_REACH = 0.075


def log_alpha(theta: tf.Tensor, log_variance: tf.Tensor, low: float = -8.0, high: float = 8.0) -> tf.Tensor:
    """The logarithm of alpha, between bounds beyond which neither noise nor signal matter, and gradients run away."""
    return bounded(log_variance - tf.math.log(tf.square(theta) + 1e-8), low, high)


def bounded(x: tf.Tensor, low: float | tf.Tensor, high: float) -> tf.Tensor:
    """`x`, or the nearest bound; a gradient gets through if a step against it leads towards what is between them.

    With that of a plain cut, a weight beyond a bound would stay there for ever.
    """

    @tf.custom_gradient
    def cut(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            outwards = ((x < low) & (upstream > 0.0)) | ((x > high) & (upstream < 0.0))
            return tf.where(outwards, 0.0, upstream)

        return tf.clip_by_value(x, low, high), gradient

    return cut(x)


# log alpha from which on a weight is only noise: alpha is 20 there, a dropout rate of 0.95.
PRUNED = 3.0
