"""What is decided of processes that die, hang and fail: an engine that does as it is told, and a clock that is set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import UserError
from tfqrl.actorq import asynchronous
from tfqrl.actorq.actor import LearnerLostError
from tfqrl.actorq.asynchronous import STOP_S, Supervisor
from tfqrl.actorq.learner import Status
from tfqrl.actorq.ledger import Account
from tfqrl.actorq.messages import Farewell
from tfqrl.actorq.options import Distribution
from tfqrl.actorq.outcome import Spent, Summary, Training
from tfqrl.actorq.processes import START_S, TRIES
from tfqrl.actorq.stopwatch import Usage
from tfqrl.agents.td3 import TD3Config
from tfqrl.runs import Run


class DiedError(Exception):
    pass


class UnavailableError(DiedError):
    pass


class FailedError(Exception):
    cause = "NaN"


class Reference:
    """What a call will have returned."""

    def __init__(self, *result: Any) -> None:
        self.result = result


class Engine:
    """Stands for Ray: a call that waits for something ends when the test says so."""

    exceptions = SimpleNamespace(
        RayActorError=DiedError, RayTaskError=FailedError, ActorUnavailableError=UnavailableError
    )

    def __init__(self) -> None:
        self.now_s = 0.0
        self.learner = FakeLearner()
        self.acts: dict[int, Reference] = {}
        self.successors: list[tuple[int, int]] = []
        self.killed: list[int] = []
        self.cores = 99

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        return lambda kind: SimpleNamespace(remote=lambda *words: Handle(self.learner))

    def remote_actor(self, kind: Any) -> Any:
        return SimpleNamespace(remote=lambda assignment, **_: Handle(FakeActor(self, assignment.actor)))

    def kill(self, actor: Any, where: Any) -> None:
        if actor.target is self.learner:
            self.killed.append(-1)
            return
        number = actor.target.number
        self.killed.append(number)
        self.acts[number].result = (DiedError(),)

    def get(self, reference: Reference) -> Any:
        (result,) = reference.result
        if isinstance(result, Exception):
            raise result
        return result

    def wait(self, references: list[Reference], timeout: float) -> tuple[list[Reference], list[Reference]]:
        self.now_s += timeout
        return [each for each in references if each.result], [each for each in references if not each.result]

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic(self) -> float:
        return self.now_s


class Handle:
    """Stands for an actor of Ray: methods have `remote`."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __getattr__(self, name: str) -> Any:
        def remote(*words: Any) -> Reference:
            try:
                result = getattr(self.target, name)(*words)
            except (DiedError, LearnerLostError) as error:
                return Reference(error)
            return result if isinstance(result, Reference) else Reference(result)

        return SimpleNamespace(remote=remote)


class FakeActor:
    def __init__(self, engine: Engine, number: int) -> None:
        self.engine, self.number = engine, number

    def where(self) -> Any:
        return ("node", self.number) if self.number < self.engine.cores else Reference()

    def act(self, learner: Any, successor: int) -> Reference:
        self.engine.successors.append((self.number, successor))
        self.engine.acts[self.number] = Reference()
        return self.engine.acts[self.number]


class FakeLearner:
    def __init__(self) -> None:
        self.steps, self.silent_s = 0, [0.0, 0.0]
        self.inserted = [0, 0]
        self.begun: list[Spent | None] = []
        self.heard: list[tuple[str, Any]] = []
        self.stopped, self.lost = False, False
        self.learning = Reference()

    def start(self, before: Spent | None) -> Status:
        self.begun.append(before)
        self.heard, self.stopped, self.lost = [], False, False
        return self._status()

    def learn(self) -> Reference:
        self.learning = Reference()
        return self.learning

    def stop(self) -> None:
        self.stopped = True

    def status(self) -> Status:
        if self.lost:
            raise LearnerLostError
        return self._status()

    def leave(self, farewell: Farewell) -> None:
        if self.lost:
            raise LearnerLostError
        self.heard.append(("left", farewell.actor))

    def write_off(self, actor: int, stepped: int) -> None:
        self.heard.append(("written off", actor))

    def summary(self) -> Summary:
        return Summary(Account(0, self.steps, 0, 0, 0), Spent(pushes=len(self.begun)), 0, 0, True)

    def _status(self) -> Status:
        return Status(self.steps, 0, None, tuple(self.inserted), tuple(self.silent_s), Spent(pushes=7))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(asynchronous, "time", engine)
    monkeypatch.setattr(asynchronous, "remote_actor", engine.remote_actor)
    monkeypatch.setattr(asynchronous, "kill", engine.kill)
    return engine


