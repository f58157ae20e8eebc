from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import toy_envs  # noqa: F401  (registers the toys)
from fakes import DATA
from training import assert_same_training, trained, trained_in_two
from untrained import make_run

from converters.export import DeployedPolicy
from converters.quantizers import is_on_grid
from converters.sources import sb3
from edge.errors import UsageError, UserError
from tfqrl import agents, cli, evaluate
from tfqrl.agents import imported
from tfqrl.agents.distill import Distill, DistillConfig
from tfqrl.agents.dqn import DQNConfig
from tfqrl.agents.ppo import PPOConfig
from tfqrl.compress import QAT
from tfqrl.envs import spec_of
from tfqrl.runs import Run

MATCH, CHOOSE, BLOB = "toys/Match-v0", "toys/Choose-v0", "toys/Blob-v0"
SMALL = DistillConfig(
    env=MATCH,
    hidden=(24, 16),
    steps=4000,
    num_envs=4,
    teacher_fraction=0.1,
    rollout_steps=20,
    updates=40,
    batch_size=64,
)


def student_of(teacher: str, env: str) -> Distill:
    return Distill(replace(SMALL, env=env, teacher=teacher), spec_of(env, None))


def agreement(teacher: str, student: Run, env: str) -> tuple[np.ndarray, np.ndarray]:
    """What the two do on what the student meets."""
    a, b = (DeployedPolicy(*agents.load_policy(run)) for run in (Run.open(teacher), student))
    met = np.concatenate(evaluate.play(b.act, env, first_seed=99, episodes=200).observations)
    return a.act(met), b.act(met)


def test_the_loss_of_actions_is_their_mean_squared_error(tmp_path: Path) -> None:
    student = student_of(make_run(tmp_path / "teacher", MATCH), MATCH)
    observation = np.linspace(-1, 1, 6, dtype=np.float32).reshape(1, 6, 1)
    before = student.policy(observation[0]).numpy()
    metrics = student.update(observation, np.full((1, 6, 1), 0.5, np.float32), 1e-3)
    assert float(metrics["loss"]) == pytest.approx(np.mean((before - 0.5) ** 2), rel=1e-5)
    assert float(metrics["disagreement"]) == pytest.approx(np.mean(np.abs(before - 0.5)), rel=1e-5)


def test_the_loss_of_choices_is_the_cross_entropy_with_the_teachers_probabilities(tmp_path: Path) -> None:
    student = student_of(make_run(tmp_path / "teacher", CHOOSE), CHOOSE)
    observation, target = np.zeros((1, 2, 2), np.float32), np.array([[[0.0, 0, 0], [np.log(2), 0, 0]]], np.float32)
    student.policy.layers[-1].set_weights([np.zeros((16, 3)), np.array([0.0, np.log(2), 0])])
    metrics = student.update(observation, target, 1e-3)
    # The student's probabilities are 1/4, 1/2, 1/4; the teacher's 1/3 each, and 1/2, 1/4, 1/4.
    expected = np.mean([np.log(4) * 2 / 3 + np.log(2) / 3, np.log(4) * 3 / 4 + np.log(2) / 4])
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["disagreement"]) == 1.0


def test_values_of_dqn_are_sharpened_and_logits_are_not(tmp_path: Path) -> None:
    config = DQNConfig(env=CHOOSE, hidden=(8,), steps=300, learning_starts=100, updates_per_call=1)
    values = trained(tmp_path / "dqn", config)
    observation = np.array([[1.0, 2.0]], np.float32)
    network, _ = agents.load_policy(values)
    np.testing.assert_allclose(
        student_of(str(values.path), CHOOSE).teach(observation), network(observation) / 0.01, rtol=1e-5
    )
    logits = make_run(tmp_path / "ppo", CHOOSE)
    network, _ = agents.load_policy(Run.open(logits))
    np.testing.assert_allclose(student_of(logits, CHOOSE).teach(observation), network(observation), rtol=1e-5)


def test_a_student_does_what_its_teacher_does(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "teacher", MATCH)
    student = trained(tmp_path / "student", replace(SMALL, teacher=teacher))
    theirs, its = agreement(teacher, student, MATCH)
    assert np.std(theirs) > 0.1
    assert np.abs(theirs - its).mean() < 0.02
    # While the teacher acted, the normaliser took in what was observed, and then no more.
    assert student.load_checkpoint()["moments/count"] == 400


def test_a_student_chooses_what_its_teacher_chooses(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "teacher", "CartPole-v1")
    student = trained(tmp_path / "student", replace(SMALL, env="CartPole-v1", teacher=teacher))
    theirs, its = agreement(teacher, student, "CartPole-v1")
    assert len(set(theirs.tolist())) > 1
    assert (theirs == its).mean() > 0.97


