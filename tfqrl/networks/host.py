"""A network's forward pass without TensorFlow, for acting between two updates."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.quantizers import config_of, is_emulated
from converters.stripping import computed, plain
from converters.template import Template
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.interpreter import runtime_module, tensor_memory
from tfqrl.networks.observers import as_input
from tfqrl.options import silent_stderr

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]

_ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
}


class HostNetwork:
    """A stack of dense layers, evaluated by numpy; on their grids, where the network computes on those.

    Of a dueling network on grids it gives the advantages alone, as the deployed one will.
    For a handful of observations a call of TensorFlow costs far more than the arithmetic, and leaves threads spinning
    on the cores that the environments then want (benchmarks/rollout.py).

    Attributes:
      weights: what it computes with: kernel and bias of each layer.
    """

    def __init__(self, network: keras.Sequential) -> None:
        """Evaluate `network`, with the weights that it has at the last `refresh`."""
        assert len(network.input_shape) == 2, "dense layers only"
        self._network = network
        self.refresh()

    def refresh(self) -> None:
        """Take over the network's weights."""
        self._layers = [
            (item.kernel, item.bias, _ACTIVATIONS[item.layer.activation.__name__], item.steps)
            for item in computed(self._network, in_training=True)
        ]
        self.weights = [array for layer in self._layers for array in layer[:2] if array is not None]

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Outputs for (batch, inputs) float32."""
        x = inputs
        for kernel, bias, activation, steps in self._layers:
            if kernel is not None:
                x = x @ kernel + bias
            x = activation(x)
            if steps is not None:
                x = steps(x)
        return x


class TensorFlowNetwork:
    """A network for frames on its grids, which only TensorFlow evaluates between two updates.

    Weights are rounded at each `refresh`, once for all calls until the next; grids of what layers give are those of the
    time.

    Attributes:
      weights: what it computes with: kernel and bias of each layer.
    """

    def __init__(self, network: keras.Sequential) -> None:
        """Evaluate `network`, with the weights that it has at the last `refresh`."""
        self._network = network
        copies = {layer.name: layer for layer in plain(network).layers}
        # Of each layer what it computes, with weights of its own, and what rounds that; either may be missing.
        self._layers = [
            (copies.get(item.layer.name), config_of(layer)) for item, layer in zip(computed(network), network.layers)
        ]
        self._call = tf.function(self._evaluate, jit_compile=True)
        self.refresh()

    def refresh(self) -> None:
        """Take over the network's weights."""
        self.weights = _values(self._network)
        variables = [variable for layer, _ in self._layers if layer is not None for variable in layer.weights]
        for variable, array in zip(variables, self.weights, strict=True):
            variable.assign(array)

    def __call__(self, inputs: Array) -> FloatArray:
        """Outputs, (batch, outputs) float32, for (batch, *shape) frames as the environment gives them."""
        return self._call(as_input(tf.constant(inputs))).numpy()

    def _evaluate(self, x: tf.Tensor) -> tf.Tensor:
        for layer, config in self._layers:
            if layer is not None:
                x = layer(x)
            if config is not None and config.output is not None:
                x = config.output(x, None, None)
        return x


class InterpreterNetwork:
    """A network for frames, evaluated in float32 by the interpreter that runs policies on devices.

    A call costs less than TensorFlow's, the more so the fewer frames there are. `refresh` costs some calls' time,
    because an interpreter packs the weights when it is built; for dense networks that is more than it saves.

    Attributes:
      weights: what it computes with: kernel and bias of each layer.
    """

    def __init__(self, network: keras.Sequential, observation: ObservationSpec) -> None:
        """Evaluate `network`, with the weights that it has at the last `refresh`, on what `observation` describes.

        Raises:
          TemplateError: the network has layers that have no template.
        """
        outputs = network.output_shape[-1]
        unbounded = (None,) * outputs
        spec = PolicySpec(observation, ActionSpec((outputs,), unbounded, unbounded), None, None)
        self._network = network
        self._template = Template(plain(network), spec)
        self.refresh()
        with silent_stderr():  # the first interpreter in a process says which kernels it has
            self._build(1)

    def refresh(self) -> None:
        """Take over the network's weights."""
        self.weights = _values(self._network)
        self._batch = 0

    def __call__(self, inputs: Array) -> FloatArray:
        """Outputs, (batch, outputs) float32, for (batch, *shape) observations as the environment gives them."""
        if len(inputs) != self._batch:
            self._build(len(inputs))
        self._input[...] = inputs
        self._interpreter.invoke()
        return self._output.copy()

    def _build(self, batch: int) -> None:
        self._template.write(self.weights)
        # One observation is too little work to be shared.
        threads = min(batch, 2, len(os.sched_getaffinity(0)))
        module, _ = runtime_module()
        interpreter = module.Interpreter(model_content=bytes(self._template.flatbuffer), num_threads=threads)
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, (batch, *self._template.spec.observation.shape))
        interpreter.allocate_tensors()
        self._input = tensor_memory(interpreter, index)
        self._output = tensor_memory(interpreter, interpreter.get_output_details()[0]["index"])
        self._interpreter, self._batch = interpreter, batch


Acting = HostNetwork | InterpreterNetwork | TensorFlowNetwork


def acting_network(network: keras.Sequential, spec: PolicySpec) -> Acting:
    """What evaluates `network` fastest between two updates, for what an environment of `spec` observes."""
    if spec.observation.frames and is_emulated(network):
        return TensorFlowNetwork(network)
    if spec.observation.frames:
        return InterpreterNetwork(network, spec.observation)
    return HostNetwork(network)


def _values(network: keras.Sequential) -> list[FloatArray]:
    return [
        array for item in computed(network, in_training=True) for array in (item.kernel, item.bias) if array is not None
    ]
