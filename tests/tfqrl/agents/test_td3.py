import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from updates import (
    BATCH,
    assert_all_equal,
    assert_explores_around_what_is_deployed,
    assert_first_step_of_adam,
    assert_moved_by,
    batches,
    everything,
    fields,
    put_back,
    shake,
    values,
)

from tfqrl import envs
from tfqrl.agents.td3 import TD3, TD3Config

SPEC = envs.spec_of("toys/Count-v0")
CONFIG = TD3Config(env="", hidden=(6, 5), tau=0.1, policy_delay=3, target_noise=0.4, target_noise_clip=0.3, seed=1)


def in_training(config: TD3Config = CONFIG) -> TD3:
    """One whose targets lag behind, and whose optimisers have made no step."""
    agent = TD3(config, SPEC)
    shake(agent.critic_variables, 1)
    shake(agent.policy.variables, 2)
    shake(agent.target_policy.variables, 3)
    return agent


def test_targets_begin_as_their_sources_and_the_two_critics_as_different_ones() -> None:
    agent = TD3(CONFIG, SPEC)
    assert_all_equal(values(agent.target_policy.variables), values(agent.policy.variables))
    assert_all_equal(values(agent.target_critic_variables), values(agent.critic_variables))
    first, second = (values(critic.variables) for critic in agent.critics)
    assert not np.array_equal(first[0], second[0])


def test_the_critics_update_by_hand() -> None:
    agent, batch = in_training(), batches(SPEC)
    # The second target's policy output is near its bound, which the noise must not leave.
    agent.target_policy.variables[-1].assign([0.0, 1.5])
    observation, action, next_observation = batch.observation[0], batch.action[0], batch.next_observation[0]
    before = values(agent.critic_variables)

    noise = 0.4 * tf.random.stateless_normal((BATCH, 2), (CONFIG.seed, 1), alg="philox").numpy()
    assert np.abs(noise).max() > 0.3, "or its clipping would not be tested"
    a_t = agent.target_policy(next_observation).numpy() + np.clip(noise, -0.3, 0.3)
    assert np.abs(a_t).max() > 1.0, "or its clipping would not be tested"
    pairs = np.hstack([next_observation, np.clip(a_t, -1, 1)])
    q_t = np.minimum(*(target(pairs).numpy()[:, 0] for target in agent.target_critics))
    target = batch.reward[0] + 0.9 * q_t
    target[-2:] = batch.reward[0, -2:]
    with tf.GradientTape() as tape:
        q_tm1 = [critic(np.hstack([observation, action]))[:, 0] for critic in agent.critics]
        expected_loss = tf.add_n([tf.reduce_mean((q - target) ** 2) for q in q_tm1])
    gradients = values(tape.gradient(expected_loss, agent.critic_variables))

    critic_loss, _, q = agent._update(*fields(batch))
    assert float(critic_loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert float(q) == pytest.approx(float(tf.reduce_mean(q_tm1[0])), rel=1e-5)
    assert_first_step_of_adam(
        agent.critic_optimizer, CONFIG.critic_learning_rate, before, values(agent.critic_variables), gradients
    )


def test_the_policy_and_the_targets_change_at_every_policy_delay_th_update_alone() -> None:
    agent = in_training()
    delayed = ("policy", "target_policy", "target_critics", "policy_optimizer")
    for update in range(1, 7):
        before = everything(agent)
        _, policy_loss, _ = agent._update(*fields(batches(SPEC, seed=update)))
        after = everything(agent)
        assert not np.array_equal(after["critics"][0], before["critics"][0])
        if update % 3:
            assert float(policy_loss) == 0.0
            for name in delayed:
                assert_all_equal(after[name], before[name])
        else:
            assert not np.array_equal(after["policy"][0], before["policy"][0])
            assert_moved_by(0.1, after["policy"], before["target_policy"], after["target_policy"])
            assert_moved_by(0.1, after["critics"], before["target_critics"], after["target_critics"])


def test_the_policy_climbs_the_first_critic() -> None:
    agent, batch = in_training(dataclasses.replace(CONFIG, policy_delay=1)), batches(SPEC)
    before = values(agent.policy.variables)
    _, policy_loss, _ = agent._update(*fields(batch))
    after = values(agent.policy.variables)
    for variable, value in zip(agent.policy.variables, before):
        variable.assign(value)
    with tf.GradientTape() as tape:
        # The critic as it was when the policy took its step: after its own.
        pairs = tf.concat([batch.observation[0], agent.policy(batch.observation[0])], 1)
        loss = -tf.reduce_mean(agent.critics[0](pairs))
    gradients = values(tape.gradient(loss, agent.policy.variables))
    assert float(policy_loss) == pytest.approx(float(loss), rel=1e-5)
    assert_first_step_of_adam(agent.policy_optimizer, CONFIG.policy_learning_rate, before, after, gradients)


def test_the_mean_policy_loss_of_a_call_is_that_of_the_updates_that_had_one() -> None:
    agent, batch = in_training(), batches(SPEC, 3)
    found = [float(agent._update(*fields(batch, i))[1]) for i in range(3)]
    assert found[:2] == [0.0, 0.0]
    # Three times the loss of the third, whose mean over the three is that loss.
    pairs = np.hstack([batch.observation[2], agent.policy(batch.observation[2])])
    assert found[2] / 3 == pytest.approx(-float(tf.reduce_mean(agent.critics[0](pairs))), abs=0.02)
    assert abs(found[2] / 3) > 0.05


def test_target_noise_differs_from_update_to_update_and_from_seed_to_seed() -> None:
    batch, agent = batches(SPEC), in_training()
    state, losses = everything(agent), []
    other = TD3(dataclasses.replace(CONFIG, seed=2), SPEC)
    for trained, updates in ((agent, 0), (agent, 1), (other, 0), (agent, 0)):
        put_back(trained, {**state, "updates": [np.array(updates)]})
        losses.append(float(trained._update(*fields(batch))[0]))
    assert len(set(losses)) == 3
    assert losses[3] == losses[0]


def test_what_follows_a_state_without_a_future_does_not_count() -> None:
    batch, other = batches(SPEC), batches(SPEC)
    other.next_observation[0, -2:] += 7.0
    first, second = (in_training()._update(*fields(b))[0] for b in (batch, other))
    assert float(first) == float(second)
    other.next_observation[0, 0] += 7.0
    assert float(in_training()._update(*fields(other))[0]) != float(first)


def test_exploration_adds_noise_within_the_bounds_to_what_is_deployed() -> None:
    assert_explores_around_what_is_deployed(TD3, CONFIG, SPEC)
