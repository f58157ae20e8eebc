"""From the network that is trained to one that converters and runtimes know."""

from __future__ import annotations

import tf_keras as keras

from tfqrl.networks.dueling import DuelingOutput


def deployable(network: keras.Sequential) -> keras.Sequential:
    """A copy of `network` of Keras' own layers, computing in float32; its names, shapes and weights are the same.

    A dueling output becomes the dense layer that it is, with one kernel and one bias. TFLite has no bfloat16
    arithmetic: what was trained in it acts in float32 from here on.
    """

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = keras.layers.Dense if isinstance(layer, DuelingOutput) else type(layer)
        return kind.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(network, clone_function=plain)
    for to, layer in zip(copy.layers, network.layers):
        dueling = isinstance(layer, DuelingOutput)
        to.set_weights([layer.kernel, layer.bias] if dueling else layer.get_weights())
    return copy
