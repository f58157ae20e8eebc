import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)

from edge.errors import UsageError, UserError
from tfqrl import agents
from tfqrl.agents import ppo
from tfqrl.agents.ppo import METRICS, PPO, PPOConfig
from tfqrl.envs import VectorEnv
from tfqrl.runs import Run

SMALL = PPOConfig(
    env="Pendulum-v1", steps=1024, num_envs=4, rollout_steps=64, batch_size=64, epochs=2, hidden=(16,), seed=3
)


def trained(path: Path, config: PPOConfig) -> Run:
    run = Run.create(path, "ppo", config)
    ppo.train(run)
    return run


def weights(run: Run) -> dict[str, np.ndarray]:
    return {name: array for name, array in run.load_checkpoint().items() if array.dtype.kind == "f"}


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "a", SMALL), trained(tmp_path / "b", SMALL)
    other = trained(tmp_path / "c", dataclasses.replace(SMALL, seed=4))
    assert weights(first).keys() == weights(second).keys()
    for name, array in weights(first).items():
        np.testing.assert_array_equal(array, weights(second)[name], err_msg=name)
    assert not np.array_equal(weights(first)["policy/0"], weights(other)["policy/0"])
    strip = [{k: v for k, v in r.items() if k not in ("steps_per_s", "elapsed_s")} for r in first.metrics()]
    assert strip == [{k: v for k, v in r.items() if k not in ("steps_per_s", "elapsed_s")} for r in second.metrics()]


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=512))
    before = run.load_checkpoint()
    assert int(before["steps"]) == 512
    run = run.reconfigured(SMALL)
    ppo.train(run)
    after = run.load_checkpoint()
    assert int(after["steps"]) == 1024
    assert [record["steps"] for record in run.metrics()] == [256, 512, 768, 1024]
    assert after["moments/count"] == 1024, "the normaliser has seen what it saw before, and the rest"
    # Adam's step count went on too: 2 epochs x 4 batches x 4 iterations.
    assert 32 in [int(array) for name, array in after.items() if name.startswith("optimizer") and array.ndim == 0]


def test_everything_that_is_restored_equals_what_was_saved(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", SMALL)
    env = VectorEnv(SMALL.env, 1, seed=0)
    learner = PPO(SMALL, env.spec)
    saved = run.load_checkpoint()
    learner.restore(saved)
    for name, array in learner.state().items():
        np.testing.assert_array_equal(array, saved[name], err_msg=name)


def start(path: Path, *more: str) -> "subprocess.Popen[str]":
    words = [
        "train",
        "ppo",
        "--env",
        "Pendulum-v1",
        "--steps",
        "100000000",
        "--num-envs",
        "4",
        "--rollout-steps",
        "64",
        *more,
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfqrl", *words, "--out", str(path)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not (path / "metrics.jsonl").exists() or len((path / "metrics.jsonl").read_text().splitlines()) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_checkpoint(number: signal.Signals, code: int, tmp_path: Path) -> None:
    process = start(tmp_path / "run")
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert "the checkpoint is saved, go on with --resume" in error
    run = Run.open(tmp_path / "run")
    assert int(run.load_checkpoint()["steps"]) == run.metrics()[-1]["steps"]


def test_a_run_that_is_killed_goes_on_from_its_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(tmp_path / "run", "--checkpoint-period-s", "0")
    process.kill()
    process.wait()
    run = Run.open(tmp_path / "run")
    steps = int(run.load_checkpoint()["steps"])
    assert steps > 0
    assert len(run.metrics()) * 256 - steps in (0, 256), "a checkpoint after each iteration, or killed between the two"
    (run.path / ".checkpoint.npz.half").write_bytes(b"what a kill in the middle of writing leaves")
    config = dataclasses.replace(agents.config_of(run), steps=steps + 512)
    ppo.train(run.reconfigured(config))
    assert [record["steps"] for record in run.metrics()] == list(range(256, steps + 513, 256))


def test_all_of_the_random_state_and_moments_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=512))
    saved = run.load_checkpoint()
    # Ask for no more steps than there are: what is loaded is saved again as it is.
    ppo.train(run)
    again = run.load_checkpoint()
    assert saved.keys() == again.keys()
    for name, array in saved.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
    assert float(saved["return_moments/count"]) == 512