@pytest.fixture
def supervisor(engine: Engine, tmp_path: Path) -> Supervisor:
    """With both actors at work."""
    run = Run.create(tmp_path / "run", "td3", TD3Config(env="Pendulum-v1"))
    supervisor = Supervisor(engine, run, Distribution(actors=2, patience_s=10.0), tmp_path / "counters")
    supervisor.start()
    assert supervisor.watch(0.5)
    return supervisor


def ended(engine: Engine, supervisor: Supervisor) -> Training:
    """What it was, once the learner and all actors have come to their end."""
    engine.learner.learning.result = (None,)
    for _ in range(9):
        for number, act in engine.acts.items():
            act.result = act.result or (farewell(number),)
        if not supervisor.watch(0.5):
            return supervisor.result()
    raise AssertionError("It does not end.")


def farewell(actor: int) -> Farewell:
    return Farewell(actor, 0, 100, 0, Usage())


def test_an_actor_that_died_is_replaced_by_one_that_plays_other_episodes(
    engine: Engine, supervisor: Supervisor
) -> None:
    engine.acts[1].result = (DiedError(),)
    supervisor.watch(0.5)
    supervisor.watch(0.5)
    assert supervisor.told() == ["Actor 1 died. Another one takes its place."]
    assert engine.successors == [(0, 0), (1, 0), (1, 1)]
    assert ended(engine, supervisor).replaced == {"died": 1}


def test_one_that_says_nothing_is_killed_once(engine: Engine, supervisor: Supervisor) -> None:
    engine.now_s += 20.0
    engine.learner.silent_s = [0.1, 10.1]
    supervisor.watch(0.5)
    assert engine.killed == [1]
    for _ in range(3):
        supervisor.watch(0.5)
    assert engine.killed == [1]
    assert supervisor.told() == ["Actor 1 was silent. Another one takes its place."]
    engine.learner.silent_s = [0.1, 0.1]
    assert ended(engine, supervisor).replaced == {"silent": 1}


def test_who_has_just_begun_is_not_silent_because_the_one_before_it_was(engine: Engine, supervisor: Supervisor) -> None:
    engine.now_s += 20.0
    engine.acts[1].result = (DiedError(),)
    engine.learner.silent_s = [0.1, 15.0]
    for _ in range(4):
        supervisor.watch(0.5)
    assert engine.killed == []
    # It has as long as a process may take to begin.
    engine.now_s += START_S
    engine.learner.silent_s = [0.1, 15.0 + START_S]
    supervisor.watch(0.5)
    assert engine.killed == [1]


def test_a_process_that_failed_goes_too(engine: Engine, supervisor: Supervisor) -> None:
    failed = engine.acts[0]
    failed.result = (FailedError(),)
    supervisor.watch(0.5)
    assert engine.killed == [0]
    assert supervisor.told() == ["Actor 0 failed: NaN. Another one takes its place."]


def test_an_actor_that_fails_again_and_again_ends_the_training(engine: Engine, supervisor: Supervisor) -> None:
    def fail(times: int) -> None:
        for _ in range(times):
            engine.acts[0].result = (DiedError(),)
            supervisor.watch(0.5)
            supervisor.watch(0.5)

    fail(TRIES)
    engine.learner.inserted[0] += 30  # it has delivered something in between
    supervisor.watch(0.5)
    fail(TRIES)
    with pytest.raises(UserError, match=f"Actor 0 died. It was replaced {TRIES} times, and did nothing in between"):
        fail(1)


