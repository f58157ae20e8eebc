"""Policies whose returns are known: on toys/Match-v0 an action that is off by b returns -b^2."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)
from fakes import DATA
from untrained import make_run

from converters import RECIPES, convert
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.records import from_plain
from tfqrl import cli, paired_evaluation
from tfqrl.networks import mlp
from tfqrl.options import Margin
from tfqrl.paired_evaluation import Evaluation, disagreement

MATCH = PolicySpec(ObservationSpec((1,), (-1.0,), (1.0,)), ActionSpec((1,), (-1.0,), (1.0,)), None, None)
CART_POLE = PolicySpec(ObservationSpec((4,), (None,) * 4, (None,) * 4), ActionSpec((), (), (), 2), 50.0, None)
OBSERVATIONS = np.random.default_rng(0).uniform(-0.8, 0.8, (200, 4)).astype(np.float32)


def linear(folder: Path, name: str, spec: PolicySpec, kernel, bias, env: str | None, recipe: str = "float32") -> str:
    """A policy file of one layer."""
    network = mlp(spec.observation.shape[0], (), len(bias))
    network.set_weights([np.array(kernel, np.float32), np.array(bias, np.float32)])
    observations = OBSERVATIONS[:, : spec.observation.shape[0]]
    conversion = convert(network, spec, recipe, observations, name=name, training={"env": env} if env else {})
    conversion.save(folder / f"{name}.tflite")
    return str(folder / f"{name}.tflite")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policies")
    linear(folder, "exact", MATCH, [[1.0]], [0.0], "toys/Match-v0")
    linear(folder, "off", MATCH, [[1.0]], [0.1], "toys/Match-v0")
    linear(folder, "weak", MATCH, [[0.5]], [0.0], "toys/Match-v0")
    linear(folder, "nowhere", MATCH, [[1.0]], [0.0], None)
    linear(folder, "left", CART_POLE, np.zeros((4, 2)), [1.0, 0.0], "CartPole-v1")
    linear(folder, "right", CART_POLE, np.zeros((4, 2)), [0.0, 1.0], "CartPole-v1")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_run(tmp_path_factory.mktemp("runs") / "run", "toys/Match-v0")


def evaluated(path: Path, *words: str) -> tuple[int, Evaluation]:
    out = path / "evaluation.json"
    code = cli.main(["evaluate", *words, "--json", str(out)])
    return code, from_plain(Evaluation, json.loads(out.read_text()), "evaluation")


@pytest.mark.parametrize(
    ("margin", "code", "verdict", "says"),
    [("0.02", 0, "equivalent", "Equivalent: the 90 % interval"), ("0.005", 1, "worse", "B is worse: the 90 %")],
)
def test_a_known_difference_is_judged_by_the_margin(
    folder: Path, tmp_path: Path, margin: str, code: int, verdict: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = str(folder / "exact.tflite"), str(folder / "off.tflite")
    found_code, found = evaluated(tmp_path, *paths, "--episodes", "6", "--margin", margin, "--seed", "40")
    assert found_code == code
    assert found.pair is not None
    assert (found.pair.verdict, found.pair.margin) == (verdict, float(margin))
    assert found.pair.difference.value == pytest.approx(-0.01, rel=1e-4)
    assert found.pair.verdict_interval == pytest.approx((-0.01, -0.01), rel=1e-3)
    assert found.pair.along_a.mean == pytest.approx((0.1,), rel=1e-4)
    assert found.pair.along_b.max == pytest.approx((0.1,), rel=1e-4)
    assert [played.recipe for played in found.policies] == ["float32", "float32"]
    np.testing.assert_allclose(found.policies[0].returns, 0.0, atol=1e-9)
    np.testing.assert_allclose(found.policies[1].returns, -0.01, rtol=1e-4)
    assert found.policies[1].lengths == (1,) * 6
    assert (found.env, found.first_seed) == ("toys/Match-v0", 40)
    assert found.command[:3] == ("tfqrl", "evaluate", paths[0])
    assert "scipy" in found.versions
    printed = capsys.readouterr().out
    assert says in printed
    assert "6 episodes of toys/Match-v0, seeds 40 to 45" in printed


def test_where_the_interval_reaches_across_the_margin_nothing_is_shown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder / "off.tflite"), str(folder / "weak.tflite"), "--episodes", "10"]
    _, found = evaluated(tmp_path, *words, "--margin", "1")
    assert found.pair is not None
    margin = abs(found.pair.difference.value)
    code, found = evaluated(tmp_path, *words, "--margin", str(margin))
    assert code == 1
    assert found.pair is not None
    assert found.pair.verdict == "undecided"
    assert "Not shown to be equivalent" in capsys.readouterr().out


def test_a_percentage_is_one_of_the_first_policys_return(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder / "off.tflite"), str(folder / "exact.tflite"), "--episodes", "3"]
    code, found = evaluated(tmp_path, *words, "--margin", "50%")
    assert found.pair is not None
    assert found.pair.margin == pytest.approx(0.005, rel=1e-3)
    assert (code, found.pair.verdict) == (1, "better")
    assert "B is better: the 90 % interval" in capsys.readouterr().out


def test_choices_that_differ_are_counted_and_the_first_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(folder / "left.tflite"), str(folder / "right.tflite"), "--episodes", "4"]
    _, found = evaluated(tmp_path, *words)
    assert found.pair is not None
    along = found.pair.along_a
    assert (along.other_choices, along.first_step, along.mean) == (1.0, 1.0, None)
    # Whoever always pushes one way falls over within a dozen steps.
    assert all(played.mean.value < 13 for played in found.policies)
    assert along.steps == sum(found.policies[0].lengths)
    assert "100.00% other choices, first on step 1 (median)" in capsys.readouterr().out
    code, found = evaluated(tmp_path, words[0], words[0], "--episodes", "4")
    assert code == 0
    assert found.pair is not None
    assert (found.pair.along_b.other_choices, found.pair.along_b.first_step) == (0.0, None)
    assert "never in half of the episodes" in capsys.readouterr().out


def test_the_first_other_choice_is_that_of_the_median_episode() -> None:
    def choices(batch: np.ndarray) -> np.ndarray:
        return batch[:, 0].astype(int)

    def never(batch: np.ndarray) -> np.ndarray:
        return np.zeros(len(batch), int)

    def first(*steps: int | None) -> float | None:
        episodes = [np.array([[float(i + 1 == step)] for i in range(9)]) for step in steps]
        return disagreement(choices, never, episodes, CART_POLE.action).first_step

    assert first(3, 9, 5) == 5.0
    assert first(3, 4) == 3.5
    assert first(3, None, 5) == 5.0
    assert first(3, None) is None
    assert first(None, None) is None


def test_disagreement_is_a_fraction_of_each_elements_own_range() -> None:
    spec = ActionSpec((2,), (-1.0, 0.0), (1.0, 8.0))
    episodes = [np.zeros((2, 1)), np.zeros((1, 1))]
    found = disagreement(
        lambda batch: np.zeros((len(batch), 2)), lambda batch: np.tile([0.5, 1.0], (len(batch), 1)), episodes, spec
    )
    assert (found.steps, found.mean, found.max) == (3, (0.5, 0.25), (0.5, 0.25))
    assert "50.00%, 25.00% of half their range" in str(found)


def test_a_run_and_its_own_file_are_equivalent_and_one_alone_gives_its_returns(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = str(tmp_path / "policy.tflite")
    assert cli.main(["convert", run, "--recipe", "float32", "--episodes", "3", "--out", policy]) == 0
    code, found = evaluated(tmp_path, run, policy, "--episodes", "3")
    assert code == 0
    assert [played.recipe for played in found.policies] == ["run", "float32"]
    assert found.policies[0].sha256 is None
    np.testing.assert_allclose(found.policies[0].returns, found.policies[1].returns, atol=1e-5)
    capsys.readouterr()
    code, alone = evaluated(tmp_path, run, "--episodes", "3")
    assert (code, alone.pair) == (0, None)
    assert alone.policies[0].returns == found.policies[0].returns
    assert "mean return" in capsys.readouterr().out


def test_observations_are_kept_only_while_two_are_compared_on_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, off = str(folder / "exact.tflite"), str(folder / "off.tflite")
    kept: list[int] = []
    play = paired_evaluation.play

    def noting(*arguments: Any, **options: Any) -> Any:
        played = play(*arguments, **options)
        kept.append(len(played.observations))
        return played

    monkeypatch.setattr(paired_evaluation, "play", noting)
    _, alone = evaluated(tmp_path, exact, "--episodes", "3")
    assert alone.policies[0].lengths == (1, 1, 1)
    evaluated(tmp_path, exact, off, "--episodes", "3")
    assert kept == [0, 3, 3]


@pytest.mark.parametrize("recipe", RECIPES)
def test_files_of_any_recipe_play(recipe: str, folder: Path, tmp_path: Path) -> None:
    other = linear(tmp_path, recipe, MATCH, [[1.0]], [0.0], "toys/Match-v0", recipe)
    words = [str(folder / "exact.tflite"), other, "--episodes", "3", "--margin", "0.01"]
    code, found = evaluated(tmp_path, *words)
    assert code == 0
    assert found.policies[1].recipe == recipe
    assert found.pair is not None
    assert found.pair.along_a.max is not None
    # One weight of 1 is exact at any number of bits; what flows through it is off by a step or two of 255.
    assert found.pair.along_a.max[0] < 0.03
    if recipe in ("int8", "int8-full"):
        assert found.pair.along_a.max[0] > 1e-4, "an integer policy that equals the float one was not quantised"


def test_a_policy_that_gives_its_logits_plays_the_choices(tmp_path: Path) -> None:
    run, policy = make_run(tmp_path / "run", "CartPole-v1"), str(tmp_path / "policy.tflite")
    words = ["convert", run, "--out", policy, "--recipe", "float32", "--logits", "--episodes", "3"]
    assert cli.main(words) == 0
    code, found = evaluated(tmp_path, run, policy, "--episodes", "3")
    assert code == 0
    assert found.policies[0].returns == found.policies[1].returns
    assert found.pair is not None
    assert found.pair.along_a.other_choices == 0.0


def test_where_no_policy_names_an_environment_one_has_to_be_given(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(folder / "nowhere.tflite")
    assert cli.main(["evaluate", nowhere, "--episodes", "2"]) == 2
    assert f"{nowhere} does not say where it was trained. Name an environment: --env ENV." in capsys.readouterr().err
    code, found = evaluated(tmp_path, nowhere, "--episodes", "2", "--env", "toys/Match-v0")
    assert (code, found.env) == (0, "toys/Match-v0")
    # What the other one names is taken.
    code, found = evaluated(tmp_path, nowhere, str(folder / "exact.tflite"), "--episodes", "2")
    assert (code, found.env) == (0, "toys/Match-v0")


def test_policies_of_different_tasks_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact, left = str(folder / "exact.tflite"), str(folder / "left.tflite")
    assert cli.main(["evaluate", exact, left]) == 2
    assert f"{exact} was trained in toys/Match-v0, {left} in CartPole-v1." in capsys.readouterr().err
    assert cli.main(["evaluate", exact, left, "--env", "CartPole-v1"]) == 2
    message = capsys.readouterr().err
    assert f"{exact} is not for CartPole-v1: it observes 1 numbers" in message
    assert "the environment 4 numbers" in message
    assert cli.main(["evaluate", exact, "--env", "toys/Shifted-v0"]) == 2
    assert "acts by 1 numbers (-1..1), the environment by 1 numbers (3..7)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["x", "--episodes", "1"], 2, "--episodes must be at least 2 to give an interval"),
        (["x", "--episodes", "1000000"], 2, "--episodes must be at least 2 to give an interval, and at most 100000"),
        (["x", "--margin", "2 percent"], 2, "--margin takes a percentage of the mean return, such as 2%"),
        (["x", "--margin", "-5"], 2, "--margin takes"),
        (["x", "--margin", "nan%"], 2, "--margin takes"),
        (["x", "--seed", "-1"], 2, "--seed must lie in 0..2^53 - 1; it was given -1."),
        (["x", "--sead", "1"], 2, "Unknown option '--sead'. Did you mean '--seed'?"),
        ([str(DATA)], 1, f"{DATA} is not a run"),
        (["no-such-file"], 1, "Cannot read no-such-file"),
        ([str(DATA / "arm.onnx")], 1, f"{DATA / 'arm.onnx'} is not a TFLite file"),
        ([str(DATA / "arm-int8.tflite"), "--env", "Arm-v0"], 2, "Unknown environment 'Arm-v0'."),
    ],
)
def test_what_cannot_be_evaluated_is_answered_in_a_sentence(
    words: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", *words]) == code
    captured = capfd.readouterr()
    assert f"tfqrl: {message}" in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_ctrl_c_leaves_nothing_half_done(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(paired_evaluation, "disagreement", interrupted)
    paths = [str(folder / "exact.tflite"), str(folder / "off.tflite")]
    out = tmp_path / "evaluation.json"
    assert cli.main(["evaluate", *paths, "--episodes", "2", "--json", str(out)]) == 130
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in capsys.readouterr().err


def test_margins_are_returns_or_fractions_of_one() -> None:
    assert Margin.parse("2%").beside(-300.0) == pytest.approx(6.0)
    assert Margin.parse("50").beside(-300.0) == 50.0
    assert Margin.parse("2%").beside(0.0) == 0.0
