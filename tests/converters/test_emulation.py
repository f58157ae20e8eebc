import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from nets import filled, spec_of

from converters import RECIPES, convert, quantizers
from converters.emulation import Output, Widths, calibrate, emulated
from converters.export import DeployedPolicy
from converters.quantizers import LayerConfig, Quantizer, Switch, is_emulated, is_on_grid
from converters.stripping import computed, own_variables, plain, strip
from converters.tflite import layers, output_step
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError
from tfqrl.networks import mlp as dueling_mlp

Dense, Conv2D, Flatten = keras.layers.Dense, keras.layers.Conv2D, keras.layers.Flatten


def mlp(
    activation: str = "relu", last: str = "tanh", widths: tuple[int, ...] = (32, 24), inputs: int = 11
) -> keras.Sequential:
    hidden = [Dense(n, activation, name=f"hidden_{i}") for i, n in enumerate(widths)]
    return filled(keras.Sequential([keras.Input((inputs,)), *hidden, Dense(3, last, name="output")], name="policy"))


def observations(n: int = 400) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(n, 11)).astype(np.float32)


def on_grid(
    network: keras.Sequential, widths: Widths, output: Output = "tanh", visited: np.ndarray | None = None
) -> keras.Sequential:
    result = emulated(network, widths, output)
    calibrate(result, observations() if visited is None else visited)
    return result


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_until_it_is_switched_on_it_computes_in_float(activation: str) -> None:
    network = mlp(activation)
    result = emulated(network, Widths(4, 4, 4, 4), "tanh")
    assert is_emulated(result)
    assert not is_on_grid(result)
    np.testing.assert_array_equal(result(observations()), network(observations()))
    np.testing.assert_array_equal(plain(result)(observations()), network(observations()))
    assert strip(result)[1] is None


def test_a_layer_by_hand() -> None:
    network = keras.Sequential([keras.Input((2,)), Dense(1, "relu", name="output")])
    network.set_weights([np.array([[0.9], [-0.34]], np.float32), np.array([0.13], np.float32)])
    result = emulated(network, Widths(weights=3, activations=2, observation=4, output=3), "tanh")
    first, last = (layer.quantize_config for layer in result.layers)
    first.output.set_scale(0.5)  # -7..7
    last.kernel.set_scale(0.3)  # -3..3
    last.output.set_scale(0.25)  # 0..7, by the output's three bits
    first.output.switch.variable.assign(1.0)
    # Kernel: 0.9 and -0.3. Bias: 0.13 in steps of 0.5 * 0.3, so 0.15.
    # 1.3 is 1.5, -0.6 is -0.5; 1.35 + 0.15 + 0.15 = 1.65, which is 7 steps (6.6), 1.75.
    # 9 ends at 3.5, so 3.15 + 0.15 and more ends at 7 steps.
    # -1.3 is -1.5: below 0.
    found = result(np.array([[1.3, -0.6], [9.0, 0.0], [-1.3, 0.0]], np.float32))
    np.testing.assert_allclose(found, [[1.75], [1.75], [0.0]], atol=1e-6)


def test_the_gradient_is_that_of_lsq() -> None:
    network = keras.Sequential([keras.Input((1,)), Dense(1, "linear", use_bias=True, name="output")])
    network.set_weights([np.array([[1.0]], np.float32), np.array([0.0], np.float32)])
    result = emulated(network, Widths(weights=8, observation=3), "choices")
    first, last = (layer.quantize_config for layer in result.layers)
    first.output.set_scale(0.5)
    last.kernel.set_scale(1.0)
    first.output.switch.variable.assign(1.0)
    for value, inside, of_scale in ((0.7, 1.0, 1 - 1.4), (9.0, 0.0, 3.0), (-0.7, 1.0, -1 + 1.4)):
        x = tf.Variable([[value]], dtype=tf.float32)
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(result(x))
        by_x, by_log_scale = tape.gradient(y, [x, first.output.log_scale])
        np.testing.assert_allclose(by_x, [[inside]], atol=1e-6)
        # Eq. 3 times the scale, whose logarithm is learnt, and times 1 / sqrt(values * steps).
        np.testing.assert_allclose(by_log_scale, of_scale * 0.5 / np.sqrt(3), rtol=1e-5)


