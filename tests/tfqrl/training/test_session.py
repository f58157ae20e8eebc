import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from training import assert_same_training, curve, train, trained, trained_in_two

from edge.errors import UserError
from tfqrl import agents, evaluate
from tfqrl.agents.a2c import A2C, A2CConfig
from tfqrl.agents.ppo import PPO, PPOConfig
from tfqrl.compress import QAT
from tfqrl.runs import Run, RunError
from tfqrl.training.session import Session

SMALL = PPOConfig(
    env="Pendulum-v1", steps=1024, num_envs=4, rollout_steps=64, batch_size=64, epochs=2, hidden=(16,), seed=3
)
SMALL_A2C = A2CConfig(env="CartPole-v1", steps=640, num_envs=4, rollout_steps=8, hidden=(16,), seed=3)


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "a", SMALL), trained(tmp_path / "b", SMALL)
    other = trained(tmp_path / "c", dataclasses.replace(SMALL, seed=4))
    assert_same_training(first, second)
    assert not np.array_equal(first.load_checkpoint()["policy/0"], other.load_checkpoint()["policy/0"])


@pytest.mark.parametrize(
    ("config", "agent_type", "updates"),
    [
        (dataclasses.replace(SMALL, env="CartPole-v1"), PPO, 2),
        (dataclasses.replace(SMALL, env="InvertedPendulum-v5"), PPO, 1),
        (SMALL_A2C, A2C, 7),
        (dataclasses.replace(SMALL_A2C, env="InvertedPendulum-v5"), A2C, 13),
        (PPOConfig(env="toys/Blob-v0", steps=64, num_envs=2, rollout_steps=8, batch_size=8, epochs=2), PPO, 2),
    ],
    ids=["ppo-CartPole", "ppo-MuJoCo", "a2c-CartPole", "a2c-MuJoCo", "ppo-frames"],
)
def test_a_run_that_is_stopped_and_resumed_equals_one_that_was_not(
    config: Any, agent_type: Any, updates: int, tmp_path: Path
) -> None:
    whole = trained(tmp_path / "whole", config)
    assert int(whole.load_checkpoint()["steps"]) == config.steps
    assert_same_training(whole, trained_in_two(tmp_path / "in two", config, agent_type, updates))


def test_a_checkpoint_that_lacks_something_or_does_not_fit_is_refused_and_kept(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", SMALL)
    whole = run.load_checkpoint()
    without = {name: array for name, array in whole.items() if name != "env/number"}
    for state in (without, {**whole, "policy/0": np.zeros((2, 2), np.float32)}):
        run.save_checkpoint(state)
        with pytest.raises(RunError, match=r"cannot be gone on with: .* Begin a new run with another --out"):
            train(run)
        assert run.load_checkpoint().keys() == state.keys()


KILLED = """
import os, signal, sys
from training import train
from tfqrl.agents.ppo import PPO
from tfqrl.runs import Run, RunError

update, calls = PPO.update, 0
def update_and_die(*arguments):
    global calls
    calls += 1
    if calls == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*arguments)
PPO.update = update_and_die
train(Run.open(sys.argv[1]))
"""


def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    # A period of 0 saves as soon as saving takes no more than its share of the time: here after the slow first update.
    config = dataclasses.replace(SMALL, env="InvertedPendulum-v5", checkpoint_period_s=0.0)
    killed = Run.create(tmp_path / "killed", "ppo", config)
    support = Path(__file__).parents[2] / "support"
    process = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(support)!r})\n{KILLED}", str(killed.path)],
        check=False,
        timeout=300,
    )
    assert process.returncode == -signal.SIGKILL
    assert killed.has_checkpoint()
    assert 256 <= int(killed.load_checkpoint()["steps"]) < config.steps
    (killed.path / ".checkpoint.npz.half").write_bytes(b"what a kill in the middle of writing leaves")
    train(killed)
    assert_same_training(trained(tmp_path / "whole", config), killed)


