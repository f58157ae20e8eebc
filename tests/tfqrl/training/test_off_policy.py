import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)

from edge.errors import UserError
from tfqrl import agents, cli
from tfqrl.replay import Transitions, UniformReplay
from tfqrl.runs import Run, State
from tfqrl.training import session
from tfqrl.training.config import OffPolicyConfig

SMALL: dict[str, Any] = {
    "steps": 512,
    "seed": 3,
    "replay_size": 400,
    "learning_starts": 64,
    "updates_per_call": 16,
    "batch_size": 16,
    "hidden": (16, 16),
    "save_replay": True,
    "checkpoint_period_s": 0.0,
}

# Short episodes, so that a checkpoint falls into some and others end before and after it.
VARIANTS = {
    "sac": {"env": "Pendulum-v1"},
    "td3": {"env": "HalfCheetah-v5", "normalize_observation": True, "num_envs": 2},
    "ddpg": {"env": "toys/CutOff-v0", "n_step": 3},
    "d4pg": {"env": "Pendulum-v1", "n_step": 5},
    "dqn": {"env": "CartPole-v1", "prioritized": True, "n_step": 2, "update_every": 1},
    "dqn frames": {"env": "toys/Blob-v0", "dueling": True, "update_every": 4, "updates_per_call": 4, "steps": 160},
}


def trained(path: Path, algorithm: str, config: OffPolicyConfig) -> Run:
    run = Run.create(path, algorithm, config)
    agents.get(algorithm).train(run)
    return run


def small(variant: str, **changes: Any) -> tuple[str, Any]:
    algorithm = variant.split()[0]
    return algorithm, agents.get(algorithm).config(**{**SMALL, **VARIANTS[variant], **changes})


def without_times(run: Run) -> list[dict[str, float]]:
    return [{k: v for k, v in r.items() if k not in ("steps_per_s", "elapsed_s")} for r in run.metrics()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, config = small(variant)
    save, saves = Run.save_checkpoint, 0

    def save_and_copy_what_a_kill_would_leave(run: Run, state: State) -> None:
        nonlocal saves
        save(run, state)
        saves += 1
        if saves == 5:
            shutil.copytree(run.path, tmp_path / "killed")

    with monkeypatch.context() as patch:
        patch.setattr(session, "CHECKPOINT_SHARE", math.inf)
        patch.setattr(Run, "save_checkpoint", save_and_copy_what_a_kill_would_leave)
        whole = trained(tmp_path / "whole", algorithm, config)
    run = Run.open(tmp_path / "killed")
    assert 0 < int(run.load_checkpoint()["steps"]) < config.steps
    agents.get(algorithm).train(run)

    expected, resumed = whole.load_checkpoint(), run.load_checkpoint()
    assert expected.keys() == resumed.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)
    assert without_times(whole) == without_times(run)
    assert "loss" in " ".join(whole.metrics()[-1])


@pytest.fixture
def eager() -> Iterator[None]:
    """Updates that are not compiled, which takes longer than a few of them."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


FEW: dict[str, Any] = {
    "steps": 72,
    "updates_per_call": 2,
    "update_every": 4,
    "hidden": (8,),
    "checkpoint_period_s": 1e6,
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("variant", ["sac", "td3", "ddpg", "d4pg", "dqn"])
def test_what_is_trained_in_bfloat16_is_deployed_in_float32(variant: str, tmp_path: Path) -> None:
    algorithm, config = small(variant, **FEW, precision="bfloat16")
    run = trained(tmp_path / "run", algorithm, config)
    assert all(np.isfinite(value) for value in run.metrics()[-1].values())
    state = run.load_checkpoint()
    assert {str(array.dtype) for name, array in state.items() if name.startswith("policy/")} == {"float32"}
    network, spec = agents.load_policy(run)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    observation = np.random.default_rng(0).normal(size=(5, *spec.observation.shape)).astype(np.float32)
    x = observation
    for layer, (kernel, bias) in enumerate((state[f"policy/{i}"], state[f"policy/{i + 1}"]) for i in (0, 2)):
        x = x @ kernel + bias
        x = np.maximum(x, 0) if layer == 0 else x
    if algorithm != "dqn":
        x = np.tanh(x[:, : spec.action.shape[0]])
    np.testing.assert_allclose(network(observation), x, atol=1e-5)
    fresh = trained(
        tmp_path / "fresh", *small(variant, **{**FEW, "steps": 8, "learning_starts": 8}, precision="bfloat16")
    )
    assert not np.array_equal(fresh.load_checkpoint()["policy/0"], state["policy/0"]), "it has learnt nothing"


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("variant", ["sac", "td3", "ddpg", "d4pg", "dqn"])
def test_a_batch_with_nan_ends_the_training_with_a_sentence_and_keeps_the_checkpoint(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, config = small(variant, **FEW)
    run = trained(tmp_path / "run", algorithm, config)
    good = (run.path / "checkpoint.npz").read_bytes()
    replay_type = type(config.make_replay(agents.load_policy(run)[1]))
    sample = replay_type.sample

    def sample_nan(replay: UniformReplay, *arguments: Any) -> Transitions:
        batch = sample(replay, *arguments)
        batch.reward[-1, -1] = np.nan
        return batch

    monkeypatch.setattr(replay_type, "sample", sample_nan)
    loss = "loss" if algorithm == "dqn" else "critic_loss"
    run = run.reconfigured(small(variant, **{**FEW, "steps": 160})[1])
    with pytest.raises(UserError, match=rf"diverged at 80 steps: .* is {loss}\. The checkpoint of 72 steps is kept\."):
        agents.get(algorithm).train(run)
    assert (run.path / "checkpoint.npz").read_bytes() == good


@pytest.mark.parametrize(("option", "value"), [("--replay-size", "399"), ("--n-step", "2"), ("--tau", "0.1")])
def test_a_run_is_not_resumed_with_other_options(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.create(tmp_path / "run", *small("sac"))
    before = (run.path / "config.json").read_bytes()
    assert cli.main(["train", "sac", "--out", str(run.path), "--resume", option, value]) == 2
    name = option[2:].replace("-", "_")
    assert f"The run was trained with {name} {run.config[name]}; --resume keeps" in capsys.readouterr().err
    assert (run.path / "config.json").read_bytes() == before