def test_a_learner_that_died_goes_on_with_what_was_spent(engine: Engine, supervisor: Supervisor) -> None:
    engine.learner.lost, engine.learner.learning.result = True, (DiedError(),)
    engine.now_s += 1000.0
    engine.learner.silent_s = [None, None]
    assert supervisor.watch(0.5)
    assert engine.learner.begun == [None, Spent(pushes=7)]
    assert not engine.learner.learning.result
    assert not engine.learner.stopped
    supervisor.watch(0.5)
    assert engine.killed == []  # it has not heard of them yet
    assert "The learner died." in supervisor.told()[0]
    assert ended(engine, supervisor).learners == 1


def test_a_learner_that_is_out_of_reach_is_killed_before_another_one_begins(
    engine: Engine, supervisor: Supervisor
) -> None:
    engine.learner.learning.result = (UnavailableError(),)
    supervisor.watch(0.5)
    assert engine.killed == [-1]
    assert engine.learner.begun == [None, Spent(pushes=7)]


def test_a_learner_that_died_before_it_could_learn_is_begun_again(engine: Engine, supervisor: Supervisor) -> None:
    engine.learner.learning.result = (LearnerLostError(),)
    supervisor.watch(0.5)
    assert engine.learner.begun == [None, Spent(pushes=7)]


def test_a_learner_that_dies_without_getting_further_ends_the_training(engine: Engine, supervisor: Supervisor) -> None:
    def die() -> None:
        engine.learner.learning.result = (DiedError(),)
        supervisor.watch(0.5)

    for _ in range(TRIES):
        die()
    engine.learner.steps = 100
    supervisor.watch(0.5)
    for _ in range(TRIES):
        die()
    with pytest.raises(UserError, match=f"died {TRIES} times without getting any further"):
        die()


def test_a_learner_that_dies_at_the_very_end_hears_again_who_has_left(engine: Engine, supervisor: Supervisor) -> None:
    engine.learner.learning.result = (None,)
    engine.acts[0].result = (farewell(0),)
    assert supervisor.watch(0.5)
    assert engine.learner.heard == [("left", 0)]
    engine.learner.lost = True
    assert supervisor.watch(0.5)
    assert engine.learner.begun == [None, Spent(pushes=7)]
    assert engine.learner.stopped  # the other one is told so when it joins
    engine.acts[1].result = (farewell(1),)
    while supervisor.watch(0.5):
        pass
    assert engine.learner.heard == [("left", 0), ("left", 1)]
    assert supervisor.result().learners == 1
    assert "The learner died." in supervisor.told()[0]


def test_a_learner_that_dies_again_and_again_at_the_end_ends_it(engine: Engine, supervisor: Supervisor) -> None:
    engine.learner.learning.result = (None,)
    supervisor.watch(0.5)
    for _ in range(TRIES):
        engine.learner.lost = True
        assert supervisor.watch(0.5)
    engine.learner.lost = True
    with pytest.raises(UserError, match="without getting any further"):
        supervisor.watch(0.5)


def test_actors_that_do_not_end_are_killed_and_written_off(engine: Engine, supervisor: Supervisor) -> None:
    engine.learner.learning.result = (None,)
    supervisor.watch(0.5)
    engine.acts[0].result = (farewell(0),)
    assert supervisor.watch(0.5)
    engine.now_s += STOP_S
    while supervisor.watch(0.5):
        pass
    assert engine.killed == [1]
    assert engine.learner.heard == [("left", 0), ("written off", 1)]


def test_one_that_dies_at_the_end_is_not_replaced(engine: Engine, supervisor: Supervisor) -> None:
    engine.learner.learning.result = (None,)
    engine.acts[0].result, engine.acts[1].result = (farewell(0),), (DiedError(),)
    while supervisor.watch(0.5):
        pass
    assert len(engine.successors) == 2
    assert engine.learner.heard == [("left", 0), ("written off", 1)]


def test_an_actor_that_gets_no_core_is_told_of_once(engine: Engine, tmp_path: Path) -> None:
    engine.cores = 1
    run = Run.create(tmp_path / "run", "td3", TD3Config(env="Pendulum-v1"))
    supervisor = Supervisor(engine, run, Distribution(actors=2), tmp_path / "counters")
    supervisor.start()
    supervisor.watch(0.5)
    assert supervisor.told() == []
    engine.now_s += START_S
    supervisor.watch(0.5)
    supervisor.watch(0.5)
    assert supervisor.told() == ["Actor 1 has not begun yet. Has the cluster a core that is free?"]
