"""What is done with edgetpu_compiler, with a program in its place that prints and writes what the real one would.

The real compiler has not been run with tfqrl: its reports here are constructed (tests/support/fake_compiler.py).
"""

import os
import signal
from pathlib import Path

import pytest
from fake_compiler import PARTLY, SUCCESS, install
from fakes import DATA
from flatbuffers_by_hand import compiled, pack, unpack

from converters import edgetpu_compiler
from converters.edgetpu_compiler import (
    CompilerCrashError,
    CompilerError,
    CompilerTimeoutError,
    DynamicShapeError,
    InvalidModelError,
    LargeActivationsError,
    NothingMappedError,
    NotQuantisedError,
    OperatorStatus,
    OtherInterfaceError,
    UnknownVersionError,
)
from edge import artifact

MODEL = artifact.read(DATA / "arm-int8-full.tflite").flatbuffer
HEAD = "Edge TPU Compiler version 16.0.384591198\nStarted a compilation timeout timer of 180 seconds.\n"
FAILED = "Compilation child process completed within timeout period.\nCompilation failed!\n"


def compile_here() -> tuple[bytes, edgetpu_compiler.CompilerReport]:
    command = edgetpu_compiler.find()
    assert command is not None
    return edgetpu_compiler.compile_model(MODEL, command)


def test_the_model_goes_in_bare_and_the_compiled_one_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = install(tmp_path, monkeypatch, output=compiled(MODEL))
    result, report = compile_here()
    assert result == compiled(MODEL)
    assert seen.read_bytes() == MODEL
    assert report.version == "16.0.384591198"
    assert (report.on_chip_bytes, report.on_chip_remaining_bytes) == (1280, round(7.73 * 2**20))
    assert (report.off_chip_bytes, report.subgraphs) == (0, 1)
    assert (report.tpu, report.cpu) == (5, 0)
    mapped = edgetpu_compiler.MAPPED
    assert report.operators == (OperatorStatus("FULLY_CONNECTED", 3, mapped), OperatorStatus("TANH", 2, mapped))


def test_what_stays_on_the_processor_is_read_with_the_compilers_reason() -> None:
    report = edgetpu_compiler.read_report(PARTLY)
    assert (report.version, report.tpu, report.cpu) == ("15.0.340273435", 3, 6)
    assert (report.on_chip_bytes, report.off_chip_bytes) == (round(6.5 * 2**20), 13 * 2**20)
    statuses = {row.operator: row.status for row in report.operators}
    assert len(statuses) == 7
    assert statuses["MUL"] == "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
    assert statuses["FULLY_CONNECTED"] == "More than one subgraph is not supported"


def test_without_its_table_the_totals_are_read() -> None:
    report = edgetpu_compiler.read_report(SUCCESS.split("Operator  ")[0])
    assert (report.tpu, report.cpu, report.operators) == (5, 0, ())


def test_a_report_in_other_words_leaves_unknown_what_it_does_not_say() -> None:
    report = edgetpu_compiler.read_report("Compiled.\nOn-chip memory used for caching model parameters: lots\n")
    assert (report.version, report.on_chip_bytes, report.tpu, report.operators) == (None, None, None, ())


