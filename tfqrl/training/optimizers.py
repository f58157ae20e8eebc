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


def descend(
    optimizer: keras.optimizers.Optimizer, tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[tf.Variable]
) -> None:
    """One step of `optimizer` down the gradient of `loss` that `tape` recorded."""
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
