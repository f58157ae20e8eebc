"""What tests of training share."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfqrl import agents
from tfqrl.runs import Run
from tfqrl.signals import Interrupted

TIMES = ("elapsed_s", "steps_per_s")


def trained(path: Path, config: Any) -> Run:
    """A run of the algorithm that `config` is of, trained."""
    run = Run.create(path, algorithm_of(config), config)
    train(run)
    return run


def train(run: Run) -> None:
    """Train a run, from its checkpoint if it has one."""
    agents.get(run.algorithm).train(run)


def algorithm_of(config: Any) -> str:
    """The name of the algorithm that a configuration is of."""
    return next(name for name, algorithm in agents.ALGORITHMS.items() if algorithm.config is type(config))


def trained_in_two(path: Path, config: Any, agent_type: Any, updates: int) -> Run:
    """The same, stopped by a signal during the update of this number, counted from 1, and resumed."""
    run = Run.create(path, algorithm_of(config), config)
    update, calls = agent_type.update, 0

    def update_and_stop(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == updates:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent_type, "update", update_and_stop)
        with pytest.raises(Interrupted):
            train(run)
    train(run)
    return run


def curve(run: Run) -> list[dict[str, float]]:
    """A run's metrics, without what a clock measured."""
    return [{name: value for name, value in record.items() if name not in TIMES} for record in run.metrics()]


def assert_same_training(run: Run, other: Run) -> None:
    """Checkpoints and metrics are equal, bit by bit."""
    state, other_state = run.load_checkpoint(), other.load_checkpoint()
    assert state.keys() == other_state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, other_state[name], err_msg=name)
    assert curve(run) == curve(other)
