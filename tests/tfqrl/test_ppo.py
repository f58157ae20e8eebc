import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from training import trained

from edge.errors import UsageError
from tfqrl import envs
from tfqrl.agents.ppo import METRICS, PPO, PPOConfig
from tfqrl.runs import Run
from tfqrl.training.on_policy import Rollout


def start(path: Path, *more: str) -> "subprocess.Popen[str]":
    words = ["train", "ppo", "--env", "Pendulum-v1", "--steps", "100000000", "--num-envs", "4", "--rollout-steps", "64"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfqrl", *words, *more, "--out", str(path)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not list(path.glob("events*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the checkpoint is saved, go on with --resume" in error
    assert int(Run.open(tmp_path / "run").load_checkpoint()["steps"]) % 256 == 0


def agent_and_batch(config: PPOConfig) -> tuple[PPO, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    agent = PPO(config, envs.spec_of("toys/Count-v0"))
    observation = rng.normal(size=(8, 2)).astype(np.float32)
    action = rng.normal(size=(8, 2)).astype(np.float32)
    mean, std = agent.policy(observation).numpy(), 1.0
    old = (-0.5 * ((action - mean) / std) ** 2 - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    old += rng.normal(0.0, 0.2, 8)
    advantage, target = rng.normal(size=8), rng.normal(size=8)
    return agent, [x.astype(np.float32) for x in (observation, action, old, advantage, target)]


def test_a_gradient_step_by_hand() -> None:
    config = PPOConfig(env="", hidden=(4,), entropy_weight=0.1, max_gradient_norm=0.05, learning_rate=0.01, seed=1)
    agent, batch = agent_and_batch(config)
    observation, action, old, advantage, target = (tf.constant(x) for x in batch)
    with tf.GradientTape() as tape:
        mean = agent.policy(observation)
        std = tf.exp(agent.distribution.variables[0])
        log_prob = tf.reduce_sum(-0.5 * ((action - mean) / std) ** 2 - tf.math.log(std) - 0.9189385, axis=1)
        ratio = tf.exp(log_prob - old)
        normal = (advantage - np.mean(advantage)) / np.std(advantage)
        surrogate = tf.minimum(ratio * normal, tf.clip_by_value(ratio, 0.8, 1.2) * normal)
        value_loss = tf.reduce_mean((tf.squeeze(agent.value(observation), 1) - target) ** 2)
        entropy = tf.reduce_sum(tf.math.log(std) + 0.5 * np.log(2 * np.pi * np.e))
        loss = -tf.reduce_mean(surrogate) + 0.5 * value_loss - 0.1 * entropy
    gradients = tape.gradient(loss, agent.trained)
    norm = np.sqrt(sum(float(tf.reduce_sum(g**2)) for g in gradients))
    assert norm > 0.05, "or clipping would not be tested"
    before = [variable.numpy() for variable in agent.trained]
    metrics = [float(metric) for metric in agent._gradient_step(*(tf.constant(x) for x in batch))]
    for variable, old_value, gradient in zip(agent.trained, before, gradients):
        clipped = gradient.numpy() * 0.05 / norm
        # Adam's first step, m / 0.1 over sqrt(v / 0.001): the rate times g / (|g| + epsilon / sqrt(0.001)).
        expected = old_value - 0.01 * clipped / (np.abs(clipped) + 1e-5 / np.sqrt(0.001))
        np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5)
    assert metrics[0] == pytest.approx(-float(tf.reduce_mean(surrogate)), rel=1e-4)
    assert metrics[1] == pytest.approx(float(value_loss), rel=1e-4)
    assert metrics[2] == pytest.approx(float(entropy), rel=1e-4)
    difference = (log_prob - old).numpy()
    assert metrics[3] == pytest.approx(np.mean(np.exp(difference) - 1 - difference), rel=1e-3)
    assert metrics[4] == pytest.approx(np.mean(np.abs(np.exp(difference) - 1) > 0.2))


def test_time_limits_bootstrap_and_terminations_do_not() -> None:
    # All rewards are 1 and every episode has one step. Where it ends by termination, a state's value is 1; where it is
    # cut off, the state led to is worth as much again, and the value grows towards 1 / (1 - gamma) = 2.
    config = PPOConfig(env="", gamma=0.5, gae_lambda=0.0, hidden=(16,), num_envs=4, rollout_steps=4, batch_size=16)
    spec = envs.spec_of("toys/Count-v0")
    values = {}
    for cut_off in (False, True):
        agent = PPO(config, spec)
        observation = np.ones((4, 4, 2), np.float32)
        ones, zeros = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
        rollout = Rollout(observation, observation, observation, ones, zeros if cut_off else ones, ones)
        for _ in range(60):
            agent.update(rollout, 0.01, np.random.default_rng(0))
        values[cut_off] = float(agent.value(observation[0, :1])[0, 0])
    assert values[False] == pytest.approx(1.0, abs=0.05)
    assert values[True] == pytest.approx(2.0, abs=0.1)


def test_an_update_reports_every_metric(tmp_path: Path) -> None:
    config = PPOConfig(env="Pendulum-v1", steps=1024, num_envs=4, rollout_steps=64, epochs=2, hidden=(16,))
    records = trained(tmp_path / "run", config).metrics()
    shared = {"explained_variance", "learning_rate", "return", "episode_steps", "steps", "steps_per_s", "elapsed_s"}
    assert set(METRICS) | shared == set(records[-1])
    assert all(np.isfinite(value) for value in records[-1].values())
    assert [r["learning_rate"] / config.learning_rate for r in records] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_batch_that_does_not_divide_the_rollout_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch-size 100 must divide the rollout of 16 x 128 = 2048"):
        PPOConfig(env="Pendulum-v1", batch_size=100)
