"""One cell, in this process."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from edge.errors import UserError
from edge.records import from_plain
from tfqrl import agents
from tfqrl.runs import Run, RunError
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
    is_baseline=False,
    keep="last",
)


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_policy_that_is_to_be_kept_is_converted_and_played(keep: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    cell = dataclasses.replace(CELL, keep=keep)
    run = work._trained(cell, tmp_path)
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


@pytest.mark.parametrize("normalize", [(), ("--normalize-observation",)])
def test_what_is_passed_on_is_all_that_a_training_begins_with(normalize: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    first = dataclasses.replace(CELL, name="first", is_baseline=True, train=(*CELL.train, *normalize))
    work._work(first, tmp_path)
    small = tmp_path / "policies" / "first"
    assert (small / "checkpoint.npz").stat().st_size < (tmp_path / "runs" / "first" / "checkpoint.npz").stat().st_size
    run = work._trained(dataclasses.replace(first, name="second", begins_with="first", is_baseline=False), tmp_path)
    algorithm, config = run.algorithm, {**run.config, "init_from": str(tmp_path / "runs" / "first")}
    whole = Run.create(tmp_path / "whole", algorithm, from_plain(agents.get(algorithm).config, config, "config"))
    train = agents.get(algorithm).train
    assert train is not None
    train(whole)
    ours, theirs = run.load_checkpoint(), whole.load_checkpoint()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_an_outcome_names_the_policy_it_begins_with_by_its_place_in_the_study(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    second = dataclasses.replace(CELL, name="second", begins_with="first")
    with pytest.raises(UserError, match=r"policies/first is not there.*Remove cells/first.json"):
        work._work(second, tmp_path)
    work._work(dataclasses.replace(CELL, name="first", is_baseline=True), tmp_path)
    work._work(second, tmp_path)
    outcome = Outcome.load(tmp_path / "cells" / "second.json")
    assert outcome.config["init_from"] == "policies/first"
    assert outcome.origin_sha256 == Run.open(tmp_path / "policies" / "first").fingerprint()
    assert str(tmp_path) not in (tmp_path / "cells" / "second.json").read_text()
    assert not (tmp_path / "policies" / "second").exists()


def test_a_training_that_was_cut_short_goes_on_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "runs").mkdir(parents=True)
    work._work(dataclasses.replace(CELL, name="first", is_baseline=True), old)
    second = dataclasses.replace(CELL, name="second", begins_with="first")
    work._trained(second, old)
    old.rename(new)
    run = work._trained(second, new)
    assert run.config["init_from"] == str(new / "policies" / "first")
    with pytest.raises(UserError, match="was trained with other options"):
        work._trained(dataclasses.replace(second, train=(*second.train, "--tau", "0.5")), new)


def test_a_policy_that_is_passed_on_cannot_be_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    work._work(dataclasses.replace(CELL, name="first", is_baseline=True), tmp_path)
    run = Run.open(tmp_path / "policies" / "first")
    train = agents.get(run.algorithm).train
    assert train is not None
    with pytest.raises(RunError, match="Begin anew with --init-from"):
        train(run)


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
    assert outcome.complete
