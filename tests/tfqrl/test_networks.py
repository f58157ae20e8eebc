import math

import numpy as np
import pytest
import tensorflow as tf

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError
from tfqrl.agents.td3 import TD3Config
from tfqrl.networks import (
    Categorical,
    DiagonalGaussian,
    HostNetwork,
    InterpreterNetwork,
    actor,
    critic,
    mlp,
    nature_cnn,
    update_target,
)


def test_a_gaussians_log_density_and_entropy_by_hand() -> None:
    gaussian = DiagonalGaussian(2)
    gaussian.log_std.assign([0.0, math.log(2.0)])
    # Standard normal at 1, and a normal of deviation 2 at its mean.
    expected = -0.5 - 0.5 * math.log(2 * math.pi) - math.log(2.0) - 0.5 * math.log(2 * math.pi)
    log_prob = gaussian.log_prob(tf.constant([[0.0, 5.0]]), tf.constant([[1.0, 5.0]]))
    assert log_prob.numpy() == pytest.approx([expected])
    entropy = math.log(2 * math.pi * math.e) + math.log(2.0)
    assert gaussian.entropy(tf.zeros((3, 2))).numpy() == pytest.approx([entropy] * 3)


def test_gaussian_samples_have_the_moments_that_they_should() -> None:
    gaussian = DiagonalGaussian(2)
    gaussian.log_std.assign([0.0, math.log(0.1)])
    gaussian.refresh()
    means = np.tile(np.float32([3.0, -1.0]), (20_000, 1))
    samples = gaussian.explorer()(lambda x: x, means, np.random.default_rng(0))
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples.mean(axis=0), [3.0, -1.0], atol=0.03)
    np.testing.assert_allclose(samples.std(axis=0), [1.0, 0.1], rtol=0.03)


