"""The learner: an agent's own update, fed by actors, and its policy on the way back to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import UserError
from tfqrl import agents
from tfqrl.actorq.actor import LearnerLostError
from tfqrl.actorq.collected import Collected
from tfqrl.actorq.limited_replay import LimitedReplay
from tfqrl.actorq.messages import Experience, Farewell, Hello, Order, is_finite
from tfqrl.actorq.options import Distribution
from tfqrl.actorq.outcome import Spent, Summary
from tfqrl.actorq.publisher import Publisher
from tfqrl.actorq.stopwatch import Stopwatch, Usage
from tfqrl.envs import spec_of
from tfqrl.runs import Run, State, nested, prefixed
from tfqrl.signals import StopFlag
from tfqrl.training.off_policy import learn
from tfqrl.training.session import Session

Array = npt.NDArray[Any]

SPANS = ("wait", "sample", "update", "report", "quantise", "push")

# Who waits looks this often whether it is to stop.
POLL_S = 0.5


class NotFiniteError(UserError):
    """An actor sent NaN or infinity."""


@dataclass(frozen=True)
class Status:
    """How a training is going.

    Attributes:
      steps: transitions inserted.
      remembered: transitions in the replay.
      episode_return: mean of the last episodes; None before the first has ended.
      inserted: the same, by actor.
      silent_s: by actor, seconds since it was heard of; None before it has joined.
      spent: what it has taken.
    """

    steps: int
    remembered: int
    episode_return: float | None
    inserted: tuple[int, ...]
    silent_s: tuple[float | None, ...]
    spent: Spent


class Learner:
    """One run's learner.

    `learn` takes a thread to itself; all else may be called by as many as there are actors.
    """

    def __init__(
        self, path: Path, distribution: Distribution, put: Callable[[Array], Any], before: Spent | None = None
    ) -> None:
        """Take up the run in `path`.

        Args:
          path: a run's folder.
          distribution: how it is distributed.
          put: puts a policy's bytes where actors can pull them from; returns what those need to know for that.
          before: what the training had taken when the learner before this one died; None if there was none.

        Raises:
          UserError: what making the agent or reading the checkpoint raises.
        """
        run = Run.open(path)
        self._config = config = agents.config_of(run)
        self._stop, self._lock = StopFlag(), threading.Lock()
        spec = spec_of(config.env, config.env_module)
        self._collected = Collected(spec, distribution.actors)
        agent_type = agents.get(run.algorithm).agent
        assert agent_type is not None
        self._session = Session(run, config, agent_type, env=self._collected, stop=self._stop)
        self._updates_per_call = distribution.updates_per_call(config)
        replay = config.make_replay(spec)
        if config.save_replay and self._session.saved:
            replay.restore(nested(self._session.saved, "replay"))
            for name in [name for name in self._session.saved if name.startswith("replay/")]:
                del self._session.saved[name]
        self._replay = LimitedReplay(
            replay,
            samples_per_insert=distribution.ratio(config),
            samples_per_call=self._updates_per_call * config.batch_size,
            learning_starts=config.learning_starts,
        )
        self._publisher = Publisher(
            self._session.agent.policy,
            spec.observation,
            self._session.normalizer,
            distribution.actor_precision,
            acts=distribution.push_every,
            put=put,
        )
        self._updates = int(self._session.saved.get("actorq/updates", 0))
        self._watch = Stopwatch(*SPANS)
        self._before, self._arrived, self._stale, self._stalest = before or Spent(), 0, 0, 0
        # Observations not yet in the normaliser.
        self._unseen: list[Array] = []
        self._episodes: list[tuple[float, int]] = []
        self._lives = [0] * distribution.actors
        self._used: dict[tuple[int, int], Usage] = {}
        # By actor: who is in its place, and when it was heard of.
        self._successor = [0] * distribution.actors
        self._heard_s: list[float | None] = [None] * distribution.actors
        self._publish()

    def learn(self) -> None:
        """Train the run to its configured steps, or until `stop`.

        Raises:
          UserError: the training has diverged.
        """
        config, watch = self._config, self._watch
        try:
            with self._session as session:
                while session.unfinished:
                    metrics: dict[str, Any] = {}
                    learnt_from = None
                    if self._replay.wait_for_writers(POLL_S):
                        watch.lap("wait")
                        batch = self._replay.sample(self._updates_per_call, config.batch_size, session.rng)
                        watch.lap("sample")
                        metrics, learnt_from = learn(session, self._replay, batch)
                        self._updates += self._updates_per_call
                        watch.lap("update")
                    else:
                        watch.lap("wait")
                    self._take_stock()
                    spent = self._spent()
                    measured = spent.metrics() | {"staleness": spent.staleness}
                    session.updated(metrics | measured, learnt_from, self._state)
                    watch.lap("report")
                    if learnt_from is not None and self._wanted:
                        self._publish()
                session.finish(self._state())
        finally:
            # Actors hear of it with their next message.
            self.stop()

    def stop(self) -> None:
        """Let it, and the actors, end."""
        self._stop.set()
        self._replay.release()

    def join(self, hello: Hello) -> Order:
        """An actor begins, or begins again."""
        with self._lock:
            self._lives[hello.actor], self._successor[hello.actor] = hello.life, hello.successor
            self._collected.ledger.joined(hello.actor, hello.stepped, hello.unfinished)
        return self._order(hello.actor, -1)

    def insert(self, experience: Experience) -> Order:
        """Take what an actor has seen; returns when more is wanted.

        Raises:
          NotFiniteError: there is NaN or infinity among it. It was counted, and not inserted.
        """
        finite = is_finite(experience.transitions)
        with self._lock:
            self._heard_s[experience.actor] = time.monotonic()
            if not self._lives[experience.actor]:
                raise LearnerLostError("This learner has been restarted: join it first.")
            if experience.life != self._lives[experience.actor]:
                # Of one that has died meanwhile: this was counted as lost when another one took its place.
                return Order(None, False, True)
            n = len(experience.transitions)
            self._collected.ledger.delivered(experience.actor, n, experience.stepped, finite=finite)
            self._used[experience.actor, self._successor[experience.actor]] = experience.usage
            if finite:
                self._episodes += experience.episodes
                stale = max(0, self._updates - experience.updates)
                self._arrived, self._stale = self._arrived + n, self._stale + n * stale
                self._stalest = max(self._stalest, stale)
                if self._session.normalizer is not None:
                    self._unseen.append(experience.transitions.observation)
                self._replay.insert(experience.transitions)
        if not finite:
            raise NotFiniteError(
                f"Actor {experience.actor} sent NaN or infinity in {len(experience.transitions)} transitions, which "
                "were not inserted."
            )
        while not self._replay.wait_for_reader(POLL_S):
            self._heard_s[experience.actor] = time.monotonic()
        return self._order(experience.actor, experience.updates)

    def leave(self, farewell: Farewell) -> None:
        """An actor has ended, as it was told to; maybe by a learner that has died since."""
        with self._lock:
            if not self._lives[farewell.actor]:
                self._collected.ledger.joined(farewell.actor, farewell.stepped, farewell.unfinished)
            self._collected.ledger.left(farewell)
            self._used[farewell.actor, farewell.successor] = farewell.usage

    def write_off(self, actor: int, stepped: int) -> None:
        """An actor is gone for good: what it had not delivered of so many steps is lost."""
        with self._lock:
            self._lives[actor] = 0
            self._collected.ledger.joined(actor, stepped, 0)

    def status(self) -> Status:
        """How it is going."""
        now_s, returns = time.monotonic(), [episode_return for episode_return, _ in self._collected.episodes[-100:]]
        return Status(
            steps=self._collected.ledger.inserted,
            remembered=len(self._replay.replay),
            episode_return=float(np.mean(returns)) if returns else None,
            inserted=self._collected.ledger.inserted_by,
            silent_s=tuple(None if heard_s is None else now_s - heard_s for heard_s in self._heard_s),
            spent=self._spent(),
        )

    def summary(self) -> Summary:
        """What it was; complete once all actors have left."""
        return Summary(
            account=self._collected.ledger.account(),
            spent=self._spent(),
            updates=self._updates,
            push_bytes=self._publisher.push_bytes,
            in_place=self._publisher.in_place,
        )

    def _order(self, actor: int, updates: int) -> Order:
        """What an actor is to do whose policy has had so many updates."""
        with self._lock:
            self._heard_s[actor] = time.monotonic()
            push = self._push
            newer = push.updates != updates
            self._wanted = self._wanted or newer
        random = self._config.init_from is None and self._collected.ledger.inserted < self._config.learning_starts
        return Order(push if newer else None, random, self._stop.requested)

    def _publish(self) -> None:
        """Make the policy that actors get from now on."""
        agent, session = self._session.agent, self._session
        push = self._publisher.publish(
            agent.acting.weights,
            session.normalizer,
            updates=self._updates,
            explorer=agent.explorer(session.steps),
            watch=self._watch,
        )
        with self._lock:
            # Another one is made once somebody has taken this one.
            self._push, self._wanted = push, False

    def _take_stock(self) -> None:
        """Let the session know what has arrived."""
        with self._lock:
            unseen, self._unseen = self._unseen, []
            self._collected.episodes += self._episodes
            self._episodes = []
            self._session.steps = self._collected.ledger.inserted
        if unseen:
            self._session.observed(np.concatenate(unseen))

    def _spent(self) -> Spent:
        with self._lock:
            now = Spent(
                dict(self._used),
                self._watch.usage(),
                self._publisher.pushes,
                self._arrived,
                self._stale,
                self._stalest,
            )
        return self._before.then(now)

    def _state(self) -> State:
        with self._lock:
            state = prefixed("replay", self._replay.state()) if self._config.save_replay else {}
            # Of the same moment: it takes the place of what the session asks for later.
            state |= prefixed("env", self._collected.state())
        return state | {"actorq/updates": np.array(self._updates)}
