from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter

from converters.export import DeployedPolicy
from converters.stripping import deployable
from converters.tflite import to_float32
from edge.errors import UsageError
from tfqrl import agents
from tfqrl.networks import HostNetwork, mlp, nature_cnn
from tfqrl.runs import Run

ACTIONS, FRAME = 5, (40, 36, 2)


def shaken(network: keras.Sequential) -> keras.Sequential:
    """The same with biases that are not zero, as after training."""
    rng = np.random.default_rng(0)
    for variable in network.variables:
        variable.assign_add(rng.normal(0, 0.1, variable.shape))
    return network


NETWORKS: dict[str, Callable[..., keras.Sequential]] = {
    "mlp": lambda **options: mlp(3, (8, 6), ACTIONS, dueling=True, name="policy", **options),
    "one hidden layer": lambda **options: mlp(3, (6,), ACTIONS, dueling=True, name="policy", **options),
    "cnn": lambda **options: nature_cnn(FRAME, ACTIONS, dueling=True, name="policy", **options),
}
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def observations(network: keras.Sequential, batch: int = 16) -> tf.Tensor:
    return tf.constant(np.random.default_rng(1).uniform(0, 1, (batch, *network.input_shape[1:])), tf.float32)


def as_in_the_paper(network: keras.Sequential) -> keras.Model:
    """Two streams with a hidden layer each, and equation 9 of Wang et al. 2016; the weights of `network`."""
    *shared, hidden, output = network.layers
    width = hidden.units // 2
    x = inputs = keras.Input(network.input_shape[1:])
    for layer in shared:
        x = layer(x)
    streams = [keras.layers.Dense(width, hidden.activation) for _ in range(2)]
    value, advantage = keras.layers.Dense(1), keras.layers.Dense(ACTIONS)
    v, a = value(streams[0](x)), advantage(streams[1](x))
    model = keras.Model(inputs, v + a - tf.reduce_mean(a, axis=1, keepdims=True))
    kernel, bias = hidden.get_weights()
    streams[0].set_weights([kernel[:, :width], bias[:width]])
    streams[1].set_weights([kernel[:, width:], bias[width:]])
    kernel, bias = output.get_weights()
    value.set_weights([kernel[:, :1], bias[:1]])
    advantage.set_weights([kernel[:, 1:], bias[1:]])
    return model


def test_a_dueling_output_by_hand() -> None:
    output = mlp(1, (1,), 2, activation="linear", dueling=True).layers[-1]
    # V = 2 x + 10, A = (1, 5) y + (0, 4) - their means, (3, 2): (-2, 2) y + (-2, 2).
    output.set_weights([np.float32([[2.0, 1.0, 5.0]]), np.float32([10.0, 0.0, 4.0])])
    # x = 3, y = 1: V = 16, A = (-4, 4).
    assert output(tf.constant([[3.0, 1.0]])).numpy().tolist() == [[12.0, 20.0]]


@every_network
def test_a_dueling_network_is_that_of_its_paper(make: Callable[..., keras.Sequential]) -> None:
    network = shaken(make())
    paper, inputs = as_in_the_paper(network), observations(network)
    np.testing.assert_allclose(network(inputs), paper(inputs), atol=1e-5)


@every_network
def test_a_dueling_network_learns_what_that_of_its_paper_does(make: Callable[..., keras.Sequential]) -> None:
    network = shaken(make())
    paper, inputs = as_in_the_paper(network), observations(network)
    aims = tf.constant(np.random.default_rng(2).normal(size=(16, ACTIONS)), tf.float32)
    gradients = []
    for model in (network, paper):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs) - aims) ** 2)
        gradients.append(tape.gradient(loss, model.trainable_variables))
    ours, theirs = gradients
    *shared, hidden_kernel, hidden_bias, kernel, bias = ours
    np.testing.assert_allclose(kernel, tf.concat([theirs[-4], theirs[-2]], 1), atol=1e-5)
    np.testing.assert_allclose(bias, tf.concat([theirs[-3], theirs[-1]], 0), atol=1e-5)
    np.testing.assert_allclose(hidden_kernel, tf.concat([theirs[-8], theirs[-6]], 1), atol=1e-5)
    np.testing.assert_allclose(hidden_bias, tf.concat([theirs[-7], theirs[-5]], 0), atol=1e-5)
    for a, b in zip(shared, theirs):
        np.testing.assert_allclose(a, b, atol=1e-5)


