import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from updates import (
    BATCH,
    assert_all_equal,
    assert_first_step_of_adam,
    assert_moved_by,
    batches,
    everything,
    fields,
    put_back,
    shake,
    values,
)

from edge.errors import UsageError
from tfqrl import envs
from tfqrl.agents.sac import METRICS, SAC, SACConfig
from tfqrl.replay import Transitions
from tfqrl.training.restoring import policy_network

SPEC = envs.spec_of("toys/Count-v0")
CONFIG = SACConfig(env="", hidden=(6, 5), tau=0.1, initial_temperature=0.3, seed=1)


def in_training(config: SACConfig = CONFIG) -> SAC:
    """One whose targets lag behind, and whose optimisers have made no step."""
    agent = SAC(config, SPEC)
    shake(agent.critic_variables, 1)
    shake(agent.policy.variables, 2)
    agent.refresh()
    return agent


def test_targets_begin_as_the_critics_which_begin_as_different_ones() -> None:
    agent = SAC(CONFIG, SPEC)
    assert_all_equal(values(agent.target_variables), values(agent.critic_variables))
    first, second = (values(critic.variables) for critic in agent.critics)
    assert not np.array_equal(first[0], second[0])


def test_an_entropy_that_no_policy_has_is_refused() -> None:
    # Two actions: the uniform distribution on a square of side 2 has ln 4 nats.
    SAC.check(dataclasses.replace(CONFIG, target_entropy=1.38), SPEC)
    with pytest.raises(UsageError, match=r"--target-entropy 1\.39 is out of reach: 2 actions .* less than 1\.39 nats"):
        SAC.check(dataclasses.replace(CONFIG, target_entropy=1.39), SPEC)


