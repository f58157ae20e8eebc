"""What networks themselves add to the losses that train them."""

from __future__ import annotations

import tensorflow as tf
import tf_keras as keras


def regularization(network: keras.Sequential) -> tf.Tensor:
    """The sum of what the layers of a network add to a loss, () float32; 0 where none does.

    Adding it is all that an algorithm has to do for networks whose compression is a part of the loss, beside calling
    them with `training=True` where their gradient is wanted.
    """
    return tf.add_n(network.losses) if network.losses else tf.constant(0.0)
