import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from updates import (
    assert_all_equal,
    assert_explores_around_what_is_deployed,
    assert_first_step_of_adam,
    assert_moved_by,
    batches,
    fields,
    shake,
    values,
)

from tfqrl import envs
from tfqrl.agents.ddpg import DDPG, DDPGConfig

SPEC = envs.spec_of("toys/Count-v0")
CONFIG = DDPGConfig(env="", hidden=(6, 5), tau=0.1, seed=1)


def in_training() -> DDPG:
    """One whose targets lag behind, and whose optimisers have made no step."""
    agent = DDPG(CONFIG, SPEC)
    shake(agent.critic.variables, 1)
    shake(agent.policy.variables, 2)
    return agent


def test_targets_begin_as_their_sources() -> None:
    agent = DDPG(CONFIG, SPEC)
    assert_all_equal(values(agent.target_policy.variables), values(agent.policy.variables))
    assert_all_equal(values(agent.target_critic.variables), values(agent.critic.variables))


def test_an_update_by_hand() -> None:
    agent, batch = in_training(), batches(SPEC)
    observation, action, next_observation = batch.observation[0], batch.action[0], batch.next_observation[0]
    policy, critic = agent.policy.variables, agent.critic.variables
    targets = values(agent.target_policy.variables), values(agent.target_critic.variables)
    before = values(policy), values(critic)

    q_t = agent.target_critic(np.hstack([next_observation, agent.target_policy(next_observation).numpy()])).numpy()
    target = batch.reward[0] + 0.9 * q_t[:, 0]
    target[-2:] = batch.reward[0, -2:]
    with tf.GradientTape() as tape:
        q_tm1 = agent.critic(np.hstack([observation, action]))[:, 0]
        expected_loss = tf.reduce_mean((q_tm1 - target) ** 2)
    critic_gradients = values(tape.gradient(expected_loss, critic))

    critic_loss, policy_loss, q = agent._update(*fields(batch))
    assert float(critic_loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert float(q) == pytest.approx(float(tf.reduce_mean(q_tm1)), rel=1e-5)
    assert_first_step_of_adam(
        agent.critic_optimizer, CONFIG.critic_learning_rate, before[1], values(critic), critic_gradients
    )

    # The policy climbs the critic as it is by then.
    after = values(policy)
    for variable, value in zip(policy, before[0]):
        variable.assign(value)
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(agent.critic(tf.concat([observation, agent.policy(observation)], 1)))
    ascent = tape.gradient(value, policy)
    assert float(policy_loss) == pytest.approx(-float(value), rel=1e-5)
    assert_first_step_of_adam(
        agent.policy_optimizer, CONFIG.policy_learning_rate, before[0], after, [-g.numpy() for g in ascent]
    )
    assert_moved_by(0.1, after, targets[0], values(agent.target_policy.variables))
    assert_moved_by(0.1, values(critic), targets[1], values(agent.target_critic.variables))


def test_what_follows_a_state_without_a_future_does_not_count() -> None:
    batch, other = batches(SPEC), batches(SPEC)
    other.next_observation[0, -2:] += 7.0
    first, second = (in_training()._update(*fields(b))[0] for b in (batch, other))
    assert float(first) == float(second)
    other.next_observation[0, 0] += 7.0
    assert float(in_training()._update(*fields(other))[0]) != float(first)


def test_exploration_adds_noise_within_the_bounds_to_what_is_deployed() -> None:
    assert_explores_around_what_is_deployed(DDPG, CONFIG, SPEC)