def test_a_run_can_be_given_more_steps(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=512))
    assert int(run.load_checkpoint()["steps"]) == 512
    run = run.reconfigured(SMALL)
    train(run)
    after = run.load_checkpoint()
    assert int(after["steps"]) == 1024
    assert [record["steps"] for record in run.metrics()] == [256, 512, 768, 1024]
    assert after["moments/count"] == 1024, "the normaliser has seen what it saw before, and the rest"
    # Adam's step count went on too: 2 epochs x 4 batches x 4 iterations.
    assert 32 in [int(array) for name, array in after.items() if name.startswith("optimizer") and array.ndim == 0]


def test_a_run_at_its_end_is_saved_again_as_it_was(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=512))
    saved, metrics = run.load_checkpoint(), run.metrics()
    train(run)
    for name, array in run.load_checkpoint().items():
        np.testing.assert_array_equal(array, saved[name], err_msg=name)
    assert run.metrics() == metrics


def test_elapsed_time_goes_on_when_a_run_is_resumed(tmp_path: Path) -> None:
    run = trained_in_two(tmp_path / "run", SMALL, PPO, 2)
    elapsed_s = [record["elapsed_s"] for record in run.metrics()]
    assert elapsed_s == sorted(elapsed_s)
    assert elapsed_s[2] > elapsed_s[1], "the first after the resume is not counted from 0"


def test_evaluation_during_training_does_not_change_the_training(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", SMALL)
    evaluated = trained(tmp_path / "evaluated", dataclasses.replace(SMALL, evaluate_every=512, evaluation_episodes=2))
    for name, array in plain.load_checkpoint().items():
        np.testing.assert_array_equal(array, evaluated.load_checkpoint()[name], err_msg=name)
    shown = [{name for name in record if name.startswith("evaluation")} for record in evaluated.metrics()]
    assert shown == [set(), {"evaluation_return", "evaluation_return_std"}] * 2
    without = [{k: v for k, v in record.items() if not k.startswith("evaluation")} for record in curve(evaluated)]
    assert without == curve(plain)


def test_the_policy_that_was_evaluated_best_is_kept(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, evaluate_every=256, evaluation_episodes=2)
    returns = iter([1.0, 3.0, 3.0, 2.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "play", lambda *_, **__: SimpleNamespace(returns=np.full(2, next(returns))))
        run = trained(tmp_path / "run", config)
    best = run.best.load_checkpoint()
    assert (best["steps"], best["evaluation_return"]) == (512, 3.0)
    network, _ = agents.load_policy(Run.open(run.path / "best"))
    for i, array in enumerate(network.get_weights()):
        np.testing.assert_array_equal(array, best[f"policy/{i}"])
    with pytest.raises(RunError, match=r"best policy of a training .* --init-from"):
        agents.get("ppo").train(run.best.reconfigured(dataclasses.replace(config, steps=2048)))


def test_the_best_of_what_a_resumed_run_goes_through_again_is_forgotten(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, steps=512)
    run = trained(tmp_path / "run", config)
    for steps, kept in ((512, True), (768, False)):
        state = run.load_checkpoint()
        run.save_best(state | {"steps": np.array(steps), "evaluation_return": np.array(9.0)})
        with Session(run, config, PPO):
            pass
        assert run.best.has_checkpoint() == kept


def test_of_compressed_policies_the_best_is_one_that_is_complete(tmp_path: Path) -> None:
    # Returns fall, and the first evaluations are of a policy that is not on its grid yet.
    config = dataclasses.replace(SMALL, evaluate_every=256, evaluation_episodes=2, compress=QAT(delay=0.5))
    returns = iter([4.0, 3.0, 2.0, 1.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "play", lambda *_, **__: SimpleNamespace(returns=np.full(2, next(returns))))
        run = trained(tmp_path / "run", config)
    first = next(record["steps"] for record in run.metrics() if record["on_grid"] == 1.0)
    assert run.best.load_checkpoint()["steps"] == first > 256


def test_a_training_that_diverges_says_where_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=512))
    good = (run.path / "checkpoint.npz").read_bytes()
    run = run.reconfigured(SMALL)
    update = PPO.update

    def break_and_update(agent: PPO, *arguments: Any) -> Any:
        variable = agent.variables["distribution"][0]
        variable.assign(tf.fill(variable.shape, float("nan")))
        return update(agent, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PPO, "update", break_and_update)
        with pytest.raises(UserError, match=r"diverged at 768 steps: the first tensor with NaN or .* is \w+_loss"):
            train(run)
    assert (run.path / "checkpoint.npz").read_bytes() == good
    train(run)  # it goes on from there


def test_weights_that_break_after_the_losses_were_computed_are_not_acted_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "ppo", SMALL)
    update = PPO.update

    def update_and_break(agent: PPO, *arguments: Any) -> Any:
        metrics = update(agent, *arguments)
        agent.policy.variables[2].assign(tf.fill((16, 1), float("inf")))
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PPO, "update", update_and_break)
        with pytest.raises(UserError, match=r"diverged at 256 steps: .* infinity is policy/2\. Begin again"):
            train(run)
    assert not run.has_checkpoint()


