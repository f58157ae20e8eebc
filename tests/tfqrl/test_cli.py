import re
import subprocess
import sys
from pathlib import Path

import pytest
import toy_envs  # noqa: F401  (registers the toys)

from tfqrl import cli
from tfqrl.runs import Run

TINY = ["--steps", "256", "--num-envs", "2", "--rollout-steps", "64", "--epochs", "1", "--hidden", "8"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "Unknown command 'trian'. Did you mean 'train'?"),
        (["train"], "Name an algorithm: tfqrl train {"),
        (["train", "pp"], "Unknown algorithm 'pp'. Did you mean 'ppo'?"),
        (["train", "ppo", "--env", "Hoper-v5"], "Unknown environment 'Hoper-v5'. Did you mean 'Hopper-v5'?"),
        (["train", "ppo", "--env", "X", "--gama", "1"], "Unknown option '--gama'. Did you mean '--gamma'?"),
        (["train", "ppo", "--env", "Pendulum-v1", "--gamma", "2"], "--gamma must lie in 0..1; it was given 2.0."),
        (["train", "ppo", "--resume"], "--resume needs the run's folder: --out RUN."),
        (["convert", "x", "--out", "y.tflite", "--recipe", "int"], "Unknown recipe 'int'. Did you mean 'int8'?"),
        (["hil-serve", "--env", "Pendlum-v1"], "Unknown environment 'Pendlum-v1'. Did you mean 'Pendulum-v1'?"),
        (["hil-serve", "--env", "Pendulum-v1", "--rate", "10"], "--rate is for --realtime"),
        (["hil-serve", "--env", "Pendulum-v1", "--realtime", "--rate", "0"], "A rate of 0 Hz is not possible"),
        (["hil-serve", "--env", "Pendulum-v1", "--seed", "-1"], "--seed must lie in 0..2^53 - 1"),
        (["hil-serve", "--env", "toys/Count-v0", "--realtime"], "toys/Count-v0 names no rate of its own"),
        (["convert", "x", "--out", "y.tflite", "--episodes", "1"], "--episodes must be at least 2"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_answered_in_one_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"tfqrl: {message}")
    assert captured.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("words", [["train", "ppo", "--env", "P", "--steps", "abc"], ["train", "ppo"], ["convert"]])
def test_a_missing_or_unreadable_value_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    assert error.value.code == 2
    assert "--" in capsys.readouterr().err


def test_help_needs_no_tensorflow() -> None:
    program = "import sys; from tfqrl import cli; cli.main(['--help']); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "examples:" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train", "--env"),
        ("zoo", "--json"),
        ("convert", "--out"),
        ("evaluate", "--margin"),
        ("demo", "--out"),
        ("deploy", "--rollback"),
        ("sign", "--key"),
        ("hil-serve", "--realtime"),
        ("hil-keys", "--force"),
        ("import", "sb3"),
        ("sign-key", "KEY"),
    ],
)
def test_each_command_has_help(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = cli.main([command, "--help"])
    except SystemExit as error:
        code = error.code
    assert code == 0
    text = capsys.readouterr().out
    assert option in text
    assert re.search(rf"(Example:|examples:)\s+tfqrl {command}", text)


def test_help_says_what_force_does_not_protect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of("convert", monkeypatch, capsys)
    assert "replace policies that are there; reports and rejected policies are replaced anyway" in text


@pytest.mark.parametrize(
    "command", ["train ppo", "zoo", "convert", "evaluate", "demo", "deploy", "sign", "hil-serve", "hil-keys"]
)
def test_help_gives_one_default_and_the_name_of_what_is_wanted(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, monkeypatch, capsys)
    assert "None" not in text
    assert "(default: )" not in text
    assert re.search(r"\(default: [^)]*\)\.? \(default:", text) is None
    assert re.search(r" (STR|PATH)\b", text) is None


def help_of(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The help of a command, as one line without the frames that it is drawn in."""
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    return " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


def test_train_resume_and_their_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    assert cli.main(["train", "ppo", "--env", "Pendulum-v1", *TINY, "--out", run]) == 0
    assert f"tfqrl convert {run}" in capsys.readouterr().out
    assert cli.main(["train", "ppo", "--env", "Pendulum-v1", *TINY, "--out", run]) == 2
    assert "holds a run already. Add --resume" in capsys.readouterr().err
    assert cli.main(["train", "ppo", "--out", run, "--resume", "--steps", "512"]) == 0
    capsys.readouterr()
    assert cli.main(["train", "ppo", "--out", run, "--resume", "--steps", "100"]) == 0
    assert "was trained for 512 steps already. To train it further, give more: --steps N." in capsys.readouterr().out
    assert Run.open(run).config["steps"] == 512
    assert cli.main(["train", "ppo", "--out", run, "--resume", "--gamma", "0.5"]) == 2
    assert "was trained with gamma 0.99; --resume keeps a run's options" in capsys.readouterr().err
    assert cli.main(["train", "ppo", "--out", str(tmp_path / "none"), "--resume"]) == 1
    assert "is not a run" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_an_error_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["train", "ppo", "--env", "Pendulum-v1", *TINY, "--out", str(tmp_path / "file" / "run")]) == 1
    assert "Cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "extras"), [("sign", "train"), ("hil-serve", "train,hil"), ("", "train")])
def test_where_only_the_edge_is_installed_a_command_says_what_it_needs(command: str, extras: str) -> None:
    program = "import sys; sys.modules['tyro'] = None; from tfqrl.__main__ import main; sys.exit(main())"
    words = [sys.executable, "-c", program, *filter(None, [command])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    name = f"tfqrl {command}".strip()
    assert done.stderr == f"tfqrl: tyro is not installed. {name} needs: pip install 'tfqrl[{extras}]'\n"
    assert done.returncode == 1
