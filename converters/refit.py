"""The layer of choices' values, fitted anew to what integers give it to read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters.flatbuffer import WITH_WEIGHTS, Graph
from edge import interpreter
from edge.artifact import FloatArray

Array = npt.NDArray[Any]

# The part of the observations that it is fitted to; on the others it has to be better, or is left.
_FITTED_TO = 0.8
# Of the mean square of what is read: it keeps weights that matter little where they were.
_RIDGE = 1e-3


def refitted(network: keras.Sequential, read: FloatArray, values: FloatArray) -> keras.Sequential | None:
    """A network whose last layer makes of what integers give it what it made of floats, in the least squares.

    Integers before it make errors that are not the same for all choices, and these do not average out: of a Q-network
    whose choices are worth nearly the same, it may always be the same one that is largest. Weights of zero stay so.

    Args:
      network: gives one value for each choice. It is not changed.
      read: (n, inputs) float32, what the converted layer reads.
      values: (n, choices) float32, what the network gives for the same observations.

    Returns:
      None if that is not better on the last fifth of the observations, which it is not fitted to, or if the last
      layer is not dense and linear.
    """
    last = network.layers[-1]
    if type(last) is not keras.layers.Dense or last.activation is not keras.activations.linear or not last.use_bias:
        return None
    *before, kernel, bias = network.get_weights()
    reads, n = read.astype(np.float64), int(len(read) * _FITTED_TO)
    missing = values - (reads @ kernel + bias)
    mean, missing_mean = reads[:n].mean(axis=0), missing[:n].mean(axis=0)
    moments = (reads[:n] - mean).T @ (reads[:n] - mean)
    moments += (_RIDGE * np.trace(moments) / len(moments) or 1.0) * np.eye(len(moments))
    wanted = (reads[:n] - mean).T @ (missing[:n] - missing_mean)
    change = np.zeros(kernel.shape)
    for i, weights in enumerate(kernel.T):
        (there,) = np.nonzero(weights)
        change[there, i] = np.linalg.solve(moments[np.ix_(there, there)], wanted[there, i])
    kernel = (kernel + change).astype(np.float32)
    bias = (bias + missing_mean - mean @ change).astype(np.float32)
    left = values[n:] - (reads[n:] @ kernel + bias)
    # What all choices lack makes none of them larger.
    if not left.var(axis=1).mean() < missing[n:].var(axis=1).mean():
        return None
    copy = keras.models.clone_model(network)
    copy.set_weights([*before, kernel, bias])
    return copy


def read_by_last_layer(flatbuffer: bytes, observations: Array) -> FloatArray:
    """What the last layer with weights reads, (n, inputs) float32.

    Args:
      flatbuffer: a model that takes one observation at a time, whose last layer is in float.
      observations: (n, *observation.shape), as the model takes them.
    """
    graph = Graph(flatbuffer)
    last = [operator for operator in graph.operators if graph.code(operator) in WITH_WEIGHTS][-1]
    runner = interpreter.build_for_inspection(flatbuffer)
    index, reads = runner.get_input_details()[0]["index"], int(last.inputs[0])
    found = []
    for observation in observations:
        runner.set_tensor(index, observation[np.newaxis])
        runner.invoke()
        found.append(runner.get_tensor(reads).reshape(-1))
    return np.stack(found)
