import re
import subprocess
import sys
from pathlib import Path

import pytest
import toy_envs  # noqa: F401  (registers the toys)

from tfqrl import agents, cli, zoo
from tfqrl.options import value_of
from tfqrl.runs import Run

TINY = ["--steps", "256", "--epochs", "1", "--hidden", "8"]
NOTICE = "Tuned configuration of the zoo for ppo on CartPole-v1: "


def train(folder: Path, *words: str) -> dict:
    assert cli.main(["train", "ppo", *words, *TINY, "--out", str(folder)]) == 0
    return Run.open(folder).config


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--env", "A"], "A"),
        (["--env=A"], "A"),
        (["--env=A=B"], "A=B"),
        (["--env", "A", "--env=B"], "B"),
        (["--env=B", "--seed", "1", "--env", "A"], "A"),
        (["--env="], ""),
        (["--env"], None),
        (["--env", "--seed", "1"], None),
        (["--seed", "1"], None),
        (["--env-module", "A"], None),
        ([], None),
    ],
)
def test_an_option_is_found_before_words_are_parsed(words: list[str], value: str | None) -> None:
    assert value_of(words, "--env") == value


@pytest.mark.parametrize("env", [["--env", "CartPole-v1"], ["--env=CartPole-v1"]])
def test_defaults_come_from_the_zoo_which_says_so(
    env: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = train(tmp_path / "run", *env)
    tuned = zoo.tuned("ppo", "CartPole-v1")
    given = {"steps": 256, "epochs": 1, "hidden": [8]}
    default = agents.get("ppo").config(env="CartPole-v1")
    for key, value in config.items():
        assert value == {**vars(default), **tuned, **given}[key], key
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(NOTICE)]
    assert line.endswith("learning-rate 0.001, no-normalize-observation, no-normalize-reward; --no-zoo goes without.")
    assert "batch-size 256" in line
    assert "steps 256" not in line.replace("rollout-steps", "")
    assert "epochs" not in line  # which the command line gave


def test_no_zoo_takes_the_algorithms_own_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = train(tmp_path / "run", "--env", "CartPole-v1", "--no-zoo", "--num-envs", "2")
    assert config["gamma"] == agents.get("ppo").config(env="CartPole-v1").gamma
    assert NOTICE not in capsys.readouterr().err


def test_an_environment_that_is_not_in_the_zoo_is_trained_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", "--env", "Acrobot-v1", "--num-envs", "2")
    assert "zoo" not in capsys.readouterr().err


def test_a_resumed_run_keeps_its_options_whatever_the_zoo_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    before = train(run, "--env", "CartPole-v1", "--no-zoo", "--num-envs", "2")
    assert cli.main(["train", "ppo", f"--out={run}", "--resume", "--steps", "512"]) == 0
    assert Run.open(run).config == {**before, "steps": 512}
    assert NOTICE not in capsys.readouterr().err


def test_a_value_that_does_not_go_with_tuned_ones_is_refused_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "ppo", "--env", "CartPole-v1", "--num-envs", "3", "--out", str(tmp_path / "run")]) == 2
    notice, error = capsys.readouterr().err.splitlines()
    assert notice.startswith(NOTICE)
    assert error == "tfqrl: --batch-size 256 must divide the rollout of 3 x 32 = 96 transitions."
    assert not (tmp_path / "run").exists()


def test_a_mistyped_option_is_answered_without_a_word_of_the_zoo(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "ppo", "--env", "CartPole-v1", "--gama", "1"]) == 2
    assert capsys.readouterr().err == "tfqrl: Unknown option '--gama'. Did you mean '--gamma'?\n"


def help_of(*words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as error:
        cli.main(["train", *words, "--help"])
    assert error.value.code == 0
    return " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


def test_help_shows_the_defaults_for_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = help_of("ppo", "--env", "CartPole-v1", monkeypatch=monkeypatch, capsys=capsys)
    assert "steps of each copy between updates. (default: 32)" in tuned
    for words in (["ppo"], ["ppo", "--env", "CartPole-v1", "--no-zoo"], ["ppo", "--env", "Acrobot-v1"]):
        text = help_of(*words, monkeypatch=monkeypatch, capsys=capsys)
        assert "steps of each copy between updates. (default: 128)" in text


@pytest.mark.parametrize("algorithm", agents.TRAINABLE)
def test_help_of_each_algorithm_has_an_example_that_would_train(
    algorithm: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(algorithm, monkeypatch=monkeypatch, capsys=capsys)
    example = re.search(r"Example: tfqrl train (\S+) --env (\S+) --seed 0 --out runs/first ", text)
    assert example is not None
    assert example[1] == algorithm
    assert example[2] in zoo.environments(algorithm)
    assert f"Example: tfqrl train {algorithm} --out runs/first --resume " in text
    assert "{" not in text.replace("{tanh,relu}", "").split("config options")[0]


def test_help_without_an_algorithm_lists_them_and_needs_no_tensorflow() -> None:
    program = "import sys; from tfqrl import cli; cli.main(['train', '--help']); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "False"
    listed = [line.split()[0] for line in lines if re.match(r"  \w+  +\S", line) and " et al. " in line]
    assert set(agents.TRAINABLE) <= set(listed)
    assert set(listed) == set(zoo.algorithms())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toys/DivergesAtOnce-v0", "returned NaN or infinity"),
        ("toys/FailingReset-v0", "no link"),
        ("toys/Unmade-v0", "no camera"),
        ("toys/Dict-v0", "FlattenObservation"),
    ],
)
def test_an_environment_that_cannot_begin_is_refused_before_there_is_a_folder(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "ppo", "--env", name, *TINY, "--out", str(tmp_path / "run")]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_so_is_a_network_that_cannot_be_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--env", "CartPole-v1", "--compress", "prune", "--layer-sparsity", "hiden_0", "0.5"]
    assert cli.main(["train", "dqn", *words, "--out", str(tmp_path / "run")]) == 2
    assert "Did you mean 'hidden_0'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
