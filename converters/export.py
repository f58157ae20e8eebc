"""From a Keras network and a spec to one graph that is the whole policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from edge.artifact import PolicySpec
from edge.errors import UserError


class ExportError(UserError):
    """A network that does not fit its spec."""


class DeployedPolicy(tf.Module):
    """The graph that is deployed: normalise, run the network, scale the action.

    The network maps normalised observations to actions in [-1, 1] (anything beyond is clipped) or, for a discrete
    policy, to one logit a choice. What a user would otherwise have to remember is in the graph: the observation's
    normalisation before the network, the action's bounds after it. Frames of bytes are divided by 255.
    """

    def __init__(self, network: keras.Model, spec: PolicySpec, *, logits: bool = False) -> None:
        """Check that `network` fits `spec`. With `logits`, a discrete policy gives those instead of a choice.

        Raises:
          ExportError: another number of inputs or outputs.
        """
        super().__init__(name="policy")
        self.network = network
        self.spec = spec
        self.logits = logits
        self._any_batch: tf.types.experimental.ConcreteFunction | None = None
        outputs = spec.action.n if spec.action.n is not None else int(np.prod(spec.action.shape))
        if logits and not spec.action.discrete:
            raise ExportError("Only discrete policies have logits; this one's actions are continuous.")
        expected = ((None, *spec.observation.shape), (None, outputs))
        if (tuple(network.input_shape), tuple(network.output_shape)) != expected:
            raise ExportError(
                f"The network maps {network.input_shape} to {network.output_shape}; "
                f"its spec needs {expected[0]} to {expected[1]}."
            )

    def __call__(self, observation: tf.Tensor) -> tf.Tensor:
        """Actions for a batch of observations.

        Args:
          observation: (batch, *observation.shape) of the spec's dtype, as the environment gives them.

        Returns:
          (batch, *action.shape) float32 within the action bounds, or (batch,) int32 choices, or (batch, n) float32
          logits of the choices.
        """
        output = self.network(self.normalize(observation))
        action = self.spec.action
        if self.logits:
            return output
        if action.discrete:
            return tf.argmax(output, axis=-1, output_type=tf.int32)
        # An element that lacks a bound is not scaled, and not clipped.
        bounded, half_range, middle = action.scaling
        if not bounded.any():
            return tf.reshape(output, (-1, *action.shape))
        if not bounded.all():
            output = tf.where(bounded, tf.clip_by_value(output, -1.0, 1.0), output)
        elif self._last_activation() not in ("tanh", "sigmoid"):
            # The converter folds this clip into the layer before it, so that all of an integer output's steps lie
            # between the bounds.
            output = tf.clip_by_value(output, -1.0, 1.0)
        if (half_range != 1.0).any():
            output = output * half_range.astype(np.float32)
        if (middle != 0.0).any():
            output = output + middle.astype(np.float32)
        return tf.reshape(output, (-1, *action.shape))

    def _last_activation(self) -> str | None:
        activation = getattr(self.network.layers[-1], "activation", None)
        return getattr(activation, "__name__", None)

    def normalize(self, observation: tf.Tensor) -> tf.Tensor:
        """What the network sees of `observation`, float32; same shape."""
        normalizer, shape = self.spec.normalizer, self.spec.observation.shape
        if self.spec.observation.dtype == "uint8":
            # A product, as it is computed where the division is part of an integer input's scale.
            return tf.cast(observation, tf.float32) * np.float32(1 / 255)
        if normalizer is None:
            return observation
        mean = np.asarray(normalizer.mean, np.float32).reshape(shape)
        std = np.asarray(normalizer.std, np.float32).reshape(shape)
        # A division by a constant TensorFlow's converter makes a product too, with a reciprocal that is a bit off: 1/2
        # was 0.49999997, or not, by the processor and the element's place.
        normalized = (observation - mean) * (np.float32(1) / std)
        return (
            normalized if normalizer.clip is None else tf.clip_by_value(normalized, -normalizer.clip, normalizer.clip)
        )

    def act(self, observations: npt.ArrayLike) -> npt.NDArray[Any]:
        """What `__call__` gives, from numpy to numpy; compiled once, for batches of any size.

        Of a policy that gives logits, the choices: what `edge.Policy.act` makes of them.
        """
        if self._any_batch is None:
            self._any_batch = self.concrete_function(None)
        output = np.asarray(self._any_batch(tf.constant(observations, self.spec.observation.dtype)))
        return output.argmax(axis=-1) if self.logits else output

    def concrete_function(self, batch: int | None) -> tf.types.experimental.ConcreteFunction:
        """The graph for `batch` observations at a time (None: any number)."""
        spec = self.spec.observation
        signature = tf.TensorSpec((batch, *spec.shape), spec.dtype, name="observation")
        return tf.function(self.__call__).get_concrete_function(signature)
