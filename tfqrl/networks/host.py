"""A network's forward pass without TensorFlow, for acting between two updates."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from converters.template import Template
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.interpreter import runtime_module, tensor_memory
from tfqrl.networks.dueling import DuelingOutput, deployable
from tfqrl.options import silent_stderr

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]

_ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
}


class HostNetwork:
    """A stack of dense layers, evaluated by numpy.

    For a handful of observations a call of TensorFlow costs far more than the arithmetic, and leaves threads spinning
    on the cores that the environments then want (benchmarks/rollout.py).

    Attributes:
      weights: what it computes with: kernel and bias of each layer.
    """

    def __init__(self, network: keras.Sequential) -> None:
        """Evaluate `network`, with the weights that it has at the last `refresh`."""
        assert all(isinstance(layer, keras.layers.Dense) for layer in network.layers), "dense layers only"
        self._network = network
        self._activations = [_ACTIVATIONS[layer.activation.__name__] for layer in network.layers]
        self.refresh()

    def refresh(self) -> None:
        """Take over the network's weights."""
        self.weights = _values(self._network)

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Outputs for (batch, inputs) float32."""
        x = inputs
        for (kernel, bias), activation in zip(zip(self.weights[::2], self.weights[1::2]), self._activations):
            x = activation(x @ kernel + bias)
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
        self._template = Template(deployable(network), spec)
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


def acting_network(network: keras.Sequential, spec: PolicySpec) -> HostNetwork | InterpreterNetwork:
    """What evaluates `network` fastest between two updates, for what an environment of `spec` observes."""
    if spec.observation.frames:
        return InterpreterNetwork(network, spec.observation)
    return HostNetwork(network)


def _values(network: keras.Sequential) -> list[FloatArray]:
    """The weights of a network, in a fifth of the time that `get_weights` takes: short rollouts read them often."""
    values = []
    for layer in network.layers:
        if isinstance(layer, DuelingOutput):
            values += [layer.kernel.numpy(), layer.bias.numpy()]
        else:
            values += [tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=tf.float32).numpy() for v in layer.variables]
    return values
