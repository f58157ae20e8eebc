import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from replays import frames
from updates import (
    BATCH,
    assert_all_equal,
    assert_first_step_of_adam,
    batches,
    everything,
    fields,
    put_back,
    shake,
    values,
)

from tfqrl import envs
from tfqrl.agents.dqn import DQN, METRICS, DQNConfig
from tfqrl.replay import PrioritizedReplay, Transitions, UniformReplay
from tfqrl.training.restoring import policy_network

SPEC = envs.spec_of("toys/Choose-v0")
FRAMES = frames(40, 36, 2)
CONFIG = DQNConfig(env="", hidden=(6, 5), target_update_every=3, max_gradient_norm=1e6, seed=1)
ONES = tf.ones(BATCH)


def in_training(config: DQNConfig = CONFIG) -> DQN:
    """One whose target lags behind, and whose optimiser has made no step."""
    agent = DQN(config, SPEC)
    shake(agent.policy.variables, 1)
    agent.refresh()
    return agent


def gradients(agent: DQN) -> list[Any]:
    """What the optimiser was given at its first step."""
    return [moment.numpy() * 10 for moment in agent.optimizer._momentums]


def test_the_target_begins_as_the_network_that_is_trained() -> None:
    agent = DQN(CONFIG, SPEC)
    assert_all_equal(values(agent.target.variables), values(agent.policy.variables))


@pytest.mark.parametrize("double", [True, False])
def test_an_update_by_hand(double: bool) -> None:
    agent, batch = in_training(dataclasses.replace(CONFIG, double=double)), batches(SPEC)
    batch.reward *= 2  # errors on both sides of Huber's bound
    rows, before = np.arange(BATCH), values(agent.policy.variables)
    q_t = agent.target(batch.next_observation[0]).numpy()
    chosen = agent.policy(batch.next_observation[0]).numpy().argmax(axis=1)
    assert (chosen != q_t.argmax(axis=1)).any(), "or the two would be the same"
    target = batch.reward[0] + 0.9 * (q_t[rows, chosen] if double else q_t.max(axis=1))
    target[-2:] = batch.reward[0, -2:]
    weight = np.linspace(0.2, 1.0, BATCH).astype(np.float32)
    with tf.GradientTape() as tape:
        q_tm1 = agent.policy(batch.observation[0])
        error = target - tf.gather(q_tm1, batch.action[0], batch_dims=1)
        size = tf.abs(error)
        assert float(tf.reduce_min(size)) < 1.0 < float(tf.reduce_max(size))
        expected = tf.reduce_mean(weight * tf.where(size <= 1.0, 0.5 * error**2, size - 0.5))
    expected_gradients = values(tape.gradient(expected, agent.policy.variables))

    loss, q, mean_error, errors = agent._update(*fields(batch), tf.constant(weight))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(q) == pytest.approx(float(tf.reduce_mean(q_tm1)), rel=1e-5)
    assert float(mean_error) == pytest.approx(float(tf.reduce_mean(size)), rel=1e-5)
    np.testing.assert_allclose(errors, error, rtol=1e-5, atol=1e-6)
    assert_first_step_of_adam(
        agent.optimizer, CONFIG.learning_rate, before, values(agent.policy.variables), expected_gradients
    )


def test_importance_weights_scale_the_gradient() -> None:
    batch, found = batches(SPEC), []
    for weight in (ONES, 0.5 * ONES, tf.constant([1.0] + [0.0] * (BATCH - 1))):
        agent = in_training()
        errors = agent._update(*fields(batch), weight)[3]
        found.append((gradients(agent), errors))
    (whole, errors), (half, errors_of_half), (first, _) = found
    np.testing.assert_array_equal(errors, errors_of_half)  # priorities are of the errors, not of what was made of them
    for g, g_half in zip(whole, half):
        np.testing.assert_allclose(g_half, g / 2, rtol=1e-4, atol=1e-7)
    # Only the first transition counts: what the others were does not matter.
    other = batches(SPEC)
    other.reward[0, 1:] += 5.0
    agent = in_training()
    agent._update(*fields(other), tf.constant([1.0] + [0.0] * (BATCH - 1)))
    for g, g_other in zip(first, gradients(agent)):
        np.testing.assert_allclose(g_other, g, rtol=1e-5, atol=1e-7)
    assert not np.allclose(first[0], whole[0])


def test_a_gradient_is_scaled_down_to_its_greatest_norm() -> None:
    batch, whole = batches(SPEC), in_training()
    whole._update(*fields(batch), ONES)
    norm = np.sqrt(sum((g**2).sum() for g in gradients(whole)))
    bounded = in_training(dataclasses.replace(CONFIG, max_gradient_norm=float(norm / 4)))
    bounded._update(*fields(batch), ONES)
    for g, g_bounded in zip(gradients(whole), gradients(bounded)):
        np.testing.assert_allclose(g_bounded, g / 4, rtol=1e-4, atol=1e-7)


