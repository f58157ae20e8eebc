"""Dueling networks: the value of a state and the advantage of each action in two streams."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras


class DuelingOutput(keras.layers.Dense):
    """The last layer of a dueling network: Q = V + A - mean A (Wang et al. 2016, arXiv 1511.06581, eq. 9).

    The layer before it is the hidden layer of both streams: one of twice the width, the first half of which is read by
    V and the second by A. Q is linear in both, so this is a dense layer, whose kernel and bias are computed from those
    of the streams: no other layers are needed to train it, to act with it, or to deploy it. The paper scales the
    gradient that enters the shared layers by 1 / sqrt(2); this does not.

    Attributes:
      streams_kernel: (half of the inputs, 1 + actions) variable, V first.
      streams_bias: (1 + actions,) variable.
    """

    deployed_as = keras.layers.Dense

    def build(self, input_shape: tf.TensorShape) -> None:
        """Create the variables for (batch, inputs).

        Raises:
          ValueError: the inputs are odd in number.
        """
        inputs = int(input_shape[-1])
        if inputs % 2:
            raise ValueError(f"Two streams cannot share {inputs} inputs.")
        shape = (inputs // 2, 1 + self.units)
        self.streams_kernel = self.add_weight("streams_kernel", shape, initializer=self.kernel_initializer)
        self.streams_bias = self.add_weight("streams_bias", shape[1:], initializer=self.bias_initializer)
        self.built = True

    @property
    def kernel(self) -> tf.Tensor:
        """(inputs, actions)."""
        return q_kernel(self.streams_kernel)

    @property
    def bias(self) -> tf.Tensor:
        """(actions,)."""
        return q_bias(self.streams_bias)


def q_kernel(streams: tf.Tensor) -> tf.Tensor:
    """What gives values, (inputs, actions), of what gives V and A."""
    value, advantage = streams[:, :1], streams[:, 1:]
    return tf.concat([tf.repeat(value, advantage.shape[1], axis=1), _centred(advantage)], axis=0)


def q_bias(streams: tf.Tensor) -> tf.Tensor:
    """The same for biases, (actions,)."""
    return streams[:1] + _centred(streams[1:])


def advantage_kernel(streams: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """What gives the advantages alone, (inputs, actions), of what gives V and A: on the same grid, unlike Q.

    The choice is the same. What is read by V alone is multiplied by zero, so `converters.shrink` takes it out.
    """
    return np.concatenate([np.zeros_like(streams[:, 1:]), streams[:, 1:]])


def _centred(advantage: tf.Tensor) -> tf.Tensor:
    return advantage - tf.reduce_mean(advantage, axis=-1, keepdims=True)