@every_network
def test_what_is_deployed_has_the_same_values_and_layers_that_converters_know(
    make: Callable[..., keras.Sequential],
) -> None:
    network = shaken(make())
    plain, inputs = deployable(network), observations(network)
    assert plain.name == "policy"
    assert {type(layer) for layer in plain.layers} <= {
        keras.layers.Dense,
        keras.layers.Conv2D,
        keras.layers.Flatten,
    }
    assert [layer.name for layer in plain.layers] == [layer.name for layer in network.layers]
    np.testing.assert_allclose(plain(inputs), network(inputs), atol=1e-5)


def test_a_deployed_copy_does_not_follow_the_network() -> None:
    network = shaken(NETWORKS["mlp"]())
    plain, inputs = deployable(network), observations(network)
    before = plain(inputs).numpy()
    shaken(network)
    np.testing.assert_array_equal(plain(inputs), before)


def test_a_network_without_duel_is_deployed_as_it_is() -> None:
    network = shaken(mlp(3, (8,), 2, activation="relu", output_activation="tanh"))
    inputs = observations(network)
    np.testing.assert_array_equal(deployable(network)(inputs), network(inputs))


@pytest.mark.parametrize("name", ["mlp", "one hidden layer"])
def test_the_host_acts_with_a_dueling_network_and_follows_it(name: str) -> None:
    network = NETWORKS[name]()
    host, inputs = HostNetwork(network), observations(network)
    shaken(network)
    host.refresh()
    np.testing.assert_allclose(host(inputs.numpy()), network(inputs), atol=1e-5)


def test_a_dueling_network_trains_in_xla() -> None:
    network = NETWORKS["mlp"]()
    inputs, aims = observations(network), tf.constant(np.random.default_rng(2).normal(size=(16, ACTIONS)), tf.float32)

    @tf.function(jit_compile=True)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((network(inputs) - aims) ** 2)
        for variable, gradient in zip(network.variables, tape.gradient(loss, network.variables)):
            variable.assign_sub(0.05 * gradient)
        return loss

    losses = [float(step()) for _ in range(50)]
    assert losses[-1] < 0.8 * losses[0]


@every_network
def test_bfloat16_leaves_the_values_float32(make: Callable[..., keras.Sequential]) -> None:
    network, exact = make(precision="bfloat16"), make()
    inputs = observations(network)
    assert network(inputs).dtype == tf.float32
    np.testing.assert_allclose(network(inputs), exact(inputs), atol=0.05)


@every_network
def test_what_was_trained_in_bfloat16_is_deployed_in_float32(make: Callable[..., keras.Sequential]) -> None:
    plain, exact = deployable(make(precision="bfloat16")), make()
    assert {layer.compute_dtype for layer in plain.layers} == {"float32"}
    np.testing.assert_allclose(plain(observations(plain)), exact(observations(plain)), atol=1e-5)


def test_the_streams_have_the_widths_that_were_asked_for() -> None:
    network = NETWORKS["mlp"]()
    assert [tuple(v.shape) for v in network.variables] == [(3, 8), (8,), (8, 12), (12,), (6, 6), (6,)]
    cnn = NETWORKS["cnn"]()
    assert [layer.output_shape[1:] for layer in cnn.layers[-2:]] == [(1024,), (ACTIONS,)]


def test_without_a_hidden_layer_there_are_no_streams() -> None:
    with pytest.raises(UsageError, match="two streams from its last hidden layer on: give it at least one"):
        mlp(4, (), 2, dueling=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_policy_with_two_streams_is_trained_and_converted(precision: str, tmp_path: Path) -> None:
    dqn = agents.get("dqn")
    config = dqn.config(
        env="CartPole-v1",
        dueling=True,
        precision=precision,
        hidden=(8,),
        steps=128,
        learning_starts=32,
        replay_size=128,
    )
    run = Run.create(tmp_path / "run", "dqn", config)
    dqn.train(run)
    network, spec = agents.load_policy(run)
    assert [layer.units for layer in network.layers] == [16, 2]
    interpreter = Interpreter(model_content=to_float32(DeployedPolicy(network, spec, logits=True)))
    interpreter.allocate_tensors()
    observation = np.float32([[0.1, -0.2, 0.03, 0.4]])
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], observation)
    interpreter.invoke()
    values = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(values, network(observation), atol=1e-5)
