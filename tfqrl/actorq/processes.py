"""Actors and the learner as processes of Ray, and the way between them. An actor's process has no TensorFlow in it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfqrl.actorq.actor import Actor, LearnerLostError
from tfqrl.actorq.messages import Assignment, Experience, Farewell, Hello, Order, Push

if TYPE_CHECKING:
    from tfqrl.actorq.learner import Learner, Status, Summary
    from tfqrl.actorq.options import Distribution

# How often, and how long, an actor looks for a learner that has died.
KNOCK_S = 0.5
REJOIN_S = 600.0


class RayLink:
    """An actor's way to a learner that is another process."""

    def __init__(self, learner: Any) -> None:
        """To this Ray actor, which is a LearnerProcess."""
        import ray

        self._get, self._learner = ray.get, learner
        self._lost = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, LearnerLostError)

    def join(self, hello: Hello) -> Order:
        """See `actor.Link`."""
        until_s = time.monotonic() + REJOIN_S
        while True:
            try:
                order: Order = self._get(self._learner.join.remote(hello))
            except self._lost as error:
                if time.monotonic() > until_s:
                    raise LearnerLostError(f"No learner for {REJOIN_S:g} s.") from error
                time.sleep(KNOCK_S)
            else:
                return order

    def send(self, experience: Experience) -> Any:
        """See `actor.Link`."""
        return self._learner.insert.remote(experience)

    def answer(self, sent: Any) -> Order:
        """See `actor.Link`."""
        try:
            order: Order = self._get(sent)
        except self._lost as error:
            raise LearnerLostError from error
        return order

    def pull(self, push: Push) -> bytes:
        """See `actor.Link`."""
        try:
            return bytes(self._get(push.flatbuffer))
        except self._lost as error:
            raise LearnerLostError from error


def kill(pid: int) -> None:
    """Kill a process of this machine, also one that does not answer, which `ray.kill` would wait for."""
    os.kill(pid, signal.SIGKILL)


class ActorProcess:
    """A process that acts."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def where(self) -> tuple[str, int]:
        """Its node, as Ray calls it, and its process there."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def act(self, learner: Any) -> Farewell:
        """See `Actor.act`."""
        return Actor(self._assignment).act(RayLink(learner))


class LearnerProcess:
    """A process that learns. After it has died it is there again, and is to be started again."""

    def __init__(self, path: Path, distribution: Distribution) -> None:
        self._path, self._distribution = path, distribution
        self._learner: Learner | None = None

    def start(self) -> Status:
        """Take up the run; see `Learner`."""
        from tfqrl.options import import_tensorflow

        import_tensorflow()
        import ray

        from tfqrl.actorq.learner import Learner

        self._learner = Learner(self._path, self._distribution, ray.put)
        return self._learner.status()

    def learn(self) -> None:
        """See `Learner.learn`."""
        self._started().learn()

    def stop(self) -> None:
        """See `Learner.stop`."""
        self._started().stop()

    def join(self, hello: Hello) -> Order:
        """See `Learner.join`."""
        return self._started().join(hello)

    def insert(self, experience: Experience) -> Order:
        """See `Learner.insert`."""
        return self._started().insert(experience)

    def leave(self, farewell: Farewell) -> None:
        """See `Learner.leave`."""
        self._started().leave(farewell)

    def status(self) -> Status:
        """See `Learner.status`."""
        return self._started().status()

    def summary(self) -> Summary:
        """See `Learner.summary`."""
        return self._started().summary()

    def _started(self) -> Learner:
        if self._learner is None:
            raise LearnerLostError("The learner has just been restarted.")
        return self._learner
