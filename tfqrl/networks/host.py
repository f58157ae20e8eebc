"""A network's forward pass without TensorFlow, for acting between two updates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tf_keras as keras

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
    """

    def __init__(self, network: keras.Sequential) -> None:
        """Evaluate `network`, with the weights that it has at the last `refresh`."""
        assert all(isinstance(layer, keras.layers.Dense) for layer in network.layers), "dense layers only"
        self._network = network
        self._activations = [_ACTIVATIONS[layer.activation.__name__] for layer in network.layers]
        self.refresh()

    def refresh(self) -> None:
        """Take over the network's weights."""
        self._weights = [(layer.kernel.numpy(), layer.bias.numpy()) for layer in self._network.layers]

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Outputs for (batch, inputs) float32."""
        x = inputs
        for (kernel, bias), activation in zip(self._weights, self._activations):
            x = activation(x @ kernel + bias)
        return x