def test_what_follows_a_state_without_a_future_does_not_count() -> None:
    batch, other = batches(SPEC), batches(SPEC)
    other.next_observation[0, -2:] += 7.0
    first, second = (in_training()._update(*fields(b), ONES)[3].numpy() for b in (batch, other))
    np.testing.assert_array_equal(first, second)
    other.next_observation[0, 0] += 7.0
    assert in_training()._update(*fields(other), ONES)[3][0] != first[0]


def test_the_target_is_a_copy_of_every_nth_update_over_several_calls() -> None:
    agent, batch = in_training(), batches(SPEC, 8)
    begin, copied = everything(agent), values(agent.target.variables)
    targets = []
    for i in range(8):
        part = {name: array[i : i + 1] for name, array in vars(batch).items() if array is not None}
        agent.update(Transitions(**part))
        if i + 1 in (3, 6):
            copied = values(agent.policy.variables)
        assert_all_equal(values(agent.target.variables), copied)
        targets.append(copied)
    one_by_one = everything(agent)
    # The same in two calls of four, which is to say that the copy is made in the middle of each.
    put_back(agent, begin)
    for call in range(2):
        part = {name: array[4 * call : 4 * call + 4] for name, array in vars(batch).items() if array is not None}
        metrics = agent.update(Transitions(**part))
        for array, expected in zip(values(agent.target.variables), targets[4 * call + 3], strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)
    assert metrics["td_error"].shape == (4, BATCH)
    assert set(METRICS) | {"td_error"} == set(metrics)
    for name, arrays in everything(agent).items():
        for array, expected in zip(arrays, one_by_one[name], strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("steps", "epsilon"), [(0, 0.9), (100, 0.5), (150, 0.3), (200, 0.1), (1000, 0.1)])
def test_epsilon_falls_linearly_over_its_fraction_of_the_steps(steps: int, epsilon: float) -> None:
    config = dataclasses.replace(
        CONFIG, steps=1000, learning_starts=100, epsilon_first=0.9, epsilon_last=0.1, epsilon_fraction=0.2
    )
    agent = in_training(config)
    observation = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    greedy = agent.acting(observation).argmax(axis=1)
    explored = agent.explorer(steps)(agent.acting, observation, np.random.default_rng(1))
    # A third of the random choices are the greedy one.
    assert (explored != greedy).mean() == pytest.approx(epsilon * 2 / 3, abs=0.02)
    assert set(explored) == {0, 1, 2}


def test_epsilon_0_is_the_best_choice_and_1_is_any() -> None:
    config = dataclasses.replace(CONFIG, steps=1000, learning_starts=100, epsilon_first=1.0, epsilon_last=0.0)
    agent = in_training(config)
    observation = np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32)
    best = agent.policy(observation).numpy().argmax(axis=1)
    np.testing.assert_array_equal(agent.explorer(1000)(agent.acting, observation, np.random.default_rng(1)), best)
    shares = np.bincount(agent.explorer(0)(agent.acting, observation, np.random.default_rng(1)), minlength=3) / 3000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)


@pytest.mark.parametrize("dueling", [False, True])
def test_what_is_deployed_has_the_values_of_what_acts(dueling: bool) -> None:
    config = dataclasses.replace(CONFIG, dueling=dueling, activation="tanh", epsilon_last=0.0)
    agent = in_training(config)
    kernel = agent.policy.variables[-2]
    kernel.assign(10 * kernel)  # so that it is not the biases that decide
    agent.refresh()
    observation = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    deployed = policy_network(DQN, config, SPEC, values(agent.variables["policy"]))(observation).numpy()
    np.testing.assert_allclose(deployed, agent.policy(observation), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(deployed, agent.acting(observation), rtol=1e-5, atol=1e-5)
    explored = agent.explorer(config.steps)(agent.acting, observation, np.random.default_rng(1))
    np.testing.assert_array_equal(explored, deployed.argmax(axis=1))
    assert len(set(explored)) > 1


def test_frames_are_learnt_from_acted_on_and_deployed_at_one_scale() -> None:
    config = DQNConfig(env="", epsilon_last=0.0, dueling=True, double=False)
    agent, batch = DQN(config, FRAMES), batches(FRAMES)
    seen, then = (np.float32(stacks[0] / 255) for stacks in (batch.observation, batch.next_observation))
    q_tm1, q_t = agent.policy(seen).numpy(), agent.target(then).numpy()
    target = batch.reward[0] + batch.discount[0] * q_t.max(axis=1)
    deployed = policy_network(DQN, config, FRAMES, values(agent.variables["policy"]))(seen).numpy()
    np.testing.assert_allclose(deployed, q_tm1, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(agent.acting(batch.observation[0]), q_tm1, rtol=1e-4, atol=1e-5)
    errors = agent._update(*fields(batch), ONES)[3]
    np.testing.assert_allclose(errors, target - q_tm1[np.arange(BATCH), batch.action[0]], rtol=1e-3, atol=1e-4)


def test_prioritised_replay_is_used_where_it_is_asked_for() -> None:
    assert type(CONFIG.make_replay(SPEC)) is UniformReplay
    assert type(dataclasses.replace(CONFIG, prioritized=True).make_replay(SPEC)) is PrioritizedReplay
