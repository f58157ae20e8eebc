"""Distributed training by algorithms that learn from a replay: its processes started, watched, replaced, and ended."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.errors import UserError
from tfqrl import agents
from tfqrl.actorq.actor import LearnerLostError
from tfqrl.actorq.counter import Counter as StepCounter
from tfqrl.actorq.learner import Status
from tfqrl.actorq.messages import assignments
from tfqrl.actorq.options import Distribution
from tfqrl.actorq.outcome import Summary, Training
from tfqrl.actorq.processes import START_S, TRIES, ActorProcess, LearnerProcess, kill, remote_actor
from tfqrl.progress import StepsBar
from tfqrl.ray_engine import ray_engine
from tfqrl.runs import Run
from tfqrl.signals import StopRequest

POLL_S = 0.5
# For actors' last messages, once the learner has ended.
STOP_S = 60.0


def train(run: Run, distribution: Distribution, address: str | None) -> Training:
    """Train `run` to its configured steps, from its checkpoint if it has one.

    Args:
      run: of an algorithm with a replay.
      distribution: how it is distributed.
      address: of a Ray cluster; None for this machine alone.

    Raises:
      UserError: the training has diverged, the environment fails, or there is no such cluster.
      Interrupted: a signal asked to stop; there is a checkpoint.
    """
    # Actors count in files there.
    folder = tempfile.TemporaryDirectory(prefix="tfqrl-actorq-")
    # Logical cores, which are as many as there are processes: what is real the operating system shares out.
    with folder as counters, ray_engine(distribution.actors + 1, address, "actorq") as ray, StopRequest() as stop:
        supervisor = Supervisor(ray, run, distribution, Path(counters))
        status = supervisor.start()
        with StepsBar(str(run.path), agents.config_of(run).steps, status.steps) as bar:
            while supervisor.watch(POLL_S):
                if stop.requested:
                    supervisor.stop()
                for line in supervisor.told():
                    bar.tell(line)
                status = supervisor.status
                result = "no episode has ended yet"
                if status.episode_return is not None:
                    result = f"return {status.episode_return:.1f}"
                bar.update(status.steps, result)
        training = supervisor.result()
        stop.raise_if_requested()
    return training


class Supervisor:
    """Watches over one training's processes.

    Attributes:
      status: what the learner said last.
    """

    def __init__(self, ray: Any, run: Run, distribution: Distribution, counters: Path) -> None:
        """Begin the processes of `run`, which count steps in the folder `counters`; `ray` is the connected module."""
        self._ray = ray
        config = agents.config_of(run)
        n = distribution.actors
        self._patience_s = distribution.patience_s
        # As many threads as may call it at a time: each actor's two messages, `learn`, and this process.
        learner = ray.remote(num_cpus=1, max_restarts=-1, max_concurrency=2 * n + 4)(LearnerProcess)
        self._learner = learner.remote(run.path.resolve(), distribution)
        actor = remote_actor(ActorProcess)
        self._actors = [
            actor.remote(each, gamma=config.gamma, n_step=config.n_step, push_every=distribution.push_every)
            for each in assignments(config, n, str(counters))
        ]
        self._counters = counters
        self._starting: dict[Any, int] = {}
        self._acting: dict[Any, int] = {}
        self._learning: Any = None
        self._began_s = [0.0] * n
        # Where each runs: node and process; None until it has said so.
        self._where: list[tuple[str, int] | None] = [None] * n
        # How often each failed since it had delivered anything, and how much it had delivered then.
        self._fruitless, self._fruits = [0] * n, [-1] * n
        self._restarts, self._restarted_at = 0, -1
        self._silent: set[int] = set()
        # Who waits for a core, and was told of.
        self._late: set[int] = set()
        self._replaced: Counter[str] = Counter()
        self._learners = 0
        # What a learner has to hear of actors that have ended, and how much of it the present one has.
        self._last_words: list[tuple[str, tuple[Any, ...]]] = []
        self._heard = 0
        self._lines: list[str] = []
        self._stopping = False
        self._ended_s: float | None = None
        self._summary: Summary | None = None

    def start(self) -> Status:
        """Begin, where the run's checkpoint ends.

        Raises:
          UserError: see `Learner`.
        """
        self.status: Status = self._asked(self._learner.start.remote(None))
        self._learning = self._learner.learn.remote()
        self._since_s, self._since_steps = time.monotonic(), self.status.steps
        for i in range(len(self._actors)):
            self._begin(i)
        return self.status

    def watch(self, timeout_s: float) -> bool:
        """Look after all of it once, for `timeout_s` at the most; whether anything goes on.

        Raises:
          UserError: it cannot go on.
        """
        # A checkpoint takes as long as it takes: actors alone are late.
        if self._ended_s is not None and time.monotonic() > self._ended_s + STOP_S:
            self._give_up()
        going = [ref for ref in (self._learning, *self._starting, *self._acting) if ref is not None]
        done, _ = self._ray.wait(going, timeout=timeout_s) if going else ([], [])
        for ref in done:
            if ref == self._learning:
                self._learner_ended(ref)
            elif ref in self._starting:
                self._actor_started(ref, self._starting.pop(ref))
            else:
                self._actor_ended(ref, self._acting.pop(ref))
        try:
            self.status = self._asked(self._learner.status.remote())
            for method, words in self._last_words[self._heard :]:
                self._asked(getattr(self._learner, method).remote(*words))
                self._heard += 1
            if not going:
                self._summary = self._asked(self._learner.summary.remote())
        except (self._ray.exceptions.RayActorError, LearnerLostError) as error:
            # As long as it learns, its death is seen above, next time.
            if self._learning is None:
                self._learner_died(error)
            return True
        for i in self._acting.values():
            self._look_after(i)
        for i in self._starting.values():
            if time.monotonic() > self._began_s[i] + START_S and i not in self._late:
                self._late.add(i)
                self._lines.append(f"Actor {i} has not begun yet. Has the cluster a core that is free?")
        return bool(going)

    def stop(self) -> None:
        """Let all end, with a checkpoint."""
        if not self._stopping:
            self._stopping = True
            self._learner.stop.remote()

    def told(self) -> list[str]:
        """What has happened since this was asked last."""
        lines, self._lines = self._lines, []
        return lines

    def result(self) -> Training:
        """What it was, once `watch` has said that nothing goes on."""
        assert self._summary is not None
        return Training(
            summary=self._summary,
            elapsed_s=time.monotonic() - self._since_s,
            steps=self._summary.account.inserted - self._since_steps,
            replaced=dict(self._replaced),
            learners=self._learners,
        )

    def _begin(self, i: int) -> None:
        self._began_s[i], self._where[i] = time.monotonic(), None
        self._starting[self._actors[i].where.remote()] = i

    def _actor_started(self, ref: Any, i: int) -> None:
        try:
            self._where[i] = self._ray.get(ref)
        except self._ray.exceptions.RayActorError:
            # Ray has not noticed yet that the one before it is dead.
            if time.monotonic() > self._began_s[i] + START_S:
                raise UserError(f"Actor {i} could not be started within {START_S:g} s.") from None
            time.sleep(POLL_S)
            self._starting[self._actors[i].where.remote()] = i
        else:
            # No one has begun at these steps after so many replacements before.
            successor = self._since_steps + sum(self._replaced.values())
            self._acting[self._actors[i].act.remote(self._learner, successor)] = i

    def _look_after(self, i: int) -> None:
        """Kill an actor that says nothing any more; `_actor_ended` then hears of its end."""
        lived_s = time.monotonic() - self._began_s[i]
        silent_s = self.status.silent_s[i]
        heard = silent_s is not None and silent_s < lived_s
        if (heard and silent_s > self._patience_s) or (not heard and lived_s > max(START_S, self._patience_s)):
            self._silent.add(i)
            kill(self._actors[i], self._where[i])
            # Once is enough.
            self._began_s[i] = time.monotonic()

    def _actor_ended(self, ref: Any, i: int) -> None:
        try:
            farewell = self._ray.get(ref)
        except self._ray.exceptions.RayActorError:
            reason = "silent" if i in self._silent else "died"
            self._silent.discard(i)
            self._replace(i, reason, "was silent" if reason == "silent" else "died")
        except self._ray.exceptions.RayTaskError as error:
            kill(self._actors[i], self._where[i])
            self._replace(i, "failed", f"failed: {error.cause}")
        else:
            self._last_words.append(("leave", (farewell,)))

    def _replace(self, i: int, reason: str, text: str) -> None:
        self._replaced[reason] += 1
        inserted = self.status.inserted[i]
        self._fruitless[i] = self._fruitless[i] + 1 if inserted == self._fruits[i] else 0
        self._fruits[i] = inserted
        if self._fruitless[i] >= TRIES:
            cure = " Give more --patience-s, or fewer steps to a message: --push-every." * (reason == "silent")
            raise UserError(f"Actor {i} {text}. It was replaced {TRIES} times, and did nothing in between.{cure}")
        if self._learning is None:
            self._book(i)
            return
        self._lines.append(f"Actor {i} {text}. Another one takes its place.")
        self._begin(i)

    def _book(self, i: int) -> None:
        """What an actor that is gone for good had not delivered is lost."""
        self._last_words.append(("write_off", (i, StepCounter(self._counters / str(i)).value)))

    def _give_up(self) -> None:
        """Kill the actors that have not ended."""
        for i in (*self._starting.values(), *self._acting.values()):
            kill(self._actors[i], self._where[i])
            self._book(i)
        self._starting, self._acting = {}, {}

    def _learner_ended(self, ref: Any) -> None:
        try:
            self._asked(ref)
        except (self._ray.exceptions.RayActorError, LearnerLostError) as error:
            self._learner_died(error)
            self._learning = self._learner.learn.remote()
        else:
            self._learning, self._ended_s = None, time.monotonic()

    def _learner_died(self, error: Exception) -> None:
        """Begin another one, where the checkpoint ends; only to keep the books, once the learning has ended."""
        self._learners += 1
        steps = self.status.steps
        self._restarts = self._restarts + 1 if steps <= self._restarted_at else 0
        self._restarted_at = steps
        if self._restarts >= TRIES:
            raise UserError(
                f"The learner's process died {TRIES} times without getting any further. Is there enough memory for "
                "--replay-size and the networks?"
            ) from None
        if isinstance(error, self._ray.exceptions.ActorUnavailableError):
            # It may be alive, and out of reach: there must not be two that learn.
            kill(self._learner, None)
        before = self.status.spent
        self.status = self._until_heard(lambda: self._learner.start.remote(before))
        # It has heard of no actor yet.
        self._began_s, self._heard = [time.monotonic()] * len(self._actors), 0
        if self._stopping or self._learning is None:
            self._learner.stop.remote()
        if self._learning is None:
            self._ended_s = time.monotonic()
        self._lines.append(
            f"The learner died. Another one goes on from the checkpoint at {self.status.steps:,} steps, with "
            f"{self.status.remembered:,} transitions in its replay."
        )

    def _until_heard(self, ask: Callable[[], Any]) -> Any:
        """Ask a learner that may be about to be restarted."""
        until_s = time.monotonic() + START_S
        while True:
            try:
                return self._asked(ask())
            except (self._ray.exceptions.RayActorError, LearnerLostError):
                if time.monotonic() > until_s:
                    raise UserError(f"The learner's process did not come back within {START_S:g} s.") from None
                time.sleep(POLL_S)

    def _asked(self, ref: Any) -> Any:
        """What a call returned.

        Raises:
          UserError: what it raised, without the engine's own words.
        """
        try:
            return self._ray.get(ref)
        except UserError as error:
            raise UserError(str(getattr(error, "cause", error))) from None
