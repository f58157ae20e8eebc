"""Counters, ledgers, stopwatches, and the ratio of samples to inserts."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from tfqrl.actorq.counter import Counter
from tfqrl.actorq.ledger import Ledger
from tfqrl.actorq.limited_replay import LimitedReplay
from tfqrl.actorq.messages import Farewell, is_finite
from tfqrl.actorq.stopwatch import Stopwatch, Usage, shares
from tfqrl.replay import Transitions, UniformReplay

SPEC = PolicySpec(ObservationSpec((1,), (None,), (None,)), ActionSpec((1,), (-1.0,), (1.0,)), None, None)


def transitions(n: int, value: float = 0.0) -> Transitions:
    vectors = np.full((n, 1), value, np.float32)
    return Transitions(vectors, vectors, vectors[:, 0], vectors, vectors[:, 0])


def test_a_count_outlives_the_process_that_counted(tmp_path: Path) -> None:
    path = tmp_path / "new" / "0"
    program = f"""
import os
from tfqrl.actorq.counter import Counter
counter = Counter({str(path)!r})
for _ in range(1234):
    counter.add()
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    counter = Counter(path)
    assert counter.value == 1234
    counter.add(6)
    assert Counter(path).value == 1240
    counter.remove()
    assert not path.exists()


def test_what_a_killed_actor_had_not_delivered_is_lost() -> None:
    ledger = Ledger(2)
    ledger.joined(0, 0, 0)
    ledger.joined(1, 0, 0)
    ledger.delivered(0, 28, 30, finite=True)
    ledger.delivered(1, 30, 30, finite=True)
    # Actor 0 makes 17 more steps and is killed, with two transitions open.
    ledger.joined(0, 47, 0)
    ledger.delivered(0, 28, 77, finite=True)
    ledger.delivered(1, 30, 60, finite=False)
    ledger.left(Farewell(0, 0, 77, 2, Usage()))
    ledger.left(Farewell(1, 0, 60, 0, Usage()))
    account = ledger.account()
    assert (account.stepped, account.inserted, account.lost) == (137, 28 + 30 + 28, 47 - 28)
    assert (account.refused, account.unfinished) == (30, 2)
    assert account.balanced


def test_books_that_miss_something_do_not_balance() -> None:
    ledger = Ledger(1)
    ledger.delivered(0, 29, 30, finite=True)
    ledger.left(Farewell(0, 0, 30, 0, Usage()))
    assert not ledger.account().balanced


def test_an_actor_that_begins_on_another_machine_counts_on() -> None:
    ledger = Ledger(1)
    ledger.delivered(0, 30, 30, finite=True)
    ledger.joined(0, 0, 0)
    ledger.delivered(0, 30, 30, finite=True)
    ledger.joined(0, 35, 0)
    ledger.left(Farewell(0, 0, 35, 0, Usage()))
    account = ledger.account()
    assert (account.stepped, account.inserted, account.lost) == (65, 60, 5)
    assert account.balanced


def test_what_was_inserted_after_a_checkpoint_is_lost_with_the_learner() -> None:
    ledger = Ledger(1)
    ledger.delivered(0, 30, 30, finite=True)
    saved = ledger.state()
    ledger.delivered(0, 30, 60, finite=True)
    restarted = Ledger(1)
    restarted.restore(saved)
    restarted.joined(0, 90, 3)
    account = restarted.account()
    assert (account.stepped, account.inserted, account.lost) == (90, 30, 57)


