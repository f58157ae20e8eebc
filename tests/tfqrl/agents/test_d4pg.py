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
    fields,
    shake,
    values,
)

from edge.errors import UsageError
from tfqrl import envs
from tfqrl.agents.d4pg import D4PG, D4PGConfig

SPEC = envs.spec_of("toys/Count-v0")
CONFIG = D4PGConfig(env="", hidden=(6, 5), tau=0.1, atoms=5, v_min=-1.0, v_max=3.0, seed=1)
SUPPORT = [-1.0, 0.0, 1.0, 2.0, 3.0]


def in_training() -> D4PG:
    """One whose targets lag behind, and whose optimisers have made no step."""
    agent = D4PG(CONFIG, SPEC)
    shake(agent.critic.variables, 1)
    shake(agent.policy.variables, 2)
    shake(agent.target_critic.variables, 3)
    return agent


def test_targets_begin_as_their_sources() -> None:
    agent = D4PG(CONFIG, SPEC)
    assert_all_equal(values(agent.target_policy.variables), values(agent.policy.variables))
    assert_all_equal(values(agent.target_critic.variables), values(agent.critic.variables))


def test_the_atoms_span_the_configured_returns() -> None:
    agent = D4PG(CONFIG, SPEC)
    assert agent.support.numpy().tolist() == SUPPORT
    assert agent.critic.output_shape == (None, 5)


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, -2.0)])
def test_bounds_that_are_not_in_order_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="--v-min must be below --v-max; they were given"):
        D4PGConfig(env="", v_min=bounds[0], v_max=bounds[1])


def projected(reward: float, discount: float, probabilities: np.ndarray) -> np.ndarray:
    """Algorithm 1 of Bellemare et al. 2017, atom by atom."""
    target = np.zeros(5)
    for z, p in zip(SUPPORT, probabilities):
        b = min(max(reward + discount * z, -1.0), 3.0) + 1.0
        low, high = int(np.floor(b)), int(np.ceil(b))
        if low == high:
            target[low] += p
        else:
            target[low] += p * (high - b)
            target[high] += p * (b - low)
    return target


def test_an_update_by_hand() -> None:
    agent, batch = in_training(), batches(SPEC)
    observation, action, next_observation = batch.observation[0], batch.action[0], batch.next_observation[0]
    policy, critic = agent.policy.variables, agent.critic.variables
    targets = values(agent.target_policy.variables), values(agent.target_critic.variables)
    before = values(policy), values(critic)

    pairs = np.hstack([next_observation, agent.target_policy(next_observation).numpy()])
    probabilities = tf.nn.softmax(agent.target_critic(pairs)).numpy()
    discount = [0.9] * (BATCH - 2) + [0.0] * 2
    target = np.float32([projected(*x) for x in zip(batch.reward[0], discount, probabilities)])
    np.testing.assert_allclose(target.sum(axis=1), 1.0, atol=1e-6)
    with tf.GradientTape() as tape:
        logits = agent.critic(np.hstack([observation, action]))
        log_p = tf.nn.log_softmax(logits)
        expected_loss = -tf.reduce_mean(tf.reduce_sum(target * log_p, axis=1))
    expected_q = float(tf.reduce_mean(tf.linalg.matvec(tf.nn.softmax(logits), SUPPORT)))
    critic_gradients = values(tape.gradient(expected_loss, critic))

    critic_loss, policy_loss, q = agent._update(*fields(batch))
    assert float(critic_loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert_first_step_of_adam(
        agent.critic_optimizer, CONFIG.critic_learning_rate, before[1], values(critic), critic_gradients
    )

    # The policy climbs the mean of the critic's distribution, as it is by then.
    after = values(policy)
    for variable, value in zip(policy, before[0]):
        variable.assign(value)
    with tf.GradientTape() as tape:
        logits = agent.critic(tf.concat([observation, agent.policy(observation)], 1))
        value = tf.reduce_mean(tf.linalg.matvec(tf.nn.softmax(logits), SUPPORT))
    ascent = tape.gradient(value, policy)
    assert float(q) == pytest.approx(expected_q, rel=1e-5)
    assert float(policy_loss) == pytest.approx(-float(value), rel=1e-5)
    assert_first_step_of_adam(
        agent.policy_optimizer, CONFIG.policy_learning_rate, before[0], after, [-g.numpy() for g in ascent]
    )
    assert_moved_by(0.1, after, targets[0], values(agent.target_policy.variables))
    assert_moved_by(0.1, values(critic), targets[1], values(agent.target_critic.variables))


def test_exploration_adds_noise_within_the_bounds_to_what_is_deployed() -> None:
    assert_explores_around_what_is_deployed(D4PG, CONFIG, SPEC)
