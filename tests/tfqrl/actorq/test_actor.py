"""One actor, and a learner of a few lines."""

import functools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from converters.template import Template
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UserError
from edge.policy import Policy
from tfqrl.actorq.actor import Actor, LearnerLostError
from tfqrl.actorq.messages import Assignment, Experience, Hello, Order, Push
from tfqrl.exploration import AddedNoise
from tfqrl.networks import mlp

SPEC = PolicySpec(ObservationSpec((1,), (None,), (None,)), ActionSpec((1,), (None,), (None,)), None, None)


@functools.cache
def flatbuffer(seed: int) -> bytes:
    return bytes(Template(mlp(1, (8,), 1, activation="tanh", seed=seed), SPEC, "dynamic-int8").flatbuffer)


def push(seed: int, updates: int, std: float = 0.0) -> tuple[bytes, Push]:
    return flatbuffer(seed), Push(seed, SPEC, updates, AddedNoise(std), False)


class FakeLearner:
    """Answers at once: for so many messages with the policies of a list, one after the other; then it stops.

    Attributes:
      hellos, experiences: what it was told.
    """

    def __init__(self, messages: int, *pushes: tuple[bytes, Push], random: bool = False) -> None:
        self.messages, self.pushes, self.random = messages, list(pushes), random
        self.bytes = {push.flatbuffer: flatbuffer for flatbuffer, push in pushes}
        self.hellos: list[Hello] = []
        self.experiences: list[Experience] = []
        self.pulled: list[int] = []
        self.lost_at: set[int] = set()

    def join(self, hello: Hello) -> Order:
        self.hellos.append(hello)
        return Order(self.pushes[0][1], self.random, False)

    def send(self, experience: Experience) -> Any:
        self.experiences.append(experience)
        return len(self.experiences)

    def answer(self, sent: Any) -> Order:
        if sent in self.lost_at:
            raise LearnerLostError
        newest = self.pushes[min(sent, len(self.pushes) - 1)][1]
        return Order(newest, self.random, sent >= self.messages)

    def pull(self, push: Push) -> np.ndarray:
        self.pulled.append(push.updates)
        return np.frombuffer(self.bytes[push.flatbuffer], np.uint8)


def actor(
    path: Path, env: str = "toys/Match-v0", *, successor: int = 0, n_step: int = 1, push_every: int = 10, **changes: int
) -> Actor:
    numbers = {"actor": 0, "actors": 1} | changes
    assignment = Assignment(
        env=env, env_module="toy_envs", seed=0, clip_reward=False, counter=str(path / "counter"), **numbers
    )
    return Actor(assignment, successor=successor, gamma=0.9, n_step=n_step, push_every=push_every)


def test_what_it_does_is_what_the_policy_that_it_was_pushed_says(tmp_path: Path) -> None:
    first, second = push(1, 0), push(2, 5)
    learner = FakeLearner(4, first, second)
    farewell = actor(tmp_path).act(learner)
    assert [len(experience.transitions) for experience in learner.experiences] == [10] * 5
    # The answer to a message is heard when the next one is made: that is what is a message late.
    assert [experience.updates for experience in learner.experiences] == [0, 0, 5, 5, 5]
    assert learner.pulled == [0, 5]
    for experience in learner.experiences:
        policy = Policy(first[0] if experience.updates == 0 else second[0], SPEC)
        acted = [policy.act(observation) for observation in experience.transitions.observation]
        np.testing.assert_allclose(experience.transitions.action, np.clip(acted, -1, 1), atol=1e-6)
    assert (farewell.stepped, farewell.unfinished) == (50, 0)
    assert not (tmp_path / "counter").exists()
    assert sum(len(experience.episodes) for experience in learner.experiences) == 50


def test_time_is_accounted_for(tmp_path: Path) -> None:
    acting = actor(tmp_path)
    began_s = time.perf_counter()
    farewell = acting.act(FakeLearner(4, push(1, 0)))
    elapsed_s = time.perf_counter() - began_s
    assert 0.5 * elapsed_s < sum(farewell.usage.spans.values()) <= elapsed_s
    assert {name for name, span in farewell.usage.spans.items() if span > 0} >= {"environment", "inference", "load"}


