"""Distributed training by algorithms that learn from their present policy alone.

Actors make a rollout, all of them are waited for, the learner learns from it, and again. The learner is in the process
of the command.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from typing import Any

from edge.errors import UserError
from tfqrl import agents
from tfqrl.actorq.collected import Collected
from tfqrl.actorq.messages import Push, assignments, is_finite
from tfqrl.actorq.options import Distribution
from tfqrl.actorq.outcome import Spent, Summary, Training
from tfqrl.actorq.processes import START_S, TRIES, RolloutProcess, kill, remote_actor
from tfqrl.actorq.publisher import Publisher
from tfqrl.actorq.rollouts import Part
from tfqrl.actorq.stopwatch import Stopwatch, Usage
from tfqrl.envs import spec_of
from tfqrl.ray_engine import ray_engine
from tfqrl.runs import Run
from tfqrl.training import on_policy
from tfqrl.training.on_policy import Rollout
from tfqrl.training.session import Session

SPANS = ("update", "quantise", "push", "wait")
POLL_S = 0.5


def train(run: Run, distribution: Distribution, address: str | None) -> Training:
    """Train `run` to its configured steps, from its checkpoint if it has one.

    Args:
      run: of an algorithm with rollouts.
      distribution: how they are distributed.
      address: of a Ray cluster; None for this machine alone.

    Raises:
      UserError: the training has diverged, the environment fails, or there is no such cluster.
      Interrupted: a signal asked to stop; there is a checkpoint.
    """
    config, agent_type = agents.config_of(run), agents.get(run.algorithm).agent
    collected = Collected(spec_of(config.env, config.env_module), distribution.actors)
    # Actors count in files there.
    folder = tempfile.TemporaryDirectory(prefix="tfqrl-actorq-")
    with folder as counters, ray_engine(distribution.actors, address, "actorq") as ray:
        crew = Crew(ray, config, distribution, counters)
        on_policy.train(run, config, agent_type, collect=crew, env=collected)
        return crew.result(collected)


class Crew:
    """Actors that fill a rollout together: each has some of the environments."""

    def __init__(self, ray: Any, config: Any, distribution: Distribution, counters: str) -> None:
        """Begin their processes, which count steps in the folder `counters`; `ray` is the connected module."""
        self._ray, self._distribution = ray, distribution
        n = distribution.actors
        self._envs = config.num_envs // n
        kind = remote_actor(RolloutProcess)
        self._actors = [kind.remote(each, self._envs) for each in assignments(config, n, counters)]
        self._publisher: Publisher | None = None
        self._watch = Stopwatch(*SPANS)
        self._began_s = time.monotonic()
        self._rollouts, self._steps = 0, 0
        # Where each runs: node and process; None if that is not known.
        self._where: list[tuple[str, int] | None] = [None] * n
        self._first = 0
        self._used: dict[tuple[int, int], Usage] = {}
        # How many were in the place of each before it.
        self._successor = [0] * n
        self._replaced: Counter[str] = Counter()
        self._fruitless = [0] * n

    def __call__(self, session: Session, rollout: Rollout) -> dict[str, float]:
        """See `on_policy.Collect`."""
        agent, config = session.agent, session.config
        steps, ledger = len(rollout.reward), session.env.ledger
        if self._publisher is None:
            self._publisher = Publisher(
                agent.policy,
                session.env.spec.observation,
                session.normalizer,
                self._distribution.actor_precision,
                acts=steps * self._envs,
                put=self._ray.put,
            )
            self._first = session.steps
        self._watch.lap("update")
        push = self._publisher.publish(
            agent.acting.weights,
            session.normalizer,
            updates=self._rollouts,
            explorer=agent.explorer(session.steps),
            watch=self._watch,
        )
        self._rollouts += 1
        for i, part in enumerate(self._parts(push, steps)):
            columns, n = slice(i * self._envs, (i + 1) * self._envs), steps * self._envs
            for name in ("observation", "action", "next_observation", "reward", "terminated", "done"):
                getattr(rollout, name)[:, columns] = getattr(part, name)
            session.env.episodes += part.episodes
            # What was stepped before this part and is in none is lost.
            ledger.joined(i, part.stepped - n, 0)
            ledger.delivered(i, n, part.stepped, finite=True)
            self._used[i, self._successor[i]] = part.usage
        session.steps += steps * config.num_envs
        self._steps += steps * config.num_envs
        self._watch.lap("wait")
        return self._spent().metrics()

    def result(self, collected: Collected) -> Training:
        """What it was, once the training has ended."""
        self._watch.lap("update")
        publisher = self._publisher
        summary = Summary(
            account=collected.ledger.account(),
            spent=self._spent(),
            updates=self._rollouts,
            push_bytes=0 if publisher is None else publisher.push_bytes,
            in_place=publisher is not None and publisher.in_place,
        )
        return Training(summary, time.monotonic() - self._began_s, self._steps, dict(self._replaced), 0)

    def _spent(self) -> Spent:
        pushes = 0 if self._publisher is None else self._publisher.pushes
        # What arrives was done by the present policy.
        return Spent(dict(self._used), self._watch.usage(), pushes, self._steps)

    def _parts(self, push: Push, steps: int) -> list[Part]:
        """What each actor made."""
        parts: dict[int, Part] = {}
        asked_s = dict.fromkeys(range(len(self._actors)), time.monotonic())
        waiting = {self._ask(i, push, steps): i for i in asked_s}
        silent: set[int] = set()
        while waiting:
            done, _ = self._ray.wait(list(waiting), timeout=POLL_S)
            for ref in done:
                i = waiting.pop(ref)
                try:
                    part = self._ray.get(ref)
                    if is_finite(part):
                        parts[i], self._fruitless[i] = part, 0
                        continue
                    reason, text = "failed", "sent NaN or infinity"
                    kill(self._actors[i], self._where[i])
                except self._ray.exceptions.RayActorError:
                    reason, text = ("silent", "was silent") if i in silent else ("died", "died")
                except self._ray.exceptions.RayTaskError as error:
                    reason, text = "failed", f"failed: {error.cause}"
                    kill(self._actors[i], self._where[i])
                self._replace(i, reason, text)
                silent.discard(i)
                asked_s[i] = time.monotonic()
                waiting[self._ask(i, push, steps)] = i
            for i in waiting.values():
                patience_s = self._distribution.patience_s + START_S * (self._rollouts == 1 or self._fruitless[i] > 0)
                if i not in silent and time.monotonic() > asked_s[i] + patience_s:
                    silent.add(i)
                    kill(self._actors[i], self._where[i])
        return [parts[i] for i in range(len(self._actors))]

    def _replace(self, i: int, reason: str, text: str) -> None:
        self._replaced[reason] += 1
        self._fruitless[i] += 1
        if self._fruitless[i] > TRIES:
            cure = " Give more --patience-s, or fewer --rollout-steps." * (reason == "silent")
            raise UserError(f"Actor {i} {text}. It was replaced {TRIES} times, and did nothing in between.{cure}")
        self._where[i] = None
        self._successor[i] += 1

    def _ask(self, i: int, push: Push, steps: int) -> Any:
        """Ask an actor for its part; a new one once its process answers."""
        if self._where[i] is None:
            self._where[i] = self._found(i)
        successor = self._first + sum(self._replaced.values())
        return self._actors[i].collect.remote(push, steps, successor)

    def _found(self, i: int) -> tuple[str, int]:
        until_s = time.monotonic() + START_S
        while True:
            try:
                where: tuple[str, int] = self._ray.get(self._actors[i].where.remote(), timeout=START_S)
                return where
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
                if time.monotonic() > until_s:
                    raise UserError(f"Actor {i} could not be started within {START_S:g} s.") from None
                time.sleep(POLL_S)
