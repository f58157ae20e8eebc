"""The Edge TPU's path, with a stand-in for libedgetpu that is compiled here: a real delegate for the real loader."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import flatbuffers
import numpy as np
import pytest
from fakes import DATA

from edge import artifact, edgetpu
from edge.artifact import ActionSpec, Artifact, Golden, ObservationSpec, PolicySpec
from edge.errors import (
    EdgeTpuCrashError,
    EdgeTpuDeviceError,
    EdgeTpuError,
    EdgeTpuLibraryError,
    EdgeTpuModelError,
    NotTFLiteError,
    UsageError,
)
from edge.policy import Policy

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs ai-edge-litert to make a model")

WORKS, CRASHES, FINDS_NOTHING, HANGS, TAKES_NOTHING = range(5)


def library(folder: Path, fault: int = WORKS) -> str:
    """Compile the stand-in; returns the LD_LIBRARY_PATH under which it is found."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler (cc)")
    source = Path(__file__).with_name("fake_edgetpu.c")
    command = [compiler, "-shared", "-fPIC", f"-DFAULT={fault}", "-o", str(folder / edgetpu.LIBRARY), str(source)]
    subprocess.run(command, check=True)
    return str(folder)


def compiled_model() -> bytes:
    """A graph as edgetpu_compiler leaves it: int8 in, one custom operation, int8 out."""
    quantization = schema.QuantizationParametersT(scale=[1 / 127], zeroPoint=[0])
    tensors = [
        schema.TensorT(shape=[1, 3], type=schema.TensorType.INT8, buffer=0, name=name, quantization=quantization)
        for name in (b"in", b"out")
    ]
    operation = schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[1])
    code = schema.OperatorCodeT(
        builtinCode=schema.BuiltinOperator.CUSTOM,
        deprecatedBuiltinCode=schema.BuiltinOperator.CUSTOM,
        customCode=edgetpu.CUSTOM_OP,
    )
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[1], operators=[operation])
    model = schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()])
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def policy_file(folder: Path) -> Path:
    """A policy for the stand-in, which gives minus what it is given."""
    spec = PolicySpec(
        ObservationSpec((3,), (None,) * 3, (None,) * 3), ActionSpec((3,), (-1.0,) * 3, (1.0,) * 3), 50.0, None
    )
    flatbuffer = compiled_model()
    base = artifact.read(DATA / "arm-int8.tflite").manifest
    plain = vars(base) | {
        "name": "mirror",
        "flatbuffer_sha256": artifact.sha256(flatbuffer),
        "flatbuffer_bytes": len(flatbuffer),
        "spec": spec,
        "golden_tolerance": (0.01,) * 3,
    }
    observations = np.array([[0.0, 0.5, -1.0], [1.0, 0.25, 0.1]], np.float32)
    path = folder / "mirror.tflite"
    artifact.write(path, Artifact(type(base)(**plain), flatbuffer, Golden(observations, -observations)))
    return path


def test_a_compiled_policy_runs_on_the_device_that_was_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys; from edge import Policy; p = Policy.load(sys.argv[1], device='edgetpu:usb:0');"
        "print(p.runtime.delegate, p.act(p._observation * 0 + 0.5))"
    )
    words = [sys.executable, "-c", program, str(policy_file(tmp_path))]
    environment = os.environ | {"LD_LIBRARY_PATH": library(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert "edgetpu:usb:0 [-0.50" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("fault", "device", "error", "words"),
    [
        (CRASHES, "edgetpu", EdgeTpuCrashError, "SIGSEGV"),
        (FINDS_NOTHING, "edgetpu", EdgeTpuDeviceError, "it gave no reason"),
        (WORKS, "edgetpu:usb:1", EdgeTpuDeviceError, "no such device"),
        (TAKES_NOTHING, "edgetpu", EdgeTpuModelError, "does not take this model"),
        (None, "edgetpu:pci:0", EdgeTpuLibraryError, "Install libedgetpu1-std"),
    ],
)
def test_what_goes_wrong_goes_wrong_in_a_child_process_and_has_a_name(
    fault: int | None,
    device: str,
    error: type[EdgeTpuError],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path) if fault is None else library(tmp_path, fault))
    with pytest.raises(error, match=words):
        edgetpu.probe(compiled_model(), device, 1)


def test_a_library_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", library(tmp_path, HANGS))
    monkeypatch.setattr(edgetpu, "PROBE_TIMEOUT_S", 2.0)
    with pytest.raises(EdgeTpuDeviceError, match="did not answer within 2 s"):
        edgetpu.probe(compiled_model(), "edgetpu", 1)


def test_the_processors_part_runs_on_the_threads_that_were_asked_for() -> None:
    asked = []

    class Module:
        @staticmethod
        def load_delegate(name: str, options: object) -> str:
            return name

        @staticmethod
        def Interpreter(**options: object) -> Mock:
            asked.append(options)
            return Mock()

    edgetpu.build(Module, b"model", "edgetpu", 3)
    assert asked[0]["num_threads"] == 3


def test_a_policy_that_was_not_compiled_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(EdgeTpuModelError, match="was not compiled for the Edge TPU"):
        Policy.load(DATA / "arm-int8-full.tflite", device="edgetpu")


def test_a_compiled_policy_on_the_processor_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(NotTFLiteError, match="give --device edgetpu"):
        Policy.load(policy_file(tmp_path))


@pytest.mark.parametrize("device", ["gpu", "edgetpu:", "edgetpu:usb", "edgetpu:usb:x", "edgetpu:0", "EdgeTPU", ""])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match="A device is cpu, edgetpu"):
        edgetpu.delegate_options(device)
