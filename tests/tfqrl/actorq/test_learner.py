"""The learner, fed by hand and by actors that are threads of this process."""

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from edge.policy import Policy
from tfqrl import agents
from tfqrl.actorq.actor import Actor, LearnerLostError
from tfqrl.actorq.learner import Learner, NotFiniteError
from tfqrl.actorq.messages import Assignment, Experience, Farewell, Hello, Order, Push
from tfqrl.actorq.options import Distribution
from tfqrl.actorq.stopwatch import Usage
from tfqrl.agents.d4pg import D4PGConfig
from tfqrl.agents.ddpg import DDPGConfig
from tfqrl.agents.dqn import DQNConfig
from tfqrl.agents.sac import SACConfig
from tfqrl.agents.td3 import TD3Config
from tfqrl.replay import Transitions
from tfqrl.runs import Run

SMALL: dict[str, Any] = {"hidden": (16,), "learning_starts": 20, "batch_size": 8, "steps": 200}
CONFIGS = {
    "ddpg": DDPGConfig(env="toys/Match-v0", **SMALL),
    "td3": TD3Config(env="toys/Match-v0", normalize_observation=True, **SMALL),
    "d4pg": D4PGConfig(env="toys/CutOff-v0", **SMALL),
    "sac": SACConfig(env="toys/Match-v0", **SMALL),
    "dqn": DQNConfig(env="toys/Choose-v0", dueling=True, prioritized=True, update_every=1, **SMALL),
}


class Direct:
    """A link to a learner in the same process."""

    def __init__(self, learner: Learner) -> None:
        self.join, self.send, self._learner = learner.join, lambda experience: experience, learner

    def answer(self, sent: Experience) -> Order:
        return self._learner.insert(sent)

    def pull(self, push: Push) -> np.ndarray:
        return push.flatbuffer


def learner_of(path: Path, algorithm: str, **changes: Any) -> Learner:
    config = dataclasses.replace(CONFIGS[algorithm], **changes)
    if not (path / "config.json").exists():
        Run.create(path, algorithm, config)
    return Learner(path, Distribution(actors=2, push_every=10), lambda array: array.copy())


def actors(learner: Learner, path: Path) -> list[Actor]:
    config = learner._config
    return [
        Actor(
            Assignment(i, 2, config.env, "toy_envs", 0, False, str(path / f"counter{i}")),
            successor=0,
            gamma=config.gamma,
            n_step=config.n_step,
            push_every=10,
        )
        for i in range(2)
    ]


def trained(learner: Learner, path: Path) -> None:
    """Train to the end, with two actors in threads."""
    farewells: list[Any] = []

    def act(actor: Actor) -> None:
        farewells.append(actor.act(Direct(learner)))

    threads = [threading.Thread(target=act, args=(each,)) for each in actors(learner, path)]
    for thread in threads:
        thread.start()
    learner.learn()
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive()
    for farewell in farewells:
        learner.leave(farewell)


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_each_algorithm_learns_from_what_actors_send(algorithm: str, tmp_path: Path) -> None:
    learner = learner_of(tmp_path / "run", algorithm)
    before = [variable.numpy() for variable in learner._session.agent.policy.variables]
    trained(learner, tmp_path)
    after = [variable.numpy() for variable in learner._session.agent.policy.variables]
    assert not any(np.array_equal(*pair) for pair in zip(before, after))
    summary, config = learner.summary(), CONFIGS[algorithm]
    assert summary.account.balanced
    assert summary.account.inserted >= 200
    # One update for each transition after the first 20, give or take two calls and what is under way.
    per_call = Distribution(actors=2, push_every=10).updates_per_call(config)
    assert abs(summary.updates - (summary.account.inserted - 20)) <= 2 * per_call + 60
    assert summary.spent.pushes > 1
    # It is a run like any other.
    network, spec = agents.load_policy(Run.open(tmp_path / "run"))
    assert network(np.zeros((1, *spec.observation.shape), np.float32)).shape[0] == 1
    metrics = Run.open(tmp_path / "run").metrics()[-1]
    assert metrics["steps"] >= 200
    assert 0 < metrics["actors/environment"] < 1
    assert 0 < metrics["learner/update"] < 1
    assert 0 <= metrics["staleness"] <= summary.spent.stalest


