"""One cell, in this process."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from tfqrl.runs import Run
from tfqrl.study import plan, work
from tfqrl.study.outcome import Outcome

WORDS = ("ddpg", "--env", "toys/Match-v0", "--steps", "200", "--hidden", "8", "--learning-starts", "50")
CELL = plan.Cell(
    name="cell",
    task="ddpg-toys/Match-v0",
    method="float",
    seed=0,
    train=(*WORDS, "--batch-size", "16", "--updates-per-call", "10", "--evaluate-every", "100"),
    recipes=("float32",),
    episodes=3,
    begins_with=None,
    keep="last",
)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_policy_that_is_to_be_kept_is_converted_and_played(keep: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    cell = dataclasses.replace(CELL, keep=keep)
    run = work._trained(cell, tmp_path / "runs")
    state = run.load_checkpoint()
    # Another policy than the last: it always does the same.
    silent = {name: np.zeros_like(array) for name, array in state.items() if name.startswith("policy/")}
    run.save_best(state | silent | {"steps": np.array(100), "evaluation_return": np.array(0.0)})
    work._work(cell, tmp_path)
    outcome = Outcome.load(tmp_path / "cells" / "cell.json")
    assert (outcome.keep, outcome.deployed_steps) == (keep, {"last": 200, "best": 100}[keep])
    assert (outcome.layers[0].left == 0) == (keep == "best")
    assert outcome.policies[0].returns == pytest.approx(outcome.returns, abs=1e-3)
    assert [steps for steps, _ in outcome.curve] == [100, 200]
    assert outcome.complete
    assert Run.open(tmp_path / "runs" / "cell").has_checkpoint()


def test_an_outcome_names_the_run_it_begins_with_by_its_place_in_the_study(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    work._work(dataclasses.replace(CELL, name="first"), tmp_path)
    work._work(dataclasses.replace(CELL, name="second", begins_with="first"), tmp_path)
    outcome = Outcome.load(tmp_path / "cells" / "second.json")
    assert outcome.config["init_from"] == "runs/first"
    assert str(tmp_path) not in (tmp_path / "cells" / "second.json").read_text()


@pytest.mark.parametrize(
    "compress",
    [("qat", "--delay", "0.5"), ("prune-qat", "--sparsity", "0.5"), ("vnq",), ("qabp", "--sparsity", "0.3")],
    ids=" ".join,
)
def test_the_outcome_of_a_compressor_is_written_and_read(compress: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    cell = dataclasses.replace(CELL, train=(*CELL.train, "--compress", *compress))
    work._work(cell, tmp_path)
    outcome = Outcome.load(tmp_path / "cells" / "cell.json")
    assert outcome.config["compress"] is not None
    # A controller does not get as far in so short a training.
    assert outcome.complete == (compress[0] != "qabp")
