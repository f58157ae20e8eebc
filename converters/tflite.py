"""From a graph to a float32 flatbuffer, by TensorFlow's converter; and what a flatbuffer says of itself."""

from __future__ import annotations

import warnings

import numpy as np
import tensorflow as tf

from converters.export import DeployedPolicy
from converters.flatbuffer import BITS, WITH_WEIGHTS, Graph, Operators, Types
from edge.artifact import Layer


def to_float32(policy: DeployedPolicy) -> bytes:
    """The policy as a float32 flatbuffer that takes one observation at a time."""
    function = policy.concrete_function(batch=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], policy).convert())


def frame_ranges(flatbuffer: bytes) -> dict[str, tuple[float, float]]:
    """What the first tensors of a graph of frames can hold, by name: bytes, then bytes divided by 255.

    The division is a multiplication in the graph, or in the first kernel; with float input the caller has made it.
    """
    graph = Graph(flatbuffer)
    index = graph.inputs[0]
    high = 1.0 if graph.tensor(index).type == Types.FLOAT32 else 255.0
    ranges = {graph.name(index): (0.0, high)}
    while len(readers := graph.consumers(index)) == 1:
        (reader,) = readers
        code = graph.code(reader)
        if code == Operators.MUL and graph.is_constant(int(reader.inputs[1])):
            high *= float(graph.constant(int(reader.inputs[1])))
        elif code not in (Operators.CAST, Operators.RESHAPE):
            break
        index = int(reader.outputs[0])
        ranges[graph.name(index)] = (0.0, high)
    return ranges


def layers(flatbuffer: bytes) -> tuple[Layer, ...]:
    """Every weight matrix and convolution kernel in a flatbuffer, as it lies there."""
    graph = Graph(flatbuffer)
    found = []
    for operator in graph.operators:
        if graph.code(operator) not in WITH_WEIGHTS:
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
