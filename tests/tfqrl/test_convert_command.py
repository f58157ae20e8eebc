import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)
from untrained import make_run

from converters import recipe
from converters.export import ExportError
from converters.recipe import RECIPES, Tolerance
from edge import artifact
from edge.errors import OutputError, UserError
from edge.policy import Policy
from edge.records import from_plain
from tfqrl import cli, convert, recipe_table
from tfqrl.convert_command import ConvertCommand, chosen_recipes
from tfqrl.recipe_table import RecipeTable

STRICT = Tolerance(action_error=1e-9, agreement=1.0, return_loss=0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_run(tmp_path_factory.mktemp("runs") / "run", "Pendulum-v1")


@pytest.fixture(scope="module")
def observations(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("observations") / "observations.npy"
    np.save(path, np.random.default_rng(0).uniform(-1, 1, (300, 3)))
    return str(path)


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies that nobody reads."""
    monkeypatch.setattr(recipe_table, "CALLS", 100)
    monkeypatch.setattr(recipe_table.session, "SESSIONS", 2)


def table(path: Path) -> RecipeTable:
    return from_plain(RecipeTable, json.loads(path.read_text()), "comparison")


def make_strict(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe.RECIPES, name, replace(RECIPES[name], tolerance=STRICT))


def refuse(monkeypatch: pytest.MonkeyPatch, error: UserError, *names: str) -> None:
    """Let some recipes fail."""
    original = convert.convert

    def refusing(network: Any, spec: Any, chosen: recipe.Recipe, *arguments: Any, **options: Any) -> Any:
        if chosen.name in names:
            raise error
        return original(network, spec, chosen, *arguments, **options)

    monkeypatch.setattr(convert, "convert", refusing)


def test_a_conversion_says_whether_the_returns_are_equivalent(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "policy.tflite", tmp_path / "comparison.json"
    words = ["convert", run, "--out", str(out), "--episodes", "3", "--margin", "30%", "--json", str(report)]
    assert cli.main(words) == 0
    returns = artifact.read(out).manifest.comparison.returns
    assert returns is not None
    assert returns.margin == pytest.approx(0.3 * abs(returns.float_mean))
    assert returns.verdict == "equivalent"
    assert "verdict               equivalent within ±" in capsys.readouterr().out
    (row,) = table(report).rows
    assert (row.file, row.rejection, row.act_us) == (str(out), None, None)
    assert row.comparison is not None
    assert row.comparison.returns == returns
    assert table(report).command == ("tfqrl", *words)


def test_a_broken_tolerance_keeps_the_file_under_another_name(
    run: str, observations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rejected = tmp_path / "policy.tflite", tmp_path / "policy.tflite.rejected"
    words = ["convert", run, "--out", str(out), "--observations", observations]
    with monkeypatch.context() as patch:
        make_strict("int8", patch)
        assert cli.main(words) == 1
        message = capsys.readouterr().err
        assert "tfqrl: The conversion to int8 is rejected: its actions differ" in message
        assert "What may cure it: --calibration percentile or mse" in message
        assert message.endswith(f"The file is kept as {rejected}.\n")
        assert not out.exists()
        Policy.load(rejected)
        # A policy that was there is not replaced by one that is rejected, --force or not.
        out.write_bytes(b"the one that was there")
        assert cli.main([*words, "--force"]) == 1
        assert out.read_bytes() == b"the one that was there"
    assert cli.main([*words, "--force"]) == 0
    assert Policy.load(out).spec.observation.shape == (3,)
    assert not rejected.exists(), "what was rejected before is not left beside what was accepted now"


def test_every_recipe_is_a_row_of_one_table(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    play = convert.evaluate.play

    def counted(act: Any, env: str, **options: Any) -> Any:
        calls.append(type(getattr(act, "__self__", None)).__name__)
        return play(act, env, **options)

    monkeypatch.setattr(convert.evaluate, "play", counted)
    make_strict("int8", monkeypatch)
    out = tmp_path / "recipes"
    assert cli.main(["convert", run, "--recipe", "all", "--out", str(out), "--episodes", "2"]) == 0
    # The float policy plays twice, to calibrate and to be compared with, however many recipes there are.
    assert calls.count("DeployedPolicy") == 2
    found = table(out / "comparison.json")
    assert [row.recipe["name"] for row in found.rows] == list(RECIPES)
    by_name = {row.recipe["name"]: row for row in found.rows}
    assert by_name["float32"].file == str(out / "float32.tflite")
    assert by_name["int8"].file == str(out / "int8.tflite.rejected")
    assert by_name["int8"].rejection is not None
    for row in found.rows:
        if row.failure is None:
            assert row.file is not None
            assert row.file_bytes == Path(row.file).stat().st_size
            assert row.model_bytes is not None
            assert row.compressed_bytes is not None
            assert row.compressed_bytes < row.model_bytes < row.file_bytes
            assert row.act_us is not None
            assert row.act_of_float32 is not None
            assert row.act_of_float32.value > 0
            assert Policy.load(row.file).manifest.recipe["name"] == row.recipe["name"]
            assert row.recipe["runtimes"] == list(RECIPES[row.recipe["name"]].runtimes)
    assert by_name["float32"].act_of_float32.value == 1.0
    assert {path.name for path in out.iterdir()} == {
        "comparison.json", *(Path(row.file).name for row in found.rows if row.file is not None)
    }  # fmt: skip
    printed = capsys.readouterr().out
    for name in RECIPES:
        assert f"\n{name} " in printed
    assert "The conversion to int8 is rejected" in printed


def test_a_table_without_returns_from_observations_and_the_next_in_its_place(
    run: str, observations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "RECIPES", {name: RECIPES[name] for name in ("float32", "int8")})
    out = tmp_path / "recipes"
    words = ["convert", run, "--recipe", "all", "--out", str(out), "--observations", observations]
    with monkeypatch.context() as patch:
        make_strict("int8", patch)
        assert cli.main(words) == 0
    assert {path.name for path in out.iterdir()} == {"comparison.json", "float32.tflite", "int8.tflite.rejected"}
    assert all(
        row.comparison is not None and row.comparison.returns is None for row in table(out / "comparison.json").rows
    )
    assert cli.main(words) == 2
    assert f"{out / 'float32.tflite'} exists already" in capsys.readouterr().err
    assert cli.main([*words, "--force"]) == 0
    assert {path.name for path in out.iterdir()} == {"comparison.json", "float32.tflite", "int8.tflite"}
    with monkeypatch.context() as patch:
        make_strict("int8", patch)
        assert cli.main([*words, "--force"]) == 0
    assert {path.name for path in out.iterdir()} == {"comparison.json", "float32.tflite", "int8.tflite.rejected"}


def test_a_recipe_that_cannot_be_made_is_a_row_that_says_why(
    run: str, observations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(monkeypatch, ExportError("The layer swish has no integer kernel."), "int8")
    monkeypatch.setattr(recipe, "RECIPES", {name: RECIPES[name] for name in ("float32", "int8")})
    out = tmp_path / "recipes"
    assert cli.main(["convert", run, "--recipe", "all", "--out", str(out), "--observations", observations]) == 0
    assert [row.failure for row in table(out / "comparison.json").rows] == [
        None, "The layer swish has no integer kernel."
    ]  # fmt: skip
    assert "int8 was not made: The layer swish has no integer kernel." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--observations", "nan.npy"], 1, "Calibration observations have NaN or infinity in them, in 1 of 300"),
        (["--logits"], 1, "Only discrete policies have logits"),
        (["--float-layers", "outptu"], 2, "Unknown layer with weights 'outptu'. Did you mean 'output'?"),
    ],
)
def test_what_no_recipe_could_be_made_of_is_refused_before_files_are_touched(
    run: str,
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = np.zeros((300, 3))
    bad[7, 1] = np.nan
    np.save("nan.npy", bad)
    out = tmp_path / "recipes"
    out.mkdir()
    before = {out / f"{name}.tflite": name.encode() for name in RECIPES}
    for path, content in before.items():
        path.write_bytes(content)
    monkeypatch.setattr(convert.evaluate, "play", None)  # nothing is played first
    assert cli.main(["convert", run, "--recipe", "all", "--force", "--out", str(out), *words]) == code
    assert capsys.readouterr().err.startswith(f"tfqrl: {message}")
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_where_no_recipe_can_be_made_the_command_fails_and_old_files_stay(
    run: str, observations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipe, "RECIPES", {name: RECIPES[name] for name in ("float32", "int8")})
    refuse(monkeypatch, ExportError("The layer swish has no kernel."), "float32", "int8")
    out = tmp_path / "recipes"
    out.mkdir()
    (out / "int8.tflite").write_bytes(b"the one that was there")
    words = ["--recipe", "all", "--force", "--out", str(out), "--observations", observations]
    assert cli.main(["convert", run, *words]) == 1
    captured = capsys.readouterr()
    assert "int8 was not made: The layer swish has no kernel." in captured.out
    assert captured.err == "tfqrl: No recipe could be made of this policy. The table says why.\n"
    assert {path.name for path in out.iterdir()} == {"comparison.json", "int8.tflite"}
    assert (out / "int8.tflite").read_bytes() == b"the one that was there"


def test_a_full_disk_is_no_row_of_the_table(
    run: str, observations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OutputError("Cannot write float32.tflite: No space left on device.")

    monkeypatch.setattr(artifact, "write", full)
    out = tmp_path / "recipes"
    words = ["--recipe", "all", "--out", str(out), "--observations", observations]
    assert cli.main(["convert", run, *words]) == 1
    assert capsys.readouterr().err == "tfqrl: Cannot write float32.tflite: No space left on device.\n"
    assert not (out / "comparison.json").exists()


def test_options_become_those_of_the_recipe() -> None:
    command = ConvertCommand(
        Path("run"),
        Path("out"),
        weight_scales="per-channel",
        calibration="mse",
        calibration_observations=500,
        float_layers=("a",),
    )
    (chosen,) = chosen_recipes(command)
    assert chosen == replace(
        RECIPES["int8"], per_channel=True, calibration="mse", calibration_observations=500, float_layers=("a",)
    )
    by_name = {chosen.name: chosen for chosen in chosen_recipes(replace(command, recipe="all"))}
    assert list(by_name) == list(RECIPES)
    assert by_name["float32"] == RECIPES["float32"]
    assert by_name["int4"] == replace(RECIPES["int4"], per_channel=True, float_layers=("a",))
    assert by_name["int8-full"] == replace(
        RECIPES["int8-full"], per_channel=True, calibration="mse", calibration_observations=500
    )
    assert chosen_recipes(ConvertCommand(Path("run"), Path("out"))) == [RECIPES["int8"]]


def test_what_was_asked_for_reaches_the_converter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, observations = make_run(tmp_path / "run", "CartPole-v1"), str(tmp_path / "observations.npy")
    np.save(observations, np.random.default_rng(0).uniform(-1, 1, (300, 4)))
    asked: list[Any] = []
    original = convert.convert

    def noting(network: Any, spec: Any, chosen: recipe.Recipe, given: Any, *, logits: bool, **options: Any) -> Any:
        asked.append((chosen.calibration, chosen.per_channel, logits, len(given)))
        return original(network, spec, chosen, given, logits=logits, **options)

    monkeypatch.setattr(convert, "convert", noting)
    words = ["--calibration", "mse", "--weight-scales", "per-channel", "--logits", "--observations", observations]
    assert cli.main(["convert", run, "--out", str(tmp_path / "policy.tflite"), *words]) == 0
    assert asked == [("mse", True, True, 300)]


def test_a_policy_of_short_episodes_plays_until_there_is_enough_to_calibrate_on(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "run", "toys/Match-v0"), tmp_path / "policy.tflite"
    assert cli.main(["convert", run, "--out", str(out), "--episodes", "2"]) == 0
    # The second half of a thousand episodes of one step.
    assert artifact.read(out).manifest.comparison.observations == 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "float32", "--calibration", "mse"], "The recipe float32 has no --calibration; that is for int8,"),
        (["--recipe", "int4", "--calibration-observations", "9"], "The recipe int4 has no --calibration-observations;"),
        (
            ["--recipe", "float16", "--weight-scales", "per-tensor"],
            "The recipe float16 has no --weight-scales; that is for dynamic-int8,",
        ),
        (["--recipe", "int8-full", "--float-layers", "a"], "The recipe int8-full has no --float-layers; that is for"),
        (["--calibration-observations", "0"], "Calibrate on at least 100 observations, not 0."),
        (["--margin", "0"], "--margin takes a percentage of the mean return"),
        (["--episodes", "1"], "--episodes must be at least 2"),
        (["--env", "CartPole-v1"], "{run} is not for CartPole-v1: it observes 3 numbers (-1..1, -1..1, -8..8), the"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    run: str, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", run, "--out", str(tmp_path / "policy.tflite"), *words]) == 2
    assert capsys.readouterr().err.startswith(f"tfqrl: {message.format(run=run)}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["no-such-run"], 1, "no-such-run is not a run"),
        (["{run}", "--target", "edgetpu"], 2, "The Edge TPU computes with 8-bit integers"),
        (["{run}", "--recipe", "all", "--target", "edgetpu"], 2, "The Edge TPU computes with 8-bit integers"),
        (["{run}", "--recipe", "al"], 2, "Unknown recipe 'al'. Did you mean 'all'?"),
        (["{run}", "--recipe", "xyzzy"], 2, "Unknown recipe 'xyzzy'. Known: all, dynamic-int8, float16,"),
    ],
)
def test_a_refused_command_leaves_no_folder(
    run: str, words: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(run=run) for word in words]
    out = tmp_path / "folder" / "policy.tflite"
    assert cli.main(["convert", *given, "--out", str(out), "--json", str(tmp_path / "other" / "found.json")]) == code
    assert capsys.readouterr().err.startswith(f"tfqrl: {message}")
    assert list(tmp_path.iterdir()) == []


def test_a_table_needs_a_folder(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["convert", run, "--recipe", "all", "--out", str(tmp_path / "file")]) == 2
    assert "is a file; --recipe all needs a folder for --out." in capsys.readouterr().err


class Runs:
    """What a pickle would do."""

    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('code of the file was run')",)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "Cannot read "),
        ("text", "is not a .npy file of numbers"),
        ("pickle", "is not a .npy file of numbers"),
        ("archive", "must hold one array of real numbers"),
        ("words", "must hold one array of real numbers"),
        ("truncated", "is not a .npy file of numbers"),
        ("few", "observations are too few"),
        ("shape", "expected (n, 3)"),
    ],
)
def test_observations_that_are_none_are_refused(
    run: str, kind: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "observations.npy"
    arrays: dict[str, Any] = {
        "pickle": np.array([Runs()], object), "words": np.array(["a"] * 200), "few": np.zeros((5, 3)),
        "shape": np.zeros((200, 4)), "truncated": np.zeros((200, 3)),
    }  # fmt: skip
    if kind in arrays:
        np.save(path, arrays[kind], allow_pickle=True)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    if kind == "text":
        path.write_text("0.1 0.2 0.3\n")
    if kind == "archive":
        np.savez(tmp_path / "observations.npz", np.zeros((200, 3)))
        (tmp_path / "observations.npz").rename(path)
    out = tmp_path / "policy.tflite"
    assert cli.main(["convert", run, "--out", str(out), "--observations", str(path)]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()
