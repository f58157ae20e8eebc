"""The two action distributions of on-policy algorithms, as functions of a network's output.

Sampling happens on the host, one step at a time; probabilities are computed in TensorFlow, a rollout at a time.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from edge.artifact import PolicySpec

FloatArray = npt.NDArray[np.float32]


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

    def sample(self, mean: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Random actions around `mean`, (batch, actions) float32, on the host."""
        return mean + self._std * rng.standard_normal(mean.shape, np.float32)

    def refresh(self) -> None:
        """Let `sample` take over the variables' values."""
        self._std = np.exp(self.log_std.numpy())

    def log_prob(self, mean: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Log-density of actions: (batch, actions) twice -> (batch,)."""
        tf.debugging.assert_shapes([(mean, ("B", "A")), (action, ("B", "A"))])
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

    def sample(self, logits: FloatArray, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Random choices, (batch,), on the host; by the Gumbel-max trick (Maddison et al. 2014, arXiv 1411.0030)."""
        return np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)

    def refresh(self) -> None:
        """See `DiagonalGaussian`; there is nothing to do."""

    def log_prob(self, logits: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Log-probability of choices: (batch, choices) and (batch,) integers -> (batch,)."""
        tf.debugging.assert_shapes([(logits, ("B", "N")), (action, ("B",))])
        return tf.gather(tf.nn.log_softmax(logits), tf.cast(action, tf.int32), batch_dims=1)

    def entropy(self, logits: tf.Tensor) -> tf.Tensor:
        """Entropy in nats: (batch, choices) -> (batch,)."""
        log_p = tf.nn.log_softmax(logits)
        return -tf.reduce_sum(tf.exp(log_p) * log_p, axis=-1)


def distribution_of(spec: PolicySpec) -> Categorical | DiagonalGaussian:
    """That of an on-policy algorithm's actions, for either kind of them."""
    return Categorical() if spec.action.discrete else DiagonalGaussian(spec.action.shape[0])