def test_a_categoricals_log_probability_and_entropy_by_hand() -> None:
    logits = tf.math.log([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
    categorical = Categorical()
    np.testing.assert_allclose(categorical.log_prob(logits, tf.constant([1, 2])), np.log([0.25, 0.7]), rtol=1e-6)
    assert categorical.entropy(logits)[0].numpy() == pytest.approx(1.5 * math.log(2.0))


def test_categorical_samples_have_the_frequencies_that_they_should() -> None:
    logits = np.tile(np.log(np.float32([0.1, 0.2, 0.7])), (30_000, 1))
    choices = Categorical().explorer()(lambda x: x, logits, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(choices) / 30_000, [0.1, 0.2, 0.7], atol=0.01)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_host_network_equals_keras_and_follows_it(activation: str) -> None:
    network = mlp(4, (16, 8), 3, activation=activation, seed=1)
    host = HostNetwork(network)
    inputs = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.testing.assert_allclose(host(inputs), network(inputs).numpy(), atol=1e-6)
    before = host(inputs)
    network.layers[1].kernel.assign(network.layers[1].kernel * 2.0)
    np.testing.assert_array_equal(host(inputs), before)
    host.refresh()
    np.testing.assert_allclose(host(inputs), network(inputs).numpy(), atol=1e-6)


def test_a_seed_fixes_the_weights_and_layers_differ() -> None:
    first, second, other = (mlp(8, (8,), 8, seed=seed).get_weights() for seed in (0, 0, 1))
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(first[0], other[0])
    assert not np.allclose(first[0], first[2])
    # Orthogonal with gain sqrt(2).
    np.testing.assert_allclose(first[0] @ first[0].T, 2 * np.eye(8), atol=1e-5)


def test_the_nature_cnn_has_the_layers_of_its_paper() -> None:
    network = nature_cnn((84, 84, 4), 6)
    assert network.output_shape == (None, 6)
    shapes = [layer.output_shape[1:] for layer in network.layers]
    assert shapes == [(20, 20, 32), (9, 9, 64), (7, 7, 64), (3136,), (512,), (6,)]
    # 32 of 8x8x4, 64 of 4x4x32, 64 of 3x3x64, 512 of 3136, with their biases; and the output.
    assert network.count_params() == 8224 + 32832 + 36928 + 1606144 + 513 * 6
    a, b, other = (nature_cnn((36, 40, 1), 2, seed=seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(x, y) for x, y in zip(a, b))
    assert not np.allclose(a[0], other[0])


@pytest.mark.parametrize("shape", [(35, 84, 4), (84, 35, 4), (4, 84, 84)])
def test_frames_that_are_too_small_or_turned_round_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match=r"at least 36x36 pixels, as .height, width, channels."):
        nature_cnn(shape, 2)


def test_a_target_moves_by_a_part_of_the_way_and_a_tau_of_one_copies() -> None:
    targets, sources = [tf.Variable([1.0, 2.0]), tf.Variable(1e8)], [tf.Variable([3.0, 2.0]), tf.Variable(0.1)]
    # 1 + 0.25 x 2 = 1.5; what is equal stays.
    update_target(targets, sources, 0.25)
    assert targets[0].numpy().tolist() == [1.5, 2.0]
    # 1e8 + (0.1 - 1e8) would be 0 in float32.
    update_target(targets, sources, 1.0)
    for target, source in zip(targets, sources):
        np.testing.assert_array_equal(target, source)
    assert sources[0].numpy().tolist() == [3.0, 2.0]


def test_targets_follow_inside_xla() -> None:
    target, source = tf.Variable([0.0]), tf.Variable([1.0])

    @tf.function(jit_compile=True)
    def update() -> None:
        for _ in range(3):
            update_target([target], [source], 0.5)

    update()
    # 1 - 0.5^3.
    assert target.numpy() == [0.875]


def test_targets_that_are_not_those_of_the_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        update_target([tf.Variable(0.0), tf.Variable(0.0)], [tf.Variable(0.0)], 0.5)
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        update_target([tf.Variable([0.0])], [tf.Variable([0.0, 1.0])], 0.5)


def test_the_interpreter_equals_keras_and_follows_it(capfd: pytest.CaptureFixture[str]) -> None:
    network = nature_cnn((36, 40, 2), 3, seed=1)
    acting = InterpreterNetwork(network, ObservationSpec((36, 40, 2), (), (), "uint8"))
    rng = np.random.default_rng(0)
    for batch in (1, 5, 2):
        frames = rng.integers(0, 256, (batch, 36, 40, 2)).astype(np.uint8)
        expected = network(frames.astype(np.float32) / 255).numpy()
        np.testing.assert_allclose(acting(frames), expected, atol=1e-5)
        np.testing.assert_array_equal(acting(frames), acting(frames))
    before = acting(frames)
    network.layers[-1].kernel.assign(network.layers[-1].kernel * 2.0)
    np.testing.assert_array_equal(acting(frames), before)
    acting.refresh()
    np.testing.assert_allclose(acting(frames), network(frames.astype(np.float32) / 255).numpy(), atol=1e-5)
    assert "XNNPACK" not in capfd.readouterr().err


def test_the_interpreter_computes_in_float32_what_is_trained_in_bfloat16() -> None:
    network = nature_cnn((36, 36, 1), 2, precision="bfloat16", seed=1)
    acting = InterpreterNetwork(network, ObservationSpec((36, 36, 1), (), (), "uint8"))
    exact = nature_cnn((36, 36, 1), 2)
    exact.set_weights(network.get_weights())
    frames = np.random.default_rng(0).integers(0, 256, (2, 36, 36, 1)).astype(np.uint8)
    np.testing.assert_allclose(acting(frames), exact(frames.astype(np.float32) / 255).numpy(), atol=1e-5)


def test_critics_may_have_widths_of_their_own() -> None:
    acts = ActionSpec((2,), (-1.0,) * 2, (1.0,) * 2)
    spec = PolicySpec(ObservationSpec((3,), (None,) * 3, (None,) * 3), acts, None, None)
    for widths, expected in ((None, [8, 1]), ((5, 4), [5, 4, 1])):
        config = TD3Config(env="", hidden=(8,), critic_hidden=widths)
        assert [layer.units for layer in critic(config, spec).layers] == expected
        assert [layer.units for layer in actor(config, spec).layers] == [8, 2]
    with pytest.raises(UsageError, match="--critic-hidden takes one or more widths above 0"):
        TD3Config(env="", critic_hidden=(8, 0))
