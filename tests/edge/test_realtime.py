import gc
import os
from pathlib import Path

import pytest

from edge.realtime import Realtime, kernel, realtime


def test_nothing_is_asked_for_by_default() -> None:
    with realtime(Realtime()) as granted:
        assert granted.asked == ()
        assert granted.warnings == ()
        assert gc.isenabled()


def test_garbage_and_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    with realtime(Realtime(cpus=[one], collect_garbage=False)) as granted:
        assert os.sched_getaffinity(0) == {one}
        assert not gc.isenabled()
        assert granted.asked == (f"cores {one}", "garbage collector off")
    assert os.sched_getaffinity(0) == before
    assert gc.isenabled()


def test_what_is_refused_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with realtime(Realtime(priority=50, cpus=[0])) as granted:
        assert len(granted.warnings) == 2
    assert "CAP_SYS_NICE" in granted.warnings[1]
    assert "Operation not permitted" in granted.warnings[1]
    with realtime(Realtime(cpus=[100_000])) as granted:
        assert "were refused" in granted.warnings[0]


def test_priority_and_memory_are_granted_or_explained_and_taken_back() -> None:
    before = os.sched_getscheduler(0)
    with realtime(Realtime(priority=1, lock_memory=True)) as granted:
        explained = " ".join(granted.warnings)
        assert os.sched_getscheduler(0) == os.SCHED_FIFO or "Real-time priority 1 was refused" in explained
    assert os.sched_getscheduler(0) == before


def test_the_kernel_says_whether_it_is_real_time(tmp_path: Path) -> None:
    assert kernel(tmp_path) == "not real-time"
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/realtime").write_text("1\n")
    assert kernel(tmp_path) == "PREEMPT_RT"
