"""Optimisers, ready to be used inside a compiled function."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
import tf_keras as keras


def adam(learning_rate: float, variables: Sequence[tf.Variable], epsilon: float = 1e-8) -> keras.optimizers.Adam:
    """Adam (Kingma & Ba 2014, arXiv 1412.6980) for `variables`, whose moments it makes now."""
    # A compiled function cannot make variables, and compiles what the optimiser does along with the rest.
    optimizer = keras.optimizers.Adam(learning_rate, epsilon=epsilon, jit_compile=False)
    optimizer.build(variables)
    return optimizer


def rmsprop(
    learning_rate: float, variables: Sequence[tf.Variable], rho: float = 0.99, epsilon: float = 1e-5
) -> keras.optimizers.RMSprop:
    """RMSprop (Tieleman & Hinton 2012) for `variables`, whose moments it makes now; as A2C was tuned with.

    That was TensorFlow 1's: epsilon is added inside the root, and the mean square begins at 1 rather than 0, so that
    the first steps are small. Keras has the first of these, and the second is done here. PyTorch's has neither, which
    is why Stable-Baselines3 brings its own for A2C.
    """
    optimizer = keras.optimizers.RMSprop(learning_rate, rho=rho, epsilon=epsilon, jit_compile=False)
    optimizer.build(variables)
    for moment in optimizer._velocities:
        moment.assign(tf.ones_like(moment))
    return optimizer


def descend(
    optimizer: keras.optimizers.Optimizer, tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[tf.Variable]
) -> None:
    """One step of `optimizer` down the gradient of `loss` that `tape` recorded."""
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