def test_what_no_metric_shows_yet_does_not_replace_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=512))
    good = (run.path / "checkpoint.npz").read_bytes()
    update = PPO.update

    def update_and_break(agent: PPO, *arguments: Any) -> Any:
        metrics = update(agent, *arguments)
        agent.value.variables[0].assign(tf.fill((3, 16), float("nan")))
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PPO, "update", update_and_break)
        with pytest.raises(UserError, match=r"diverged at 768 .* is value/0\. The checkpoint of 512 steps is kept"):
            train(run.reconfigured(dataclasses.replace(SMALL, steps=768)))
    assert (run.path / "checkpoint.npz").read_bytes() == good


def test_training_stops_early_at_the_target_return(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, env="toys/Match-v0", steps=100_000, target_return=-100.0)
    run = trained(tmp_path / "run", config)
    assert int(run.load_checkpoint()["steps"]) == 256
    run = trained(tmp_path / "other", dataclasses.replace(config, steps=1024, target_return=0.1))
    assert int(run.load_checkpoint()["steps"]) == 1024


def test_a_training_that_stops_early_is_reported_and_evaluated_as_it_ends(tmp_path: Path) -> None:
    config = dataclasses.replace(
        SMALL, env="toys/Match-v0", steps=1_000_000, target_return=-100.0, evaluate_every=500_000
    )
    run = trained(tmp_path / "run", config)
    (record,) = run.metrics()
    assert (record["steps"], "evaluation_return" in record) == (256, True)
    train(run)
    assert int(run.load_checkpoint()["steps"]) == 256, "what has its target return is not trained further"


def test_a_checkpoint_of_other_networks_is_refused_with_a_sentence(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=256))
    for changed in (dataclasses.replace(SMALL, hidden=(8,)), dataclasses.replace(SMALL, hidden=(16, 16, 16))):
        with pytest.raises(
            RunError, match=r"something else than its config\.json says.*Begin a new run with another --out\."
        ):
            train(run.reconfigured(changed))


def test_the_restored_policy_is_the_one_that_acted(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", SMALL)
    network, spec = agents.load_policy(run)
    state = run.load_checkpoint()
    np.testing.assert_array_equal(network.weights[0].numpy(), state["policy/0"])
    assert spec.normalizer is not None
    np.testing.assert_allclose(spec.normalizer.mean, state["moments/mean"], rtol=1e-6)
    assert spec.action.high == (2.0,)


def test_a_policy_that_was_trained_in_bfloat16_is_deployed_in_float32(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", dataclasses.replace(SMALL, steps=256, precision="bfloat16"))
    network, _ = agents.load_policy(run)
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}


def test_the_run_folder_holds_scalars_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = trained(tmp_path / "run", SMALL)
    events = EventAccumulator(str(run.path))
    events.Reload()
    shown = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors("return")]
    assert shown == [(r["steps"], pytest.approx(r["return"])) for r in run.metrics() if "return" in r]
    assert shown
