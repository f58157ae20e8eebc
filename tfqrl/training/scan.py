"""Several gradient updates in one compiled call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from edge.artifact import PolicySpec


def compiled(function: Callable[..., Any], spec: PolicySpec) -> Callable[..., Any]:
    """`function` as TensorFlow runs it fastest, by what the networks in it see.

    XLA fuses what is around the matrix products of small networks. Convolutions inside a loop, though, it computes by
    a plain loop of its own on a CPU, far slower than TensorFlow's operations are.
    """
    return tf.function(function, jit_compile=not spec.observation.frames)


def scan(
    update: Callable[..., Sequence[tf.Tensor]], batches: Sequence[tf.Tensor], names: Sequence[str]
) -> dict[str, tf.Tensor]:
    """Run `update` on one batch after the other, inside a compiled function.

    A call of a compiled function costs time beside its arithmetic, as much as a small network's gradient; a loop inside
    it costs next to nothing (benchmarks/training_speed.py, the rows with one update a call).

    Args:
      update: from the tensors of one batch to float32 tensors, in the order of `names`. It may assign to variables.
      batches: tensors whose first axis is that of the updates.
      names: of what `update` gives.

    Returns:
      By name, of scalars their mean over the updates, of other tensors all: (updates, ...).
    """
    n = batches[0].shape[0]

    def body(i: tf.Tensor, *arrays: tf.TensorArray) -> tuple[tf.Tensor, ...]:
        outputs = update(*(batch[i] for batch in batches))
        return i + 1, *(array.write(i, output) for array, output in zip(arrays, outputs, strict=True))

    # One after the other, also where it is not XLA that runs them: each update reads what the last one wrote.
    arrays = (tf.TensorArray(tf.float32, n) for _ in names)
    _, *arrays = tf.while_loop(lambda i, *_: i < n, body, (0, *arrays), parallel_iterations=1)
    stacked = [array.stack() for array in arrays]
    return {name: tf.reduce_mean(x) if x.shape.rank == 1 else x for name, x in zip(names, stacked)}
