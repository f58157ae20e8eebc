"""Small networks for tests of the converters, with weights that differ in size from output to output."""

import numpy as np
import tf_keras as keras

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec

Dense, Conv2D, Flatten = keras.layers.Dense, keras.layers.Conv2D, keras.layers.Flatten


def spec_of(shape: tuple[int, ...], actions: int, *, bounded: bool = False) -> PolicySpec:
    n = int(np.prod(shape))
    bounds = ((-1.0,) * actions, (1.0,) * actions) if bounded else ((None,) * actions, (None,) * actions)
    return PolicySpec(ObservationSpec(shape, (None,) * n, (None,) * n), ActionSpec((actions,), *bounds), None, None)


def filled(network: keras.Sequential, seed: int = 0) -> keras.Sequential:
    """The network with weights whose size differs from output to output, and with biases."""
    rng = np.random.default_rng(seed)
    for variable in network.variables:
        inputs = max(1, int(np.prod(variable.shape[:-1])))
        spread = rng.uniform(0.1, 3, variable.shape[-1])
        variable.assign(rng.normal(0, 1 / np.sqrt(inputs), variable.shape) * spread)
    return network


def dense_network() -> keras.Sequential:
    return filled(
        keras.Sequential(
            [
                keras.Input((11,)),
                Dense(33, "relu", name="first"),
                Dense(17, "tanh", name="second"),
                Dense(19, "sigmoid", name="third"),
                Dense(3, name="last"),
            ]
        )
    )


def conv_network() -> keras.Sequential:
    return filled(
        keras.Sequential(
            [
                keras.Input((20, 20, 3)),
                Conv2D(5, 5, 3, activation="relu", name="first"),
                Conv2D(7, 3, 1, activation="tanh", name="second"),
                Flatten(),
                Dense(9, "relu", name="third"),
                Dense(3, name="last"),
            ]
        )
    )


def observations_for(network: keras.Sequential, n: int = 200) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, *network.input_shape[1:])).astype(np.float32)
