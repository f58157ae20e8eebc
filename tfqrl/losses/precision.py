"""What all losses do with their inputs first."""

from __future__ import annotations

import tensorflow as tf


def float32(*tensors: tf.Tensor) -> list[tf.Tensor]:
    """The tensors in float32: differences of values, and sums over a batch, would drown in bfloat16's eight bits."""
    return [tf.cast(tensor, tf.float32) for tensor in tensors]
