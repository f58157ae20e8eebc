import dataclasses
import json
import math
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import DATA

from edge import bench as bench_module
from edge import children, cli, contenders, session
from edge.bench import BenchReport, BenchStoppedError, bench
from edge.conditions import Thermal
from edge.errors import UnknownNameError, UsageError, UserError
from edge.plants.memory import MemoryPlant
from edge.records import from_plain, to_json
from edge.report import bench_markdown, bench_text

ARM = [DATA / f"arm-{recipe}.tflite" for recipe in ("float32", "int8")]


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return bench(ARM, n=400, threads=(1, 2), against=[("onnxruntime", DATA / "arm.onnx")], energy_windows=0)


def test_a_bench_reports_every_policy_with_every_number_of_threads_and_every_peer(report: BenchReport) -> None:
    labels = [entry.label for entry in report.entries]
    policies = ["arm float32", "arm float32, 2 threads", "arm int8", "arm int8, 2 threads"]
    assert labels == [*policies, "arm in onnxruntime", "arm in onnxruntime, 2 threads"]
    for entry in report.entries:
        assert entry.act_us.percentiles.n == entry.invoke_us.percentiles.n == sum(entry.act_us.histogram.counts) == 400
        for latency in (entry.act_us, entry.invoke_us):
            assert 0 < latency.p50.value <= latency.p99.value <= latency.percentiles.max
            assert latency.p50.low < latency.p50.value < latency.p50.high
        assert entry.invoke_us.p50.value <= entry.act_us.p50.value
        # Python, numpy and a runtime: it starts in less than a minute, and fits in a small machine.
        assert 0 < entry.cold_start.load_ms < entry.cold_start.first_action_ms < 60_000
        assert entry.cold_start.resident_bytes is not None
        assert 20e6 < entry.cold_start.resident_bytes < 500e6
    first = report.entries[0]
    assert first.file_bytes == ARM[0].stat().st_size
    assert first.runtime.threads == 1


def test_a_report_survives_json(report: BenchReport) -> None:
    assert from_plain(BenchReport, json.loads(to_json(report)), "report") == report


def test_an_estimate_is_called_one_wherever_it_shows(report: BenchReport) -> None:
    assert not report.entries[0].energy.measured, "this test is for machines without a meter that may be read"
    for text in (bench_text(report), bench_markdown(report)):
        assert text.count("(ESTIMATE)") == len(report.entries)
        assert "ESTIMATE, not measured" in text