def test_a_teacher_is_asked_through_its_normaliser(tmp_path: Path) -> None:
    config = PPOConfig(env=MATCH, hidden=(8,), steps=512, num_envs=4, rollout_steps=32, normalize_observation=True)
    teacher = trained(tmp_path / "teacher", config)
    network, spec = agents.load_policy(teacher)
    assert spec.normalizer is not None
    observation = np.linspace(-0.8, 0.8, 9, dtype=np.float32)[:, None]
    acted = DeployedPolicy(network, spec).act(observation)
    np.testing.assert_allclose(student_of(str(teacher.path), MATCH).teach(observation), acted, atol=1e-6)
    assert np.abs(acted - np.clip(network(observation), -1, 1)).max() > 1e-3


def test_a_single_iteration_learns(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "teacher", MATCH)
    once = replace(SMALL, teacher=teacher, steps=80)
    student = trained(tmp_path / "student", once)
    untrained = student_of(teacher, MATCH).policy.get_weights()
    assert not np.array_equal(agents.load_policy(student)[0].get_weights()[0], untrained[0])


def test_a_compressed_student_learns_on_its_grids(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "teacher", MATCH)
    config = replace(SMALL, teacher=teacher, compress=QAT(weight_bits=4, activation_bits=4))
    student = trained(tmp_path / "student", config)
    network, _ = agents.load_policy(student)
    assert is_on_grid(network)
    theirs, its = agreement(teacher, student, MATCH)
    assert np.abs(theirs - its).mean() < 0.05


class Elsewhere(gymnasium.Env):
    """With the spaces of tests/data/sb3/ppo-normalized.zip, whose observations are drawn at random."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 7.0], np.float32))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self._observation(), 0.0, False, self._steps == 20, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.normal(0.0, 1.0, 3).astype(np.float32)


gymnasium.register("toys/Elsewhere-v0", Elsewhere)


def test_a_teacher_may_be_a_policy_of_stable_baselines3(tmp_path: Path) -> None:
    env, files = "toys/Elsewhere-v0", DATA / "sb3"
    teacher = str(tmp_path / "teacher")
    foreign = sb3.load(files / "ppo-normalized.zip", files / "ppo-normalized.pkl")
    imported.create_run(teacher, foreign, env)
    config = replace(SMALL, env=env, teacher=teacher, compress=QAT(), updates=80)
    student = trained(tmp_path / "student", config)
    theirs, its = agreement(teacher, student, env)
    # Of ranges of 3 and 6.5.
    assert (theirs.std(axis=0) > 0.3).all()
    assert (np.abs(theirs - its).mean(axis=0) < [0.06, 0.13]).all()


def test_frames_are_learnt_from_bytes(tmp_path: Path) -> None:
    config = PPOConfig(env=BLOB, steps=64, num_envs=2, rollout_steps=32, batch_size=64, epochs=1)
    teacher = trained(tmp_path / "teacher", config)
    few = replace(SMALL, env=BLOB, teacher=str(teacher.path), steps=160, teacher_fraction=0.5, updates=2, batch_size=8)
    student = trained(tmp_path / "student", few)
    assert tf.math.is_finite(student.metrics()[-1]["loss"])
    network, spec = agents.load_policy(student)
    assert spec.observation.frames
    assert network.output_shape == (None, 3)


def test_a_resumed_distillation_equals_one_that_was_not_cut(tmp_path: Path) -> None:
    config = replace(SMALL, teacher=make_run(tmp_path / "teacher", MATCH), steps=1600)
    whole = trained(tmp_path / "whole", config)
    assert_same_training(whole, trained_in_two(tmp_path / "cut", config, Distill, 8))


def test_the_command_finds_the_environment_and_names_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = make_run(tmp_path / "teacher", MATCH)
    words = [
        "--out",
        str(tmp_path / "student"),
        "--hidden",
        "8",
        "--num-envs",
        "4",
        "--updates",
        "2",
        "--steps",
        "512",
        "--compress",
        "prune",
    ]
    assert cli.main(["distill", teacher, *words]) == 0
    run = Run.open(tmp_path / "student")
    assert (run.algorithm, run.config["env"], run.config["hidden"]) == ("distill", MATCH, [8])
    assert run.config["compress"]["method"] == "prune"
    capsys.readouterr()
    assert cli.main(["distill", "--out", str(run.path), "--resume"]) == 0
    assert "To train it further" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["distill"], "Name a teacher"),
        (["distill", "nowhere"], "nowhere is not a run"),
        (["distill", "nowhere", "--out", "x", "--resume"], "the run's own teacher"),
        (["train", "distill", "--env", MATCH], "by `tfqrl distill TEACHER"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) in (1, 2)
    assert sentence in capsys.readouterr().err


def test_a_teacher_of_another_environment_is_refused(tmp_path: Path) -> None:
    teacher = make_run(tmp_path / "teacher", CHOOSE)
    with pytest.raises(UserError, match="The teacher"):
        student_of(teacher, MATCH)
    with pytest.raises(UsageError, match="needs a teacher"):
        student_of("", MATCH)
