"""An actor: steps an environment with a quantised policy, and sends what it sees to the learner.

What it imports is the edge runtime, the environments and numpy; no TensorFlow, and no Ray either.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tfqrl.actorq.acting import PushedPolicy
from tfqrl.actorq.counter import Counter
from tfqrl.actorq.messages import Assignment, Experience, Farewell, Hello, Order, Push
from tfqrl.actorq.stopwatch import Stopwatch
from tfqrl.envs import VectorEnv
from tfqrl.exploration import random_actions
from tfqrl.replay import NStep, Transitions

Array = npt.NDArray[Any]

SPANS = ("environment", "inference", "assembly", "insert", "wait", "pull", "load")


class LearnerLostError(Exception):
    """The learner has died; it may be back soon."""


class Link(Protocol):
    """An actor's way to the learner. Each of them raises LearnerLostError if that is not there."""

    def join(self, hello: Hello) -> Order:
        """Say hello, again and again until the learner is there."""
        ...

    def send(self, experience: Experience) -> Any:
        """Send without waiting; returns what `answer` wants to know."""
        ...

    def answer(self, sent: Any) -> Order:
        """Wait for the answer to what was sent, which comes when the learner wants more."""
        ...

    def pull(self, push: Push) -> npt.NDArray[np.uint8]:
        """The policy's flatbuffer; it need not be a copy."""
        ...


class Actor:
    """One actor, from its beginning to the learner's word that it is enough.

    While one message is under way, the steps of the next one are made: the learner is waited for only where it holds
    an answer back, because it has had enough for a while.
    """

    def __init__(self, assignment: Assignment, *, successor: int, gamma: float, n_step: int, push_every: int) -> None:
        """Make its environment.

        Args:
          assignment: what it is to do.
          successor: a number that no one in its place had before it: who takes a place plays other episodes.
          gamma: discount.
          n_step: rewards that are summed in a transition.
          push_every: steps between two messages.

        Raises:
          UserError: the environment cannot be made.
        """
        self._assignment, self._successor = assignment, successor
        self._counter = Counter(assignment.counter)
        seeds = np.random.SeedSequence((assignment.seed, assignment.actor, successor)).generate_state(2)
        self._env = VectorEnv(assignment.env, 1, seed=int(seeds[0]), threads=1, module=assignment.env_module)
        self._rng = np.random.default_rng(seeds[1])
        self._windows, self._push_every = NStep(1, n_step, gamma), push_every
        self._policy = PushedPolicy(assignment.actor, assignment.actors)

    def act(self, link: Link) -> Farewell:
        """Step until the learner says to stop.

        Raises:
          UserError: the environment failed, or gave NaN or infinity.
        """
        with closing(self._env):
            self._observation = self._env.reset().copy()
            self._watch = Stopwatch(*SPANS)
            order = self._join(link)
            sent = None
            while True:
                experience = self._collect(order.random)
                try:
                    if sent is not None:
                        order = link.answer(sent)
                        self._watch.lap("wait")
                    sent = link.send(experience)
                    self._watch.lap("insert")
                    if order.stop:
                        link.answer(sent)
                        break
                    # The answer to a message may name what the one before it has brought already.
                    if order.push is not None and order.push.updates != self._policy.updates:
                        self._take(link, order.push)
                except LearnerLostError:
                    # What it had not answered is lost; it counts that, from what it hears of steps.
                    order, sent = self._join(link), None
        stepped = self._counter.value
        self._counter.remove()
        return Farewell(self._assignment.actor, self._successor, stepped, self._windows.unfinished, self._watch.usage())

    def _join(self, link: Link) -> Order:
        while True:
            self._life = time.time_ns()
            hello = Hello(
                self._assignment.actor, self._successor, self._life, self._counter.value, self._windows.unfinished
            )
            order = link.join(hello)
            self._watch.lap("wait")
            assert order.push is not None
            try:
                self._take(link, order.push)
            except LearnerLostError:
                continue
            return order

    def _take(self, link: Link, push: Push) -> None:
        flatbuffer = link.pull(push)
        self._watch.lap("pull")
        self._policy.take(push, flatbuffer)
        self._watch.lap("load")

    def _collect(self, random: bool) -> Experience:
        """The next `push_every` steps."""
        assignment, env, watch = self._assignment, self._env, self._watch
        updates, parts = self._policy.updates, []
        for _ in range(self._push_every):
            if random:
                action = random_actions(env.spec, 1, self._rng)
            else:
                action = self._policy.explorer(self._policy, self._observation, self._rng)
            watch.lap("inference")
            step = env.step(action)
            self._counter.add()
            watch.lap("environment")
            if assignment.clip_reward:
                np.sign(step.reward, out=step.reward)
            parts.append(_copied(self._windows.add(self._observation, action, step)))
            self._observation = step.observation.copy()
            watch.lap("assembly")
        transitions = _joined(parts)
        episodes, env.episodes[:] = list(env.episodes), []
        watch.lap("assembly")
        return Experience(
            actor=assignment.actor,
            life=self._life,
            transitions=transitions,
            stepped=self._counter.value,
            episodes=episodes,
            updates=updates,
            usage=watch.usage(),
        )


def _copied(finished: Transitions) -> tuple[Array, ...]:
    fields = finished.observation, finished.action, finished.reward, finished.next_observation, finished.discount
    return tuple(field.copy() for field in fields)


def _joined(parts: list[tuple[Array, ...]]) -> Transitions:
    return Transitions(*(np.concatenate(field) for field in zip(*parts)))