@given(st.lists(st.tuples(st.sampled_from(["deliver", "refuse", "die", "learner dies"]), st.integers(0, 50))))
def test_the_books_balance_whatever_happens(events: list[tuple[str, int]]) -> None:
    ledger, stepped = Ledger(1), 0
    saved = ledger.state()
    for event, n in events:
        stepped += n
        if event in ("deliver", "refuse"):
            ledger.delivered(0, n, stepped, finite=event == "deliver")
        elif event == "learner dies":
            ledger = Ledger(1)
            ledger.restore(saved)
            ledger.joined(0, stepped, 0)
        else:
            ledger.joined(0, stepped, 0)
        saved = ledger.state() if n % 2 else saved
    ledger.left(Farewell(0, 0, stepped, 0, Usage()))
    account = ledger.account()
    assert account.balanced
    assert account.stepped == stepped


@pytest.mark.parametrize("field", ["observation", "action", "reward", "next_observation", "discount"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen_wherever_it_is(field: str, value: float) -> None:
    bad = transitions(5)
    assert is_finite(bad)
    array = getattr(bad, field).copy()
    array[3] = value
    setattr(bad, field, array)
    assert not is_finite(bad)


def test_a_stopwatch_adds_up_what_each_part_takes() -> None:
    times = iter([10.0, 11.0, 13.0, 13.5])
    watch = Stopwatch("work", "wait", "sleep", now_s=lambda: next(times))
    for name in ("work", "wait", "work"):
        watch.lap(name)
    assert watch.spans == {"work": 1.5, "wait": 2.0, "sleep": 0.0}
    assert shares(watch.spans) == pytest.approx({"work": 1.5 / 3.5, "wait": 2.0 / 3.5, "sleep": 0.0})
    assert shares({"work": 0.0}) == {"work": 0.0}


def test_usages_add_up() -> None:
    both = Usage({"work": 1.0, "wait": 2.0}, 3.0) + Usage({"work": 4.0}, 5.0) + Usage()
    assert both == Usage({"work": 5.0, "wait": 2.0}, 8.0)


def limited(ratio: float, *, starts: int = 10, per_call: int = 8) -> LimitedReplay:
    replay = UniformReplay(1000, SPEC)
    return LimitedReplay(replay, samples_per_insert=ratio, samples_per_call=per_call, learning_starts=starts)


def test_nobody_reads_before_learning_starts_and_nobody_waits_to_write_until_then() -> None:
    replay = limited(100.0)
    replay.insert(transitions(9))
    assert not replay.wait_for_writers(0.0)
    assert replay.wait_for_reader(0.0)
    replay.insert(transitions(1))
    # Those do not count: learning is as far as it should be.
    assert not replay.wait_for_writers(0.0)
    replay.insert(transitions(1))
    assert replay.wait_for_writers(0.0)
    assert not replay.wait_for_reader(0.0)


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0, 16.0])
def test_each_transition_is_read_as_often_as_was_asked_for(ratio: float) -> None:
    replay, rng = limited(ratio), np.random.default_rng(0)
    replay.insert(transitions(10))
    inserted = sampled = 0
    for _ in range(400):
        if replay.wait_for_reader(0.0):
            replay.insert(transitions(3))
            inserted += 3
        while replay.wait_for_writers(0.0):
            assert len(replay.sample(2, 4, rng).reward) == 2
            sampled += 8
    assert inserted > 100
    assert abs(sampled - ratio * inserted) <= 8


def test_who_is_ahead_waits_for_the_other_one() -> None:
    replay, rng = limited(1.0, starts=1), np.random.default_rng(0)
    calls, deadline_s = 50, 20.0

    def write() -> None:
        for _ in range(8 * calls + 1):
            replay.insert(transitions(1))
            assert replay.wait_for_reader(deadline_s)

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(calls):
        assert replay.wait_for_writers(deadline_s)
        replay.sample(1, 8, rng)
    writer.join(deadline_s)
    assert not writer.is_alive()
    assert not replay.wait_for_writers(0.0)
    assert len(replay.replay) == 8 * calls + 1


def test_at_the_end_nobody_waits() -> None:
    replay = limited(100.0, starts=1)
    replay.insert(transitions(1))
    replay.insert(transitions(100))
    replay.release()
    assert replay.wait_for_reader(60.0)
