"""`tfqrl convert --target edgetpu`, from the policy that was converted."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_compiler import PARTLY, install
from fakes import DATA
from flatbuffers_by_hand import compiled

from converters import Conversion
from converters.edgetpu_compiler import CompilerCrashError, NotQuantisedError
from edge import artifact
from edge.errors import EdgeTpuError, EdgeTpuModelError, NotTFLiteError, UsageError
from edge.policy import Policy
from edge.records import from_plain
from tfqrl import cli
from tfqrl.edgetpu_target import EdgeTpuReport, check_command, compile_for_edgetpu

ARM = artifact.read(DATA / "arm-int8-full.tflite")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "policies" / "arm.tflite"
    artifact.write(path, ARM)
    return path


def report(out: Path) -> EdgeTpuReport:
    plain = json.loads((out.parent / "arm_edgetpu.json").read_text())
    return from_plain(EdgeTpuReport, plain, "report")


def test_without_the_compiler_the_static_report_stands(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    compile_for_edgetpu(ARM, out, force=False)
    text = capsys.readouterr().out
    assert text.startswith("operation ")
    assert "the Edge TPU will run 5 of 5 operations" in text
    assert "Its 104 B of parameters fit: an estimate" in text
    assert "edgetpu_compiler is not on the PATH" in text
    assert "coral-edgetpu-stable main" in text
    assert "Docker" in text
    assert report(out).static.tpu == 5
    assert (report(out).policy, report(out).compiled, report(out).compiler) == ("arm.tflite", None, None)
    assert sorted(path.name for path in out.parent.iterdir()) == ["arm.tflite", "arm_edgetpu.json"]


def test_the_compiled_policy_has_its_papers_again(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, output=compiled(ARM.flatbuffer))
    compile_for_edgetpu(ARM, out, force=False)
    found = artifact.read(out.parent / "arm_edgetpu.tflite")
    assert found.flatbuffer == compiled(ARM.flatbuffer)
    assert (found.golden.actions == ARM.golden.actions).all()
    assert (found.golden.observations == ARM.golden.observations).all()
    manifest = found.manifest
    assert manifest.flatbuffer_bytes == len(found.flatbuffer)
    assert (manifest.spec, manifest.layers, manifest.name) == (
        ARM.manifest.spec,
        ARM.manifest.layers,
        ARM.manifest.name,
    )
    assert manifest.versions == {**ARM.manifest.versions, "edgetpu_compiler": "16.0.384591198"}
    assert manifest.recipe == {**ARM.manifest.recipe, "runtimes": ["libedgetpu"]}
    assert ARM.manifest.flatbuffer_sha256 in manifest.notes[-1]
    assert "the compiled one was not run" in manifest.notes[-1]
    assert report(out).compiled == "arm_edgetpu.tflite"
    compiler = report(out).compiler
    assert compiler is not None
    assert (compiler.tpu, compiler.cpu) == (5, 0)
    text = capsys.readouterr().out
    assert "edgetpu_compiler 16.0.384591198 put 5 operations on the Edge TPU and left 0 to the processor" in text
    assert "1.2 KiB of parameters stay on the chip, 0 B are sent" in text
    assert "FULLY_CONNECTED  3      Mapped to Edge TPU" in text
    assert "tfqrl-edge verify arm_edgetpu.tflite --device edgetpu" in text


def test_the_compiled_policy_is_refused_where_there_is_no_edge_tpu(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, output=compiled(ARM.flatbuffer))
    compile_for_edgetpu(ARM, out, force=False)
    with pytest.raises(NotTFLiteError, match="give --device edgetpu"):
        Policy.load(out.parent / "arm_edgetpu.tflite")
    # Whatever is missing here, it is not the compilation: that is only said of the policy before it.
    with pytest.raises(EdgeTpuError) as raised:
        Policy.load(out.parent / "arm_edgetpu.tflite", device="edgetpu")
    assert "was not compiled" not in str(raised.value)
    with pytest.raises(EdgeTpuModelError, match="was not compiled"):
        Policy.load(out, device="edgetpu")


def test_what_the_compiler_leaves_to_the_processor_is_shown(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, says=PARTLY, output=compiled(ARM.flatbuffer))
    compile_for_edgetpu(ARM, out, force=False)
    text = capsys.readouterr().out
    assert "put 3 operations on the Edge TPU and left 6 to the processor; 6.5 MiB" in text
    assert "13.0 MiB are sent at every inference" in text
    assert "Operation is working on an unsupported data type" in text


def test_a_compiler_that_says_nothing_leaves_its_report_unknown(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, says="", output=compiled(ARM.flatbuffer))
    compile_for_edgetpu(ARM, out, force=False)
    assert "of unknown version put an unknown number of operations" in capsys.readouterr().out
    assert (
        artifact.read(out.parent / "arm_edgetpu.tflite").manifest.versions["edgetpu_compiler"] == "of unknown version"
    )


def test_a_compiler_that_fails_leaves_the_static_report_and_no_policy(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, says="Invalid model: model.tflite\nModel not quantized\n", then="exit 1")
    with pytest.raises(NotQuantisedError):
        compile_for_edgetpu(ARM, out, force=False)
    assert "will run 5 of 5" in capsys.readouterr().out
    assert report(out).static.tpu == 5
    assert not (out.parent / "arm_edgetpu.tflite").exists()


def test_an_older_compiled_policy_does_not_stay_beside_a_new_one(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = out.parent / "arm_edgetpu.tflite"
    older.write_bytes(b"of another training")
    install(tmp_path, monkeypatch, says="", then="exit 1")
    with pytest.raises(CompilerCrashError):
        compile_for_edgetpu(ARM, out, force=True)
    assert not older.exists()


@pytest.mark.parametrize("name", ["arm_edgetpu.tflite", "arm_edgetpu.json"])
def test_files_that_are_there_are_kept_without_force(name: str, out: Path) -> None:
    (out.parent / name).write_text("kept")
    with pytest.raises(UsageError, match=rf"{name} exists already.*--force"):
        check_command("int8-full", None, out, force=False)
    check_command("int8-full", None, out, force=True)
    with pytest.raises(UsageError, match="knows one scale a layer: leave out --weight-scales per-channel"):
        check_command("int8-full", "per-channel", out, force=True)
    assert (out.parent / name).read_text() == "kept"


def test_another_recipe_is_refused_before_anything_is_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(tmp_path / "none"), "--out", str(tmp_path / "policy.tflite"), "--target", "edgetpu"]
    assert cli.main([*words, "--recipe", "int8"]) == 2
    assert capsys.readouterr().err == (
        "tfqrl: The Edge TPU computes with 8-bit integers from input to output, so --target edgetpu needs "
        "--recipe int8-full, not int8.\n"
    )
    assert cli.main([*words, "--recipe", "int8-full"]) == 1
    assert "is not a run" in capsys.readouterr().err


def test_the_command_ends_with_the_edge_tpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch, output=compiled(ARM.flatbuffer))
    monkeypatch.setattr("tfqrl.runs.Run.open", lambda path: path)
    original = SimpleNamespace(to=lambda recipe, **options: Conversion(ARM))
    monkeypatch.setattr("tfqrl.convert.original", lambda *words, **options: original)
    words = ["convert", "run", "--recipe", "int8-full", "--out", str(tmp_path / "arm.tflite")]
    assert cli.main(words) == 0
    assert not (tmp_path / "arm_edgetpu.tflite").exists()
    assert cli.main([*words, "--target", "edgetpu", "--force"]) == 0
    assert artifact.read(tmp_path / "arm.tflite").flatbuffer == ARM.flatbuffer
    assert artifact.read(tmp_path / "arm_edgetpu.tflite").flatbuffer == compiled(ARM.flatbuffer)
    assert report(tmp_path / "arm.tflite").compiled == "arm_edgetpu.tflite"
    capsys.readouterr()
    assert cli.main([*words, "--target", "edgetpu"]) == 2
    assert "exists already" in capsys.readouterr().err
