"""Actors and the learner as processes of Ray, and the way between them. An actor's process has no TensorFlow in it."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfqrl.actorq.actor import Actor, LearnerLostError
from tfqrl.actorq.messages import Assignment, Experience, Farewell, Hello, Order, Push
from tfqrl.actorq.rollouts import Part, RolloutActor
from tfqrl.ray_engine import ONE_THREAD

if TYPE_CHECKING:
    from tfqrl.actorq.learner import Learner, Status
    from tfqrl.actorq.options import Distribution
    from tfqrl.actorq.outcome import Spent, Summary

# What a process that says nothing yet may take to begin: environments and TensorFlow are imported in it.
START_S = 120.0
# A process that fails so often, and nothing comes of it in between, will fail again.
TRIES = 3
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

    def pull(self, push: Push) -> npt.NDArray[np.uint8]:
        """See `actor.Link`."""
        try:
            flatbuffer: npt.NDArray[np.uint8] = self._get(push.flatbuffer)
        except self._lost as error:
            raise LearnerLostError from error
        return flatbuffer


def remote_actor(kind: type[Process]) -> Any:
    """A process with one core, for Ray, which restarts it when it dies."""
    import ray

    environment = {"env_vars": dict.fromkeys(ONE_THREAD, "1")}
    return ray.remote(num_cpus=1, max_restarts=-1, runtime_env=environment)(kind)


def kill(actor: Any, where: tuple[str, int] | None) -> None:
    """Kill an actor's process, also one that does not answer, for which `ray.kill` would wait.

    Args:
      actor: of Ray, which starts another one in its place.
      where: its node and process, as `Process.where` says; None if it has not said so yet.
    """
    import ray

    if where is None:
        ray.kill(actor, no_restart=False)
        return
    node, pid = where
    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_kill)
    try:
        ray.get(task.remote(pid), timeout=START_S)
    except ray.exceptions.RayError:
        # Its machine is gone, or it was dead already.
        ray.kill(actor, no_restart=False)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


class Process:
    """One that Ray has started."""

    def where(self) -> tuple[str, int]:
        """Its node, as Ray calls it, and its process there."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()


class ActorProcess(Process):
    """A process that acts."""

    def __init__(self, assignment: Assignment, **options: Any) -> None:
        self._assignment, self._options = assignment, options

    def act(self, learner: Any, successor: int) -> Farewell:
        """See `Actor`."""
        return Actor(self._assignment, successor=successor, **self._options).act(RayLink(learner))


class RolloutProcess(Process):
    """A process that makes rollouts."""

    def __init__(self, assignment: Assignment, envs: int) -> None:
        self._assignment, self._envs = assignment, envs
        self._actor: RolloutActor | None = None

    def collect(self, push: Push, steps: int, successor: int) -> Part:
        """See `RolloutActor`."""
        import ray

        if self._actor is None:
            self._actor = RolloutActor(self._assignment, self._envs, successor=successor)
        return self._actor.collect(push, functools.partial(ray.get, push.flatbuffer), steps)


class LearnerProcess:
    """A process that learns. After it has died it is there again, and is to be started again."""

    def __init__(self, path: Path, distribution: Distribution) -> None:
        self._path, self._distribution = path, distribution
        self._learner: Learner | None = None

    def start(self, before: Spent | None) -> Status:
        """Take up the run; see `Learner`."""
        from tfqrl.options import import_tensorflow

        import_tensorflow()
        import ray

        from tfqrl.actorq.learner import Learner

        self._learner = Learner(self._path, self._distribution, ray.put, before)
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

    def write_off(self, actor: int, stepped: int) -> None:
        """See `Learner.write_off`."""
        self._started().write_off(actor, stepped)

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
