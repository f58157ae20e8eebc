"""Dueling networks: the value of a state and the advantage of each action in two streams."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras

from converters.quantizers import is_emulated
from converters.stripping import plain


class DuelingOutput(keras.layers.Dense):
    """The last layer of a dueling network: Q = V + A - mean A (Wang et al. 2016, arXiv 1511.06581, eq. 9).

    The layer before it is the hidden layer of both streams: one of twice the width, the first half of which is read by
    V and the second by A. Q is linear in both, so this is a dense layer, whose kernel and bias are computed from those
    of the streams: no other layers are needed to train it, to act with it, or to deploy it (`deployable`). The paper
    scales the gradient that enters the shared layers by 1 / sqrt(2); this does not.

    Attributes:
      streams_kernel: (half of the inputs, 1 + actions) variable, V first.
      streams_bias: (1 + actions,) variable.
    """

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
        value, advantage = self.streams_kernel[:, :1], self.streams_kernel[:, 1:]
        return tf.concat([tf.repeat(value, self.units, axis=1), _centred(advantage)], axis=0)

    @property
    def bias(self) -> tf.Tensor:
        """(actions,)."""
        return self.streams_bias[:1] + _centred(self.streams_bias[1:])


def _centred(advantage: tf.Tensor) -> tf.Tensor:
    return advantage - tf.reduce_mean(advantage, axis=-1, keepdims=True)


def deployable(network: keras.Sequential) -> keras.Sequential:
    """A copy of `network`, dueling, pruned or neither, of Keras' own layers in float32: the same outputs.

    One that is trained on grids is given back as it is: the converter takes the grids from it.
    """
    return network if is_emulated(network) else plain(network)
