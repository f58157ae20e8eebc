"""What is told before Ray is asked for anything. That it works, those see who use it."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from edge.errors import UserError
from tfqrl import ray_engine


def test_a_cluster_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    ray: Any = SimpleNamespace(
        init=lambda **options: called.append("init"),
        cluster_resources=lambda: {"CPU": 4.0},
        shutdown=lambda: called.append("shutdown"),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_engine, "_check_answers", lambda address: None)
    too_few = "at head:6379 has 4 cores to give away, and 5 are needed: add machines"
    with pytest.raises(UserError, match=too_few), ray_engine.ray_engine(5, "head:6379"):
        pass
    assert called == ["init", "shutdown"]
    with ray_engine.ray_engine(4, "head:6379") as engine:
        assert engine is ray
    with ray_engine.ray_engine(None, "head:6379") as engine:
        assert engine is ray
