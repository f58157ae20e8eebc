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
    """RMSprop (Tieleman & Hinton 2012) for `variables`, whose moments it makes now; as A2C is tuned with elsewhere.

    `epsilon` is the least that a gradient is divided by, as in PyTorch, whose RMSprop Stable-Baselines3 and Tianshou
    use. Keras adds it inside the root, where 1e-5 would be a least of 0.003, more than most gradients are once they
    have been clipped.
    """
    optimizer = keras.optimizers.RMSprop(learning_rate, rho=rho, epsilon=epsilon**2, jit_compile=False)
    optimizer.build(variables)
    return optimizer


def descend(
    optimizer: keras.optimizers.Optimizer, tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[tf.Variable]
) -> None:
    """One step of `optimizer` down the gradient of `loss` that `tape` recorded."""
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