@pytest.mark.parametrize("algorithm", CONFIGS)
def test_actors_get_what_the_agent_itself_would_act_by(algorithm: str, tmp_path: Path) -> None:
    learner = learner_of(tmp_path / "run", algorithm)
    agent, spec = learner._session.agent, learner._collected.spec
    for variable in agent.policy.variables:
        variable.assign_add(0.1 * np.random.default_rng(0).standard_normal(variable.shape).astype(np.float32))
    learner._session.observed(np.random.default_rng(0).normal(1, 2, (100, *spec.observation.shape)))
    agent.refresh()
    learner._updates += 1
    learner._publish()
    order = learner.join(Hello(0, 0, 7, 0, 0))
    assert order.push is not None
    policy = Policy(bytes(order.push.flatbuffer), order.push.spec)
    observations = np.random.default_rng(1).normal(1, 2, (50, *spec.observation.shape)).astype(np.float32)
    outputs = np.stack([policy.act(observation) for observation in observations])
    expected = agent.acting(learner._session.normalize(observations))
    np.testing.assert_allclose(outputs, expected, atol=0.02 * np.abs(expected).max())
    assert order.push.explorer == agent.explorer(0)


def test_an_actor_that_has_the_newest_policy_gets_none(tmp_path: Path) -> None:
    learner = learner_of(tmp_path / "run", "td3")
    assert learner.join(Hello(0, 0, 7, 0, 0)).push is not None
    observation = np.zeros((5, 1), np.float32)
    seen = Transitions(observation, observation, observation[:, 0], observation, observation[:, 0])
    assert learner.insert(Experience(0, 7, seen, 5, [], 0, Usage())).push is None
    assert learner.insert(Experience(0, 7, seen, 10, [], 3, Usage())).push is not None


def test_what_was_on_its_way_when_its_actor_died_counts_once(tmp_path: Path) -> None:
    learner = learner_of(tmp_path / "run", "td3")
    observation = np.zeros((5, 1), np.float32)
    seen = Transitions(observation, observation, observation[:, 0], observation, observation[:, 0])
    learner.join(Hello(0, 0, 7, 0, 0))
    learner.insert(Experience(0, 7, seen, 5, [], 0, Usage()))
    learner.join(Hello(0, 1, 8, 12, 0))
    assert learner.insert(Experience(0, 7, seen, 10, [], 0, Usage())).stop
    learner.insert(Experience(0, 8, seen, 17, [], 0, Usage()))
    learner.leave(Farewell(0, 1, 17, 0, Usage()))
    account = learner.summary().account
    assert (account.stepped, account.inserted, account.lost) == (17, 10, 7)
    assert account.balanced
    assert learner.status().remembered == 10


def test_a_learner_that_was_restarted_asks_actors_to_join_it(tmp_path: Path) -> None:
    learner = learner_of(tmp_path / "run", "td3")
    observation = np.zeros((5, 1), np.float32)
    seen = Transitions(observation, observation, observation[:, 0], observation, observation[:, 0])
    with pytest.raises(LearnerLostError):
        learner.insert(Experience(0, 7, seen, 35, [], 0, Usage()))
    assert learner.status().silent_s[1] is None
    assert learner.summary().account.inserted == 0


def test_who_left_a_learner_that_died_afterwards_is_known_to_the_next(tmp_path: Path) -> None:
    learner = learner_of(tmp_path / "run", "td3")
    # 35 steps: 2 were not finished, and what else was not in the checkpoint is lost.
    learner.leave(Farewell(0, 3, 35, 2, Usage({"wait": 1.0}, 2.0)))
    summary = learner.summary()
    assert (summary.account.stepped, summary.account.lost, summary.account.unfinished) == (35, 33, 2)
    assert summary.account.balanced
    assert summary.spent.actors == {(0, 3): Usage({"wait": 1.0}, 2.0)}


def test_nan_is_counted_and_refused(tmp_path: Path) -> None:
    learner = learner_of(tmp_path / "run", "td3")
    learner.join(Hello(1, 0, 7, 0, 0))
    observation = np.full((5, 1), np.nan, np.float32)
    seen = Transitions(observation, observation, observation[:, 0], observation, observation[:, 0])
    with pytest.raises(NotFiniteError, match="Actor 1 sent NaN or infinity in 5 transitions"):
        learner.insert(Experience(1, 7, seen, 5, [], 0, Usage()))
    summary = learner.summary()
    assert (summary.account.inserted, summary.account.refused) == (0, 5)
    assert learner.status().remembered == 0


@pytest.mark.parametrize("save_replay", [False, True])
def test_a_learner_that_is_restarted_goes_on_from_its_checkpoint(save_replay: bool, tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = learner_of(path, "td3", save_replay=save_replay)
    trained(first, tmp_path)
    Run.open(path).reconfigured(dataclasses.replace(first._config, steps=300))
    second = learner_of(path, "td3")
    status = second.status()
    assert status.steps == pytest.approx(200, abs=80)
    assert status.remembered == (status.steps if save_replay else 0)
    assert second.summary().updates == first.summary().updates
    for old, new in zip(first._session.agent.policy.variables, second._session.agent.policy.variables):
        np.testing.assert_array_equal(old, new)
    trained(second, tmp_path)
    account = second.summary().account
    assert account.balanced
    assert account.inserted >= 300
