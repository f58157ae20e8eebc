"""ActorQ on as many machines as one likes: how many steps a second, from what each of its parts costs.

`throughput` is the formula of docs/actorq-scaling.md; `simulate` plays the messages one by one, with the rules of
tfqrl/actorq/, and shows what the formula leaves out: how far behind the actors' policies are.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Costs:
    """What the parts of a training cost, in seconds.

    Attributes:
      step_s: of an actor, for a step: environment, inference, transitions.
      send_s: of an actor, for a message.
      take_s: of an actor, for a new policy.
      receive_s: of the learner's process, for a message.
      update_s: of the learner, for an update, with the batch that is drawn for it.
      call_s: of the learner, for a call of updates beside these: weights to the host, metrics.
      publish_s: of the learner, for a new policy.
      cores: that the learner keeps busy meanwhile, on average.
      push_every: steps to a message.
      samples_per_insert: how often a transition is learnt from.
      batch_size: samples to an update.
      updates_per_call: updates at a time.
    """

    step_s: float
    send_s: float
    take_s: float
    receive_s: float
    update_s: float
    call_s: float
    publish_s: float
    cores: float
    push_every: int
    samples_per_insert: float
    batch_size: int
    updates_per_call: int

    @property
    def actor_step_s(self) -> float:
        """Seconds of an actor for a step, when it waits for nothing and each message brings a policy."""
        return self.step_s + (self.send_s + self.take_s) / self.push_every

    @property
    def learner_step_s(self) -> float:
        """Seconds of the learner's updates for a step of the environment, when each call brings a policy."""
        updates = self.samples_per_insert / self.batch_size
        return updates * (self.update_s + (self.call_s + self.publish_s) / self.updates_per_call)

    @property
    def receiving_step_s(self) -> float:
        """Seconds of the learner for taking in a step, in threads beside the update."""
        return self.receive_s / self.push_every


def throughput(costs: Costs, actors: int) -> float:
    """Steps of the environment in a second: the slowest of acting, receiving and learning."""
    return min(actors / costs.actor_step_s, 1.0 / costs.receiving_step_s, 1.0 / costs.learner_step_s)


def on_shared_cores(costs: Costs, actors: int, cores: int) -> float:
    """The same where actors and learner share so many cores, none of which is ever idle."""
    work_s = costs.actor_step_s + costs.receiving_step_s + costs.cores * costs.learner_step_s
    return min(throughput(costs, actors), cores / work_s)


def saturating_actors(costs: Costs) -> float:
    """With more actors than this the learner has no use for them."""
    return costs.actor_step_s / max(costs.receiving_step_s, costs.learner_step_s)


@dataclass(frozen=True)
class Simulated:
    """What a simulation gave.

    Attributes:
      steps_per_s: of all actors, once it runs evenly.
      staleness: updates that policies were behind when what they had done arrived, on average.
    """

    steps_per_s: float
    staleness: float


def simulate(costs: Costs, actors: int, messages: int) -> Simulated:
    """Play a training of so many messages of each actor, the first fifth of which does not count.

    Actors have a core each, the learner one for updates and one for messages.
    """
    return _Simulation(costs, actors).run(messages * actors)


class _Simulation:
    def __init__(self, costs: Costs, actors: int) -> None:
        self._costs, self._n = costs, actors
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self._now_s = 0.0
        # Of actors: whether the last message was answered, whether the next one waits for that, and their policy's age.
        self._answered, self._ready = [True] * actors, [False] * actors
        self._policy, self._newest = [0] * actors, [0] * actors
        # Of the learner.
        self._inserted, self._sampled, self._updates = 0, 0.0, 0
        self._published, self._wanted = 0, False
        self._inbox: deque[tuple[int, int]] = deque()
        self._receiving, self._learning = False, False
        self._held: list[int] = []
        self._stale: list[int] = []
        self._arrivals_s: list[float] = []

    def run(self, messages: int) -> Simulated:
        for actor in range(self._n):
            # They do not begin at the same moment.
            self._after(self._costs.push_every * self._costs.step_s * actor / self._n, self._collect, actor)
        while len(self._arrivals_s) < messages:
            self._now_s, _, happens, words = heapq.heappop(self._events)
            happens(*words)
        first = messages // 5
        took_s = self._arrivals_s[-1] - self._arrivals_s[first]
        counted = self._stale[first:]
        steps = (len(counted) - 1) * self._costs.push_every
        return Simulated(steps / took_s, sum(counted) / len(counted))

    def _after(self, seconds: float, happens: Callable[..., None], *words: Any) -> None:
        heapq.heappush(self._events, (self._now_s + seconds, next(self._order), happens, words))

    # An actor: `Actor.act`.

    def _collect(self, actor: int) -> None:
        self._after(self._costs.push_every * self._costs.step_s, self._collected, actor)

    def _collected(self, actor: int) -> None:
        if self._answered[actor]:
            self._send(actor)
        else:
            self._ready[actor] = True

    def _send(self, actor: int) -> None:
        self._answered[actor], self._ready[actor] = False, False
        self._after(self._costs.send_s, self._sent, actor, self._policy[actor])

    def _sent(self, actor: int, made_by: int) -> None:
        self._inbox.append((actor, made_by))
        self._receive()
        if self._newest[actor] > self._policy[actor]:
            self._policy[actor] = self._newest[actor]
            self._after(self._costs.take_s, self._collect, actor)
        else:
            self._collect(actor)

    # The learner's messages: `Learner.insert` and `LimitedReplay`.

    def _receive(self) -> None:
        if self._inbox and not self._receiving:
            self._receiving = True
            self._after(self._costs.receive_s, self._received, *self._inbox.popleft())

    def _received(self, actor: int, made_by: int) -> None:
        self._receiving = False
        self._inserted += self._costs.push_every
        self._arrivals_s.append(self._now_s)
        self._stale.append(self._updates - made_by)
        self._held.append(actor)
        self._answer()
        self._learn()
        self._receive()

    @property
    def _due(self) -> float:
        return self._costs.samples_per_insert * self._inserted - self._sampled

    @property
    def _call(self) -> int:
        return self._costs.updates_per_call * self._costs.batch_size

    def _answer(self) -> None:
        if self._due >= 2 * self._call:
            return
        held, self._held = self._held, []
        for actor in held:
            self._answered[actor] = True
            self._newest[actor] = self._published
            self._wanted = self._wanted or self._published > self._policy[actor]
            if self._ready[actor]:
                self._send(actor)

    # The learner's updates: `Learner.learn`.

    def _learn(self) -> None:
        if not self._learning and self._due >= self._call:
            self._learning = True
            self._sampled += self._call
            self._after(self._costs.updates_per_call * self._costs.update_s + self._costs.call_s, self._learnt)
            self._answer()

    def _learnt(self) -> None:
        self._updates += self._costs.updates_per_call
        # The first one is taken by all of them, and so is wanted.
        publishes = self._wanted or self._published == 0
        self._after(self._costs.publish_s if publishes else 0.0, self._idle, publishes)

    def _idle(self, published: bool) -> None:
        if published:
            self._published, self._wanted = self._updates, False
        self._learning = False
        self._answer()
        self._learn()
