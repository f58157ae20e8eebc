from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from training import trained

from tfqrl import envs
from tfqrl.agents.a2c import A2C, METRICS, A2CConfig
from tfqrl.training.on_policy import Rollout
from tfqrl.training.optimizers import rmsprop

GAMMA, RATE, NORM = 0.9, 0.01, 0.05


def test_an_update_by_hand() -> None:
    config = A2CConfig(
        env="",
        hidden=(4,),
        num_envs=2,
        rollout_steps=3,
        gamma=GAMMA,
        entropy_weight=0.1,
        max_gradient_norm=NORM,
        seed=1,
    )
    agent = A2C(config, envs.spec_of("toys/Count-v0"))
    rng = np.random.default_rng(0)
    observation, action, next_observation = rng.normal(size=(3, 3, 2, 2)).astype(np.float32)
    reward = np.float32([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    # The first copy terminates at its second step; the time of the second copy is up at its first.
    terminated = np.float32([[0, 0], [1, 0], [0, 0]])
    done = np.float32([[0, 1], [1, 0], [0, 0]])
    goes_on = done[:-1] == 0
    next_observation[:-1][goes_on] = observation[1:][goes_on]
    next_value = agent.value(next_observation.reshape(6, 2)).numpy().reshape(3, 2)
    returns = np.float32(
        [
            [1.0 + GAMMA * 3.0, 2.0 + GAMMA * next_value[0, 1]],
            [3.0, 4.0 + GAMMA * (6.0 + GAMMA * next_value[2, 1])],
            [5.0 + GAMMA * next_value[2, 0], 6.0 + GAMMA * next_value[2, 1]],
        ]
    ).reshape(6)
    flat, actions = observation.reshape(6, 2), action.reshape(6, 2)
    with tf.GradientTape() as tape:
        value, mean = agent.value(flat)[:, 0], agent.policy(flat)
        advantage = returns - value.numpy()
        log_prob = tf.reduce_sum(-0.5 * (actions - mean) ** 2 - 0.9189385, axis=1)
        std = tf.exp(agent.distribution.variables[0])
        log_prob += tf.reduce_sum(-tf.math.log(std) + 0.5 * (1 - std**-2) * (actions - mean) ** 2, axis=1)
        policy_loss = -tf.reduce_mean(log_prob * advantage)
        value_loss = tf.reduce_mean((value - returns) ** 2)
        entropy = tf.reduce_sum(tf.math.log(std) + 0.5 * np.log(2 * np.pi * np.e))
        loss = policy_loss + 0.5 * value_loss - 0.1 * entropy
    gradients = [g.numpy() for g in tape.gradient(loss, agent.trained)]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    assert norm > NORM, "or clipping would not be tested"
    before = [variable.numpy() for variable in agent.trained]
    rollout = Rollout(observation, action, next_observation, reward, terminated, done)
    metrics = agent.update(rollout, RATE, rng)
    for variable, old_value, gradient in zip(agent.trained, before, gradients):
        g = gradient * NORM / norm
        # The mean square begins at 0: the first step is of size RATE / sqrt(0.01), wherever there is a gradient.
        expected = old_value - RATE * g / np.sqrt(0.01 * g**2 + 1e-10)
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-6)
    assert float(metrics["policy_loss"]) == pytest.approx(float(policy_loss), rel=1e-4)
    assert float(metrics["value_loss"]) == pytest.approx(float(value_loss), rel=1e-4)
    assert float(metrics["entropy"]) == pytest.approx(float(entropy), rel=1e-4)
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-4)
    expected = 1 - np.var(advantage) / np.var(returns)
    assert float(metrics["explained_variance"]) == pytest.approx(expected, rel=1e-3)


def test_rmsprop_divides_by_the_root_of_the_mean_square_from_0_on() -> None:
    variable = tf.Variable([1.0, 1.0])
    optimizer = rmsprop(0.1, [variable])
    square, expected = np.zeros(2), np.ones(2)
    for gradient in ([2.0, 1e-5], [-1.0, 1e-5]):
        optimizer.apply_gradients([(tf.constant(gradient), variable)])
        square = 0.99 * square + 0.01 * np.square(gradient)
        expected -= 0.1 * np.array(gradient) / np.sqrt(square + 1e-5**2)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)


def test_an_update_reports_every_metric(tmp_path: Path) -> None:
    config = A2CConfig(env="CartPole-v1", steps=400, num_envs=4, hidden=(16,))
    record = trained(tmp_path / "run", config).metrics()[-1]
    shared = {"learning_rate", "return", "episode_steps", "steps", "steps_per_s", "elapsed_s"}
    assert set(METRICS) | shared == set(record)
    assert all(np.isfinite(value) for value in record.values())
