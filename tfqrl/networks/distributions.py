"""Action distributions as functions of a network's output.

What training needs is computed in TensorFlow, in float32, a rollout or a batch at a time; acting samples on the host,
one step at a time, by `tfqrl.exploration`.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from edge.artifact import PolicySpec
from tfqrl.exploration import LOG_STD_MAX, LOG_STD_MIN, Gumbel, Normal


class DiagonalGaussian:
    """Normal actions around the network's output, with a standard deviation that is learnt but the same in all states.

    Attributes:
      log_std: (actions,) variable.
    """

    def __init__(self, actions: int, initial_log_std: float = 0.0) -> None:
        """A distribution over vectors of `actions` elements."""
        self.log_std = tf.Variable(tf.fill((actions,), initial_log_std), name="log_std")
        self.variables = [self.log_std]
        self.refresh()

    def explorer(self) -> Normal:
        """What draws actions on the host, as of the last refresh."""
        return self._explorer

    def refresh(self) -> None:
        """Let `explorer` take over the variables' values."""
        self._explorer = Normal(np.exp(self.log_std.numpy()))

    def log_prob(self, mean: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Log-density of actions: (batch, actions) twice -> (batch,)."""
        tf.debugging.assert_shapes([(mean, ("B", "A")), (action, ("B", "A"))])
        mean, action = tf.cast(mean, tf.float32), tf.cast(action, tf.float32)
        z = (action - mean) * tf.exp(-self.log_std)
        return tf.reduce_sum(-0.5 * z**2 - self.log_std - 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(self, mean: tf.Tensor) -> tf.Tensor:
        """Entropy in nats: (batch, actions) -> (batch,)."""
        entropy = tf.reduce_sum(self.log_std + 0.5 * math.log(2 * math.pi * math.e))
        return tf.fill((tf.shape(mean)[0],), entropy)


class Categorical:
    """A choice with the network's outputs as logits."""

    def __init__(self) -> None:
        self.variables: list[tf.Variable] = []

    def explorer(self) -> Gumbel:
        """What draws choices on the host."""
        return Gumbel()

    def refresh(self) -> None:
        """See `DiagonalGaussian`; there is nothing to do."""

    def log_prob(self, logits: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Log-probability of choices: (batch, choices) and (batch,) integers -> (batch,)."""
        tf.debugging.assert_shapes([(logits, ("B", "N")), (action, ("B",))])
        return tf.gather(tf.nn.log_softmax(tf.cast(logits, tf.float32)), tf.cast(action, tf.int32), batch_dims=1)

    def entropy(self, logits: tf.Tensor) -> tf.Tensor:
        """Entropy in nats: (batch, choices) -> (batch,)."""
        log_p = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        return -tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1)


class SquashedGaussian:
    """tanh of a normal variable whose mean and log-deviation are both outputs of the network: mean first, then log_std.

    log_std is clipped to -20..2 as in the code of Haarnoja et al. 2018 (arXiv 1812.05905), beyond which it gets no
    gradient.
    """

    def sample_with_log_prob(self, output: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Actions and their log-density, differentiable with respect to `output`.

        Args:
          output: (batch, 2 * actions) of the network.
          noise: (batch, actions) standard normal.

        Returns:
          (batch, actions) in [-1, 1], where the ends are what float32's tanh gives from about 9 on; and (batch,), of
          the exact variable, finite also there.
        """
        output, noise = tf.cast(output, tf.float32), tf.cast(noise, tf.float32)
        mean, log_std = tf.split(output, 2, axis=-1)
        tf.debugging.assert_shapes([(mean, ("B", "A")), (noise, ("B", "A"))])
        log_std = tf.clip_by_value(log_std, LOG_STD_MIN, LOG_STD_MAX)
        x = mean + tf.exp(log_std) * noise
        log_normal = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
        # Appendix C, with log(1 - tanh(x)^2) in a form that is exact where tanh(x) rounds to 1.
        log_slope = 2.0 * (math.log(2.0) - x - tf.math.softplus(-2.0 * x))
        return tf.tanh(x), tf.reduce_sum(log_normal - log_slope, axis=-1)


def distribution_of(spec: PolicySpec, initial_log_std: float) -> Categorical | DiagonalGaussian:
    """That of an on-policy algorithm's actions, for either kind of them."""
    return Categorical() if spec.action.discrete else DiagonalGaussian(spec.action.shape[0], initial_log_std)