@pytest.mark.parametrize(
    ("says", "then", "error", "words"),
    [
        (HEAD + "Invalid model: model.tflite\nModel not quantized\n", "exit 1", NotQuantisedError, "not quantised"),
        (HEAD + "Compilation failed: Compilation failed due to large activation tensors in model.\n" + FAILED,
         "exit 1", LargeActivationsError, "too large for the chip"),
        (HEAD + "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
         "dynamic-sized tensors.\nCompilation failed: Model failed in Tflite interpreter.\n" + FAILED,
         "exit 1", DynamicShapeError, "dynamic shape"),
        (HEAD + "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'.\nERROR: Registration failed.\n\n"
         "Invalid model: model.tflite\nModel could not be parsed\n",
         "exit 1", UnknownVersionError, "CONV_2D of version 6"),
        (HEAD + "Invalid model: model.tflite\nModel could not be parsed\n", "exit 1", InvalidModelError, "cannot read"),
        (HEAD + "\nInternal compiler error. Aborting!\n", "exit 1", CompilerCrashError, "internal error"),
        # Some versions fail with exit code 0.
        (HEAD + "\nInternal compiler error. Aborting!\n", "exit 0", CompilerCrashError, "internal error"),
        (HEAD, "exit 0", CompilerCrashError, "gave no model; it ended with exit code 0 and said at last: Started"),
        ("", "exit 3", CompilerCrashError, "ended with exit code 3 and said nothing"),
        (HEAD, "kill -SEGV $$", CompilerCrashError, "was ended by SIGSEGV"),
        (HEAD, "kill -KILL $$", CompilerCrashError, "was ended by SIGKILL"),
    ],
)  # fmt: skip
def test_each_failure_has_a_name_and_a_sentence(
    says: str,
    then: str,
    error: type[CompilerError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(tmp_path, monkeypatch, says=says, then=then)
    with pytest.raises(error, match=words) as raised:
        compile_here()
    assert type(raised.value) is error
    assert str(raised.value).startswith("edgetpu_compiler")
    assert str(raised.value).endswith(".")
    assert ("16.0.384591198" in str(raised.value)) == bool(says)


def test_a_model_that_is_left_behind_by_a_failure_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, output=compiled(MODEL), then="exit 1")
    with pytest.raises(CompilerCrashError, match="exit code 1"):
        compile_here()


def test_a_compiler_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, then=f'sleep 600 & echo $! > "{tmp_path}/child"\nwait')
    monkeypatch.setattr(edgetpu_compiler, "TIMEOUT_S", 3.0)
    with pytest.raises(CompilerTimeoutError, match="did not end within 3 s"):
        compile_here()
    child = int((tmp_path / "child").read_text())
    status = Path(f"/proc/{child}/stat")
    # Killed: gone, or waiting for whoever inherits orphans here to take note.
    assert not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] in "ZX"


def test_a_compiler_of_another_machine_is_an_error_that_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "edgetpu_compiler"
    program.write_bytes(b"\x7fELF" + bytes(60))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(CompilerCrashError, match=r"does not start: Exec format error.*x86-64 Debian"):
        compile_here()


@pytest.mark.parametrize(
    ("output", "error", "words"),
    [
        (b"not a model at all", CompilerCrashError, "not a TFLite file"),
        (b"", CompilerCrashError, "not a TFLite file"),
        (compiled(MODEL)[:200], CompilerCrashError, "cannot be read"),
        (MODEL, NothingMappedError, "mapped no operation"),
    ],
)
def test_an_output_that_cannot_be_used_is_refused(
    output: bytes, error: type[CompilerError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, output=output)
    with pytest.raises(error, match=words):
        compile_here()


@pytest.mark.parametrize("change", ["scale", "zeroPoint", "shape", "outputs"])
def test_a_compiled_model_with_other_inputs_or_outputs_is_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = unpack(compiled(MODEL))
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.outputs[0]]
    if change == "scale":
        tensor.quantization.scale = [2 * tensor.quantization.scale[0]]
    elif change == "zeroPoint":
        tensor.quantization.zeroPoint = [tensor.quantization.zeroPoint[0] + 1]
    elif change == "shape":
        tensor.shape = [1, 3]
    else:
        graph.outputs = [graph.outputs[0], graph.inputs[0]]
    install(tmp_path, monkeypatch, output=pack(model))
    with pytest.raises(OtherInterfaceError, match="its papers no longer fit"):
        compile_here()


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    install(tmp_path, monkeypatch, output=compiled(MODEL))
    compile_here()
    assert list(scratch.iterdir()) == []


def test_signals_have_names_here() -> None:
    assert str(edgetpu_compiler.failure(-signal.SIGABRT, "")) == "edgetpu_compiler was ended by SIGABRT."