def test_before_there_is_a_policy_that_is_better_it_acts_at_random(tmp_path: Path) -> None:
    learner = FakeLearner(20, push(1, 0), random=True)
    actor(tmp_path).act(learner)
    actions = np.concatenate([experience.transitions.action for experience in learner.experiences])
    assert -1.0 <= actions.min() < -0.8
    assert 0.8 < actions.max() <= 1.0


def test_actors_explore_differently_and_see_different_episodes(tmp_path: Path) -> None:
    seen = []
    for i in range(2):
        learner = FakeLearner(3, push(1, 0, std=0.5))
        actor(tmp_path, actor=i, actors=2).act(learner)
        seen.append(learner.experiences[0].transitions)
    assert not np.array_equal(seen[0].observation, seen[1].observation)
    quiet = FakeLearner(3, push(1, 0))
    actor(tmp_path, actors=2).act(quiet)
    # The first of several does not explore at all.
    np.testing.assert_array_equal(quiet.experiences[0].transitions.action, seen[0].action)


def test_who_takes_the_place_of_another_counts_on_and_sees_other_episodes(tmp_path: Path) -> None:
    dead = actor(tmp_path)
    learner = FakeLearner(1, push(1, 0))
    dead._counter.add(7)
    actor(tmp_path, successor=1).act(learner)
    assert [(hello.stepped, hello.unfinished) for hello in learner.hellos] == [(7, 0)]
    assert learner.experiences[0].stepped == 17
    fresh = FakeLearner(1, push(1, 0))
    actor(tmp_path / "other").act(fresh)
    observations = [each.experiences[0].transitions.observation for each in (learner, fresh)]
    assert not np.array_equal(*observations)


def test_transitions_of_n_steps_are_made_here(tmp_path: Path) -> None:
    spec = PolicySpec(ObservationSpec((2,), (None,) * 2, (None,) * 2), SPEC.action, None, None)
    template = Template(mlp(2, (8,), 1, activation="tanh", seed=1), spec, "float32")
    learner = FakeLearner(3, (bytes(template.flatbuffer), Push(1, spec, 0, AddedNoise(0.0), False)))
    farewell = actor(tmp_path, "toys/CutOff-v0", n_step=3, push_every=4).act(learner)
    transitions = [experience.transitions for experience in learner.experiences]
    assert farewell.stepped == 16
    assert sum(map(len, transitions)) + farewell.unfinished == 16
    assert max(float(each.discount.max()) for each in transitions) == pytest.approx(0.9)
    assert min(float(each.discount[each.discount > 0].min()) for each in transitions) == pytest.approx(0.9**3)


def test_a_lost_learner_is_looked_for_and_what_it_had_not_answered_is_not_sent_again(tmp_path: Path) -> None:
    learner = FakeLearner(5, push(1, 0), push(2, 3))
    learner.lost_at = {2}
    actor(tmp_path).act(learner)
    # Messages 2 and 3 were made when it was lost: 20 steps, of which it hears.
    assert [(hello.stepped, hello.unfinished) for hello in learner.hellos] == [(0, 0), (30, 0)]
    assert {experience.life for experience in learner.experiences} == {hello.life for hello in learner.hellos}
    assert len({hello.life for hello in learner.hellos}) == 2
    assert [experience.stepped for experience in learner.experiences] == [10, 20, 40, 50, 60, 70]


def test_an_environment_that_fails_ends_it(tmp_path: Path) -> None:
    learner = FakeLearner(5, push(1, 0))
    with pytest.raises(UserError, match="toys/"):
        actor(tmp_path, "toys/FailingStep-v0").act(learner)


def test_an_actors_process_needs_no_tensorflow() -> None:
    program = """
import sys
import time
import tfqrl.actorq.processes
assert "tensorflow" not in sys.modules and "ray" not in sys.modules, sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
