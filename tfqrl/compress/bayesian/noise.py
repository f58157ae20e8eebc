"""Noise for local reparameterisation, at a fraction of what a normal distribution's own generator costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf


def noise(shape: Sequence[int], seed: int, number: tf.Tensor) -> tf.Tensor:
    """Independent numbers of mean 0 and variance 1, nearly normal: sums of four that are uniform.

    Of a sum of many products, mean and variance are all that local reparameterisation keeps. XLA's generators of normal
    numbers take longer on a CPU than the matrix product whose result gets them (benchmarks/bayesian_noise.py).

    Args:
      shape: what is wanted.
      seed: of a stream.
      number: which of a stream's draws, () int32: the same gives the same.

    Returns:
      float32, within 3.5; the fourth moment is 2.7, a normal one's is 3.
    """
    stream = _mixed(_xor(tf.cast(number, tf.uint32), _mixed(tf.constant(seed, tf.uint32))))
    # Twice, or streams whose states are near each other would be parts of each other.
    words = _mixed(_xor(_mixed(tf.cast(tf.range(math.prod(shape)), tf.uint32) + stream), stream))
    total = tf.add_n(
        [_as_float(tf.bitwise.bitwise_and(_shifted(words, 8 * i), tf.constant(255, tf.uint32))) for i in range(4)]
    )
    return tf.reshape((total - 4 * 127.5) / math.sqrt(4 * (256**2 - 1) / 12), shape)


def _mixed(x: tf.Tensor) -> tf.Tensor:
    """A permutation of 32-bit integers that looks like chance (C. Wellons, "Prospecting for Hash Functions", 2018)."""
    x = _xor(x, _shifted(x, 16)) * tf.constant(0x7FEB352D, tf.uint32)
    x = _xor(x, _shifted(x, 15)) * tf.constant(0x846CA68B, tf.uint32)
    return _xor(x, _shifted(x, 16))


def _xor(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(x, y)


def _shifted(x: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(x, tf.constant(bits, tf.uint32))


def _as_float(x: tf.Tensor) -> tf.Tensor:
    # Vector instructions turn signed integers into floats, and not unsigned ones.
    return tf.cast(tf.cast(x, tf.int32), tf.float32)