def test_markdown_has_as_many_cells_in_each_row(report: BenchReport) -> None:
    rows = [line for line in bench_markdown(report).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(report.entries)
    assert len({row.count("|") for row in rows}) == 1


def test_at_a_rate_the_control_loop_is_reported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "RATE_RUN_S", 0.2)
    report = bench([ARM[1]], n=100, rate_hz=100, energy_windows=0, against=[("onnxruntime", DATA / "arm.onnx")])
    ours, peer = report.entries
    assert ours.at_rate is not None
    assert ours.at_rate.rate_hz == 100
    assert ours.at_rate.ticks + ours.at_rate.missed_periods == 20
    assert peer.at_rate is None
    assert "arm int8 in the control loop" in bench_text(report)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_in_the_control_loop_ends_the_bench_and_nothing_is_written(
    number: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "bench.json"

    class Killed(MemoryPlant):
        def read(self) -> Any:
            os.kill(os.getpid(), number)
            return super().read()

    monkeypatch.setattr(bench_module, "MemoryPlant", Killed)
    words = ["bench", str(ARM[1]), "--n", "100", "--energy-windows", "0", "--rate", "100", "--json", str(out)]
    assert cli.main(words) == code
    captured = capsys.readouterr()
    assert f"arm int8 at 100 Hz was stopped by {number.name}" in captured.err
    assert captured.out == ""
    assert not out.exists()


def test_a_control_loop_that_cannot_act_ends_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(MemoryPlant):
        def read(self) -> Any:
            raise OSError("no such device")

    monkeypatch.setattr(bench_module, "MemoryPlant", Broken)
    with pytest.raises(BenchStoppedError, match="stopped by plant error") as caught:
        bench([ARM[1]], n=100, energy_windows=0, rate_hz=1000)
    assert caught.value.exit_code == 1


def test_no_two_contenders_have_the_same_label(tmp_path: Path) -> None:
    files = [tmp_path / "first.tflite", tmp_path / "second.tflite", tmp_path / "old" / "second.tflite"]
    files[2].parent.mkdir()
    for file in files:
        file.write_bytes(ARM[1].read_bytes())
    report = bench([*files, files[0], ARM[0]], n=100, meter="none")
    assert [entry.label for entry in report.entries] == [
        "arm int8 (first)",
        f"arm int8 (second) ({files[1]})",
        f"arm int8 (second) ({files[2]})",
        "arm float32",
    ]
    assert {entry.energy.failure for entry in report.entries} == {"not asked for"}
    assert "energy: not measured" in bench_text(report)


def test_a_users_own_edge_py_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "edge.py").write_text("raise SystemExit('not this one')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('nor this')")
    for words in (("edge.coldstart", "0", "tfqrl", str(ARM[1].absolute()), "1", "cpu"), ("edge.meters.pmic",)):
        done = subprocess.run(
            children.command(*words),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    with pytest.raises(UserError, match=r"A fresh process could not act: Cannot read none\.tflite"):
        children.ask("edge.coldstart", "0", "tfqrl", "none.tflite", "1", "cpu")


@pytest.mark.parametrize(
    ("readings", "step"),
    [
        ([50, 60, 50, 70, 1200], 10),  # counted in tens
        ([37, 56, 55, 37, 74, 18, 19, 93], 18),  # a 54 MHz counter: 18.5 ns, rounded
        ([0, 1000, 0, 0, 2000], 1000),  # microseconds
        ([41, 42, 43, 44], 1),  # every nanosecond
        ([40, 40], 1),  # says nothing
    ],
)
def test_the_clocks_step_shows_in_the_differences_of_its_readings(readings: list[int], step: int) -> None:
    assert session.step_ns(np.array(readings)) == step


def test_a_board_that_was_held_back_is_reported(report: BenchReport) -> None:
    cool = Thermal(50.0, 1500.0, (), ())
    hot = Thermal(85.0, 600.0, ("throttled",), ("under-voltage", "throttled"))
    assert not any("held back" in w for w in dataclasses.replace(report, before=cool, after=cool).warnings)
    slowed = dataclasses.replace(report, before=cool, after=hot)
    assert "The board was held back during the run (throttled, under-voltage)" in bench_text(slowed)
    # What had happened before the run began is not its fault.
    since_boot = Thermal(50.0, 1500.0, (), ("under-voltage",))
    assert not any("held back" in w for w in dataclasses.replace(report, before=since_boot, after=since_boot).warnings)


@pytest.mark.parametrize(
    "options",
    [
        {"n": 1},
        {"n": 10**12},
        {"cpu_watts": -5.0},
        {"cpu_watts": math.nan},
        {"energy_windows": 2},
        {"energy_windows": -1},
        {"threads": (0,)},
        {"threads": (65,)},
        {"threads": (65,), "against": [("onnxruntime", DATA / "arm.onnx")]},
        {"rate_hz": 0.0},
        {"rate_hz": -1.0},
        {"rate_hz": math.nan},
        {"rate_hz": math.inf},
    ],
)
def test_a_bench_of_nothing_is_refused_before_anything_is_measured(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "time_in_sessions", None)
    with pytest.raises(UsageError, match=r"given|not possible"):
        bench([ARM[0]], **options)


def test_a_peer_that_is_unknown_or_cannot_load_its_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'onnxruntime'"):
        bench([ARM[0]], against=[("onnxruntim", "x.onnx")])
    (tmp_path / "bad.onnx").write_bytes(b"\0\1\2")
    with pytest.raises(UserError, match="onnxruntime cannot load"):
        bench([ARM[0]], against=[("onnxruntime", tmp_path / "bad.onnx")])
    with pytest.raises(UserError, match="Cannot read"):
        bench([ARM[0]], against=[("onnxruntime", tmp_path / "none.onnx")])


def test_a_policy_for_frames_is_measured_on_frames() -> None:
    glance = contenders.load("tfqrl", DATA / "glance-int8-full.tflite", 1, "cpu")
    assert {(o.dtype, o.shape) for o in glance.observations} == {(np.dtype(np.uint8), (12, 12, 2))}
    report = bench([DATA / "glance-int8-full.tflite"], n=100, rate_hz=100, energy_windows=0)
    (entry,) = report.entries
    assert entry.label == "glance int8-full"
    assert entry.at_rate is not None
    assert entry.at_rate.failsafes == {}


def test_an_onnx_model_may_take_frames(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["real"], to=types.FLOAT),
            helper.make_node("ReduceMean", ["real"], ["action"], keepdims=0),
        ],
        "mean",
        [helper.make_tensor_value_info("frame", types.UINT8, ["batch", 2, 12, 12])],
        [helper.make_tensor_value_info("action", types.FLOAT, [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.graph.node[1].attribute.extend([helper.make_attribute("axes", [1, 2, 3])])
    onnx.save(model, tmp_path / "mean.onnx")
    peer = contenders.load("onnxruntime", tmp_path / "mean.onnx", 1, "cpu")
    observation = peer.observations[0]
    assert (observation.dtype, observation.shape) == (np.uint8, (2, 12, 12))
    assert peer.act(observation) == pytest.approx(observation.mean(), rel=1e-5)
    peer.invoke()