def squashed(agent: SAC, observation: np.ndarray, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Actions and their log-densities, by the change of variables as appendix C of the paper has it."""
    mean, log_std = tf.split(agent.policy(observation), 2, axis=1)
    action = tf.tanh(mean + tf.exp(log_std) * noise)
    normal = -0.5 * noise**2 - log_std - 0.9189385
    return action, tf.reduce_sum(normal - tf.math.log(1 - action**2), axis=1)


def test_an_update_by_hand() -> None:
    agent, batch = in_training(), batches(SPEC)
    observation, action, next_observation = batch.observation[0], batch.action[0], batch.next_observation[0]
    noise = tf.random.stateless_normal((2, BATCH, 2), (CONFIG.seed, 1), alg="philox")
    policy, critics = agent.policy.variables, agent.critic_variables
    before = values(policy), values(critics), values(agent.target_variables)

    a_t, log_prob_t = squashed(agent, next_observation, noise[0])
    q_t = np.minimum(*(target(np.hstack([next_observation, a_t])).numpy()[:, 0] for target in agent.targets))
    target = batch.reward[0] + 0.9 * (q_t - 0.3 * log_prob_t.numpy())
    target[-2:] = batch.reward[0, -2:]
    with tf.GradientTape() as tape:
        q_tm1 = [critic(np.hstack([observation, action]))[:, 0] for critic in agent.critics]
        expected_loss = tf.add_n([0.5 * tf.reduce_mean((q - target) ** 2) for q in q_tm1])
    critic_gradients = values(tape.gradient(expected_loss, critics))

    found = dict(zip(METRICS, agent._update(*fields(batch))))
    assert float(found["critic_loss"]) == pytest.approx(float(expected_loss), rel=1e-4)
    assert float(found["q"]) == pytest.approx(float(tf.reduce_mean(q_tm1[0])), rel=1e-4)
    assert float(found["temperature"]) == pytest.approx(0.3)
    assert_first_step_of_adam(
        agent.critic_optimizer, CONFIG.critic_learning_rate, before[1], values(critics), critic_gradients
    )

    # The policy's own step, with the critics as they are by then.
    after = values(policy)
    for variable, value in zip(policy, before[0]):
        variable.assign(value)
    with tf.GradientTape() as tape:
        a, log_prob = squashed(agent, observation, noise[1])
        q = tf.minimum(*(critic(tf.concat([observation, a], 1))[:, 0] for critic in agent.critics))
        expected_loss = tf.reduce_mean(0.3 * log_prob - q)
    gradients = values(tape.gradient(expected_loss, policy))
    assert float(found["policy_loss"]) == pytest.approx(float(expected_loss), rel=1e-4)
    assert float(found["entropy"]) == pytest.approx(-float(tf.reduce_mean(log_prob)), rel=1e-4)
    assert_first_step_of_adam(agent.policy_optimizer, CONFIG.policy_learning_rate, before[0], after, gradients)

    # The target entropy is minus the two elements of the action.
    gradient = -(float(tf.reduce_mean(log_prob)) - 2.0)
    assert_first_step_of_adam(
        agent.temperature_optimizer,
        CONFIG.temperature_learning_rate,
        [np.float32(np.log(0.3))],
        [agent.log_temperature.numpy()],
        [np.float32(gradient)],
    )
    assert_moved_by(0.1, values(critics), before[2], values(agent.target_variables))


@pytest.mark.parametrize("up", [True, False])
def test_the_temperature_moves_so_that_the_entropy_meets_its_target(up: bool) -> None:
    entropy = float(dict(zip(METRICS, in_training()._update(*fields(batches(SPEC)))))["entropy"])
    # More entropy is wanted than there is, so it becomes worth more; or less.
    agent = in_training(dataclasses.replace(CONFIG, target_entropy=entropy + (0.5 if up else -0.5)))
    for _ in range(3):
        before = float(agent.log_temperature)
        agent._update(*fields(batches(SPEC)))
        assert (float(agent.log_temperature) > before) == up
        assert float(agent.log_temperature) != before


def test_noise_differs_from_update_to_update_and_from_seed_to_seed() -> None:
    batch, agent = batches(SPEC), in_training()
    state, found = everything(agent), []
    other = SAC(dataclasses.replace(CONFIG, seed=2), SPEC)
    for trained, updates in ((agent, 0), (agent, 1), (other, 0), (agent, 0)):
        put_back(trained, {**state, "updates": [np.array(updates)]})
        critic_loss, _, _, entropy, _ = trained._update(*fields(batch))
        found.append((float(critic_loss), float(entropy)))
    # Critics and policy each have their own.
    for kind in zip(*found):
        assert len(set(kind)) == 3
    assert found[3] == found[0]


def test_updates_in_one_compiled_call_equal_as_many_calls() -> None:
    agent, batch = in_training(), batches(SPEC, 3)
    begin = everything(agent)
    together = agent.update(batch)
    expected = everything(agent)
    put_back(agent, begin)
    one_by_one = []
    for i in range(3):
        part = {name: array[i : i + 1] for name, array in vars(batch).items() if array is not None}
        one_by_one.append(agent.update(Transitions(**part)))
    for name, arrays in everything(agent).items():
        for array, other in zip(arrays, expected[name], strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-6, err_msg=name)
    assert int(agent.updates) == 3
    for name in METRICS:
        mean = np.mean([float(metrics[name]) for metrics in one_by_one])
        assert float(together[name]) == pytest.approx(mean, rel=1e-5)


def test_what_follows_a_state_without_a_future_does_not_count() -> None:
    batch, other = batches(SPEC), batches(SPEC)
    other.next_observation[0, -2:] += 7.0
    first, second = (in_training()._update(*fields(b))[0] for b in (batch, other))
    assert float(first) == float(second)
    other.next_observation[0, 0] += 7.0
    assert float(in_training()._update(*fields(other))[0]) != float(first)


def test_what_is_deployed_is_the_tanh_of_the_means_around_which_it_explores() -> None:
    agent = in_training()
    # Small deviations, so that what is explored shows what it is around.
    agent.policy.variables[-1].assign([0.3, -0.8, -6.0, -6.0])
    agent.policy.variables[-2].assign(agent.policy.variables[-2] * np.float32([1, 1, 0, 0]))
    agent.refresh()
    observation = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    network = policy_network(SAC, CONFIG, SPEC, values(agent.variables["policy"]))
    deployed = network(observation).numpy()
    assert deployed.shape == (50, 2)
    np.testing.assert_allclose(deployed, np.tanh(agent.acting(observation)[:, :2]), atol=1e-6)
    explored = agent.explorer(0)(agent.acting, observation, np.random.default_rng(1))
    np.testing.assert_allclose(explored, deployed, atol=0.015)
    assert not np.array_equal(explored, deployed)
    assert explored.dtype == np.float32