@pytest.mark.parametrize("how", ["eager", "function", "compiled"])
@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize(("shape", "channels"), [((7, 5), False), ((7, 5), True), ((3, 3, 2, 4), True), ((5,), True)])
def test_the_gradients_that_are_written_out_are_those_of_differentiation(
    shape: tuple[int, ...], channels: bool, on: bool, clips: bool, how: str
) -> None:
    rng = np.random.default_rng(0)
    x, upstream = (tf.constant(rng.standard_normal(shape).astype(np.float32)) for _ in range(2))
    scale = tf.constant(rng.uniform(0.2, 0.6, shape[-1:] if channels else ()).astype(np.float32))
    switch = Switch()
    switch.variable = tf.Variable(float(on))
    quantizer = Quantizer(switch, -2, 3, clips=clips)

    @tf.custom_gradient
    def rounded(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return tf.round(x), lambda upstream: upstream

    def expected(x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        steps = rounded(x / scale)
        if clips:
            steps = tf.clip_by_value(steps, -2.0, 3.0)
        return tf.where(switch.variable > 0, steps * scale, x)

    def found(x: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        return quantizers.on_grid(x, scale, switch, quantizer._rounded, 0.5)

    def with_gradients(function: Any) -> Any:
        def call(x: tf.Tensor, scale: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape() as tape:
                tape.watch([x, scale])
                y = function(x, scale)
                total = tf.reduce_sum(upstream * y)
            by_x, by_scale = tape.gradient(total, [x, scale])
            return y, by_x, tf.zeros_like(scale) if by_scale is None else by_scale

        if how != "eager":
            call = tf.function(call, jit_compile=how == "compiled")
        return call(x, scale)

    (y, by_x, by_scale), (expected_y, expected_by_x, expected_by_scale) = map(with_gradients, (found, expected))
    np.testing.assert_array_equal(y, expected_y)
    # Differentiation multiplies by the scale and divides by it again.
    np.testing.assert_allclose(by_x, expected_by_x, rtol=1e-6)
    np.testing.assert_allclose(by_scale, 0.5 * expected_by_scale, rtol=1e-4, atol=1e-5)


BITS = (8, 7, 6, 5, 4, 3, 2)


def within_a_step(network: keras.Sequential, spec: PolicySpec, recipe: str, visited: np.ndarray) -> float:
    """The part of actions that are within a step of the output of what the network gives."""
    conversion = convert(network, spec, recipe, visited)
    step = output_step(conversion.artifact.flatbuffer)
    expected = DeployedPolicy(network, spec).act(visited)
    policy = conversion.policy()
    found = np.stack([policy.act(observation) for observation in visited])
    return float((np.abs(found - expected) <= step * 1.001).mean())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("activation", "last", "output"), [("relu", "tanh", "tanh"), ("tanh", "linear", "clipped")])
def test_what_is_deployed_is_what_was_trained(bits: int, activation: str, last: str, output: Output) -> None:
    network = on_grid(mlp(activation, last), Widths(bits, bits, bits, bits), output)
    spec = spec_of((11,), 3, bounded=True)
    assert within_a_step(network, spec, "int8", observations()) > 0.995
    if bits <= 4:
        assert within_a_step(network, spec, "int8x4", observations()) > 0.995
    if bits == 2:
        # XNNPACK does not compute these, and LiteRT's own kernels round twice.
        assert within_a_step(network, spec, "int8x2", observations()) > 0.9


def test_four_bits_are_exact_whatever_the_widths() -> None:
    for inputs, widths in ((11, (32, 24)), (12, (31, 24)), (12, (32, 23)), (1, (30,)), (12, (33,))):
        network = mlp(widths=widths, inputs=inputs)
        kernel, bias = network.layers[0].get_weights()
        kernel[:, -1] = 0  # a dead neuron
        network.layers[0].set_weights([kernel, bias])
        visited = observations()[:, np.arange(inputs) % 11]
        network = on_grid(network, Widths(4, 4), visited=visited)
        assert within_a_step(network, spec_of((inputs,), 3, bounded=True), "int8x4", visited) > 0.995


@pytest.mark.parametrize(("bits", "per_channel"), [(8, False), (3, False), (3, True)])
def test_of_dueling_networks_the_advantages_are_deployed(bits: int, per_channel: bool) -> None:
    network = dueling_mlp(11, (24, 16), 4, activation="relu", dueling=True)
    network.layers[-1].set_weights([w + 1.0 for w in network.layers[-1].get_weights()])
    widths = Widths(bits, bits, per_channel=per_channel)
    network = on_grid(network, widths, "choices")
    spec = PolicySpec(ObservationSpec((11,), (None,) * 11, (None,) * 11), ActionSpec((), (), (), n=4), None, None)
    recipe = dataclasses.replace(RECIPES["int8"], per_channel=per_channel)
    conversion = convert(network, spec, recipe, observations(), logits=True)
    policy, values = conversion.policy(), network(observations()).numpy()
    found = np.stack([policy.logits(observation) for observation in observations()])
    error = np.abs((found - found[:, :1]) - (values - values[:, :1]))
    assert (error <= output_step(conversion.artifact.flatbuffer) * 1.001).mean() > 0.99
    # What V reads is not there any more.
    *_, hidden, output = layers(conversion.artifact.flatbuffer)
    assert hidden.shape[0] == output.shape[1] <= 16


@pytest.mark.parametrize("method", [name for name in vars(LayerConfig) if name.startswith(("get_w", "get_a", "set_q"))])
def test_autograph_has_nothing_to_warn_of(method: str) -> None:
    # It drops docstrings, and then cannot read a function that has nothing else.
    tf.autograph.to_graph(getattr(LayerConfig, method))


def test_weights_are_packed_at_their_width() -> None:
    # Of 4 bits, but for the first layer, which reads an odd number of values.
    for bits, recipe, packed in ((4, "int8x4", [8, 4, 4]), (3, "int8x4", [8, 4, 4]), (2, "int8x2", [2, 2, 2])):
        network = on_grid(mlp(), Widths(weights=bits))
        conversion = convert(network, spec_of((11,), 3, bounded=True), recipe, observations())
        assert [layer.weight_bits for layer in layers(conversion.artifact.flatbuffer)] == packed


def test_scales_per_output_are_trained_and_deployed() -> None:
    network = on_grid(mlp(), Widths(4, 6, per_channel=True))
    spec = spec_of((11,), 3, bounded=True)
    recipe = dataclasses.replace(RECIPES["int8"], per_channel=True)
    assert within_a_step(network, spec, recipe, observations()) > 0.995


def test_frames_by_the_bytes_of_an_int8_input() -> None:
    network = filled(
        keras.Sequential(
            [
                keras.Input((20, 20, 3)),
                Conv2D(5, 5, 3, activation="relu", name="first"),
                Flatten(name="flatten"),
                Dense(9, "relu", name="second"),
                Dense(3, "linear", name="output"),
            ]
        )
    )
    frames = np.random.default_rng(0).integers(0, 256, (150, 20, 20, 3), np.uint8)
    spec = spec_of((20, 20, 3), 3, bounded=True)
    spec = dataclasses.replace(spec, observation=ObservationSpec((20, 20, 3), (0.0,) * 1200, (255.0,) * 1200, "uint8"))
    for bits, recipe in ((8, "int8"), (4, "int8"), (4, "int8x4"), (2, "int8")):
        result = emulated(network, Widths(bits, bits, bits), "clipped")
        calibrate(result, frames.astype(np.float32) / np.float32(255))
        assert within_a_step(result, spec, recipe, frames) > 0.99


def test_kernels_lie_on_the_grid_that_they_are_said_to_lie_on() -> None:
    network = on_grid(mlp(), Widths(3, 3))
    deployed, trained = strip(network)
    assert trained is not None
    for name, grid in trained.kernels.items():
        kernel, _ = deployed.get_layer(name).get_weights()
        np.testing.assert_array_equal(kernel, grid.integers.astype(np.float32) * grid.scale)
        assert np.abs(grid.integers).max() <= 3
        assert grid.bits == 4


def test_scales_are_trained_and_copied_with_the_rest() -> None:
    network = on_grid(mlp(), Widths(4, 4))
    assert len(network.trainable_variables) == len(own_variables(network.layers)) + 3 + 2 + 1  # kernels, relu, input
    other = emulated(mlp(), Widths(4, 4), "tanh")
    other.set_weights(network.get_weights())
    assert is_on_grid(other)
    np.testing.assert_array_equal(other(observations()), network(observations()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"weights": 1}, "Bits of weights must lie in 2..8"), ({"activations": 9}, "Bits of activations must lie")],
)
def test_widths_out_of_range_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        emulated(mlp(), Widths(**changes), "tanh")


def test_activations_that_have_no_grid_are_refused() -> None:
    with pytest.raises(UsageError, match="hidden_0 has the activation sigmoid; relu and tanh"):
        emulated(mlp("sigmoid"), Widths(), "tanh")


def test_every_layer_says_what_it_computes() -> None:
    network = on_grid(mlp("tanh"), Widths(4, 4))
    x = observations()
    for item in computed(network):
        if item.kernel is not None:
            x = x @ item.kernel + item.bias
        x = np.asarray(item.layer.activation(x))
        x = x if item.steps is None else item.steps(x)
    expected = network(observations()).numpy()
    assert (np.abs(x - expected) < 1e-5).mean() > 0.999


def test_it_computes_the_same_compiled_by_xla() -> None:
    for activation, bits in itertools.product(("relu", "tanh"), (8, 3)):
        network = on_grid(mlp(activation), Widths(bits, bits))
        compiled = tf.function(network, jit_compile=True)(observations()).numpy()
        assert (np.abs(compiled - network(observations()).numpy()) < 1e-5).mean() > 0.995
