"""From a graph to a float32 flatbuffer, by TensorFlow's converter; and what a flatbuffer says of itself."""

from __future__ import annotations

import warnings

import numpy as np
import tensorflow as tf

from converters.export import DeployedPolicy
from converters.flatbuffer import BITS, Graph, Operators, Types
from edge.artifact import Layer

_WITH_WEIGHTS = (Operators.FULLY_CONNECTED, Operators.CONV_2D)


def to_float32(policy: DeployedPolicy) -> bytes:
    """The policy as a float32 flatbuffer that takes one observation at a time."""
    function = policy.concrete_function(batch=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], policy).convert())


def first_activation(flatbuffer: bytes) -> str:
    """What the flatbuffer calls the tensor that the first layer with weights reads."""
    graph = Graph(flatbuffer)
    first = next(operator for operator in graph.operators if graph.code(operator) in _WITH_WEIGHTS)
    return graph.name(int(first.inputs[0]))


def layers(flatbuffer: bytes) -> tuple[Layer, ...]:
    """Every weight matrix and convolution kernel in a flatbuffer, as it lies there."""
    graph = Graph(flatbuffer)
    found = []
    for operator in graph.operators:
        if graph.code(operator) not in _WITH_WEIGHTS:
            continue
        index = int(operator.inputs[1])
        widened = graph.producer(index)
        if widened is not None and graph.code(widened) == Operators.DEQUANTIZE:
            index = int(widened.inputs[0])
        if not graph.is_constant(index):
            continue
        weights = graph.constant(index)
        bits = BITS[graph.tensor(index).type]
        found.append(Layer(graph.name(index), weights.shape, bits, float(np.mean(weights == 0))))
    return tuple(found)


def output_step(flatbuffer: bytes) -> float | None:
    """The step of the grid on which an integer network gives its output; None for a float model."""
    graph = Graph(flatbuffer)
    output = graph.outputs[0]
    if graph.tensor(output).type in (Types.INT8, Types.UINT8):
        return float(graph.scales(output)[0])
    steps = [
        float(graph.scales(int(operator.inputs[0]))[0])
        for operator in graph.operators
        if graph.code(operator) == Operators.DEQUANTIZE and not graph.is_constant(int(operator.inputs[0]))
    ]
    return steps[-1] if steps else None