def learner_and_batch(config: PPOConfig, actions: int = 2) -> tuple[PPO, list[np.ndarray]]:
    spec = VectorEnv("toys/Count-v0", 1, seed=0).spec
    rng = np.random.default_rng(0)
    learner = PPO(config, spec)
    observation = rng.normal(size=(8, 2)).astype(np.float32)
    action = rng.normal(size=(8, actions)).astype(np.float32)
    mean, std = learner.policy(observation).numpy(), 1.0
    old = (-0.5 * ((action - mean) / std) ** 2 - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    old += rng.normal(0.0, 0.2, 8)
    advantage, target = rng.normal(size=8), rng.normal(size=8)
    return learner, [x.astype(np.float32) for x in (observation, action, old, advantage, target)]


def test_a_gradient_step_by_hand() -> None:
    config = PPOConfig(env="", hidden=(4,), entropy_weight=0.1, max_gradient_norm=0.05, learning_rate=0.01, seed=1)
    learner, batch = learner_and_batch(config)
    observation, action, old, advantage, target = (tf.constant(x) for x in batch)
    with tf.GradientTape() as tape:
        mean = learner.policy(observation)
        std = tf.exp(learner.distribution.variables[0])
        log_prob = tf.reduce_sum(-0.5 * ((action - mean) / std) ** 2 - tf.math.log(std) - 0.9189385, axis=1)
        ratio = tf.exp(log_prob - old)
        normal = (advantage - np.mean(advantage)) / np.std(advantage)
        surrogate = tf.minimum(ratio * normal, tf.clip_by_value(ratio, 0.8, 1.2) * normal)
        value_loss = tf.reduce_mean((tf.squeeze(learner.value(observation), 1) - target) ** 2)
        entropy = tf.reduce_sum(tf.math.log(std) + 0.5 * np.log(2 * np.pi * np.e))
        loss = -tf.reduce_mean(surrogate) + 0.5 * value_loss - 0.1 * entropy
    gradients = tape.gradient(loss, learner.variables)
    norm = np.sqrt(sum(float(tf.reduce_sum(g**2)) for g in gradients))
    assert norm > 0.05, "or clipping would not be tested"
    before = [variable.numpy() for variable in learner.variables]
    metrics = learner._gradient_step(*(tf.constant(x) for x in batch)).numpy()
    for variable, old_value, gradient in zip(learner.variables, before, gradients):
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


def test_the_step_size_falls_to_zero(tmp_path: Path) -> None:
    annealed = trained(tmp_path / "annealed", SMALL).metrics()
    assert [r["learning_rate"] / SMALL.learning_rate for r in annealed] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    constant = trained(tmp_path / "constant", dataclasses.replace(SMALL, anneal_learning_rate=False)).metrics()
    assert [r["learning_rate"] / SMALL.learning_rate for r in constant] == pytest.approx([1.0] * 4)


def test_the_scale_of_rewards_does_not_matter_when_they_are_normalised(tmp_path: Path) -> None:
    weights = {}
    for name in ("toys/Match-v0", "toys/MatchTimes100-v0"):
        for normalize in (True, False):
            config = dataclasses.replace(SMALL, env=name, normalize_reward=normalize)
            run = trained(tmp_path / f"{name[5:]}{normalize}", config)
            weights[name, normalize] = run.load_checkpoint()["value/0"]
    np.testing.assert_allclose(weights["toys/Match-v0", True], weights["toys/MatchTimes100-v0", True], atol=1e-4)
    assert np.abs(weights["toys/Match-v0", False] - weights["toys/MatchTimes100-v0", False]).max() > 5e-3


def test_a_training_that_diverges_says_so_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=512))
    saved = run.load_checkpoint()
    saved["value/0"] = np.full_like(saved["value/0"], np.inf)
    run.save_checkpoint(saved)
    with pytest.raises(UserError, match=r"diverged at 768 steps: .* is not finite"):
        ppo.train(run.reconfigured(SMALL))
    assert int(run.load_checkpoint()["steps"]) == 512


def test_time_limits_bootstrap_and_terminations_do_not() -> None:
    # All rewards are 1 and every episode has one step. Where it ends by termination, a state's value is 1; where it is
    # cut off, the state led to is worth as much again, and the value grows towards 1 / (1 - gamma) = 2.
    config = PPOConfig(
        env="", gamma=0.5, gae_lambda=0.0, learning_rate=0.01, hidden=(16,), num_envs=4, rollout_steps=4, batch_size=16
    )
    spec = VectorEnv("toys/Count-v0", 1, seed=0).spec
    values = {}
    for cut_off in (False, True):
        learner = PPO(config, spec)
        observation = np.ones((4, 4, 2), np.float32)
        ones, zeros = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
        batches = np.tile(np.arange(16, dtype=np.int32), (10, 1))
        for _ in range(60):
            learner.update(observation, observation, observation, ones, zeros if cut_off else ones, ones, batches)
        values[cut_off] = float(learner.value(observation[0, :1])[0, 0])
    assert values[False] == pytest.approx(1.0, abs=0.05)
    assert values[True] == pytest.approx(2.0, abs=0.1)


def test_an_update_reports_every_metric(tmp_path: Path) -> None:
    record = trained(tmp_path / "run", SMALL).metrics()[-1]
    assert set(METRICS) | {
        "explained_variance",
        "return",
        "episode_steps",
        "steps",
        "steps_per_s",
        "elapsed_s",
        "learning_rate",
    } == set(record)
    assert all(np.isfinite(value) for value in record.values())


def test_training_stops_early_at_the_target_return(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, env="toys/Match-v0", steps=100_000, target_return=-100.0)
    assert trained(tmp_path / "run", config).metrics()[-1]["steps"] == 256


def test_the_restored_policy_is_the_one_that_acted(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", SMALL)
    network, spec = agents.load_policy(run)
    state = run.load_checkpoint()
    np.testing.assert_array_equal(network.weights[0].numpy(), state["policy/0"])
    assert spec.normalizer is not None
    np.testing.assert_allclose(spec.normalizer.mean, state["moments/mean"], rtol=1e-6)
    assert spec.action.high == (2.0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"gamma": 1.5}, r"--gamma must lie in 0\.\.1"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be above 0"),
        ({"hidden": ()}, "--hidden takes one or more widths"),
        ({"batch_size": 100}, "--batch-size 100 must divide the rollout of 16 x 128 = 2048"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PPOConfig(env="Pendulum-v1", **values)  # type: ignore[arg-type]


def tensorboard_value(event) -> float:
    return float(tf.make_ndarray(event.tensor_proto))


def test_the_run_folder_holds_scalars_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(tmp_path / "run", SMALL)
    events = EventAccumulator(str(run.path))
    events.Reload()
    shown = [(event.step, tensorboard_value(event)) for event in events.Tensors("return")]
    assert shown == [(r["steps"], pytest.approx(r["return"])) for r in run.metrics() if "return" in r]


def test_json_holds_the_metrics(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", SMALL)
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)["steps"] > 0
