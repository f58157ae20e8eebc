import json
import math
from typing import Any

import pytest
from fakes import DATA

from edge.bench import BenchReport, bench
from edge.errors import UsageError
from edge.records import from_plain, to_json
from edge.report import bench_text


@pytest.mark.parametrize("name", ["arm-int8", "switch-float32"])
def test_a_bench_reports_what_it_measured_and_under_what_conditions(name: str) -> None:
    report = bench(DATA / f"{name}.tflite", n=500, warmup=10, energy_window_s=0.1)
    assert report.act_us.n == report.invoke_us.n == sum(report.act_histogram.counts) == 500
    assert 0 < report.invoke_us.p50 <= report.act_us.p50 <= report.act_us.p99 <= report.act_us.max
    assert report.file_bytes == (DATA / f"{name}.tflite").stat().st_size > report.flatbuffer_bytes
    assert report.energy.actions > 0
    # This process has numpy loaded, and fits in a small machine.
    assert report.resident_bytes is not None
    assert 20e6 < report.resident_bytes < 20e9
    assert report.energy.joules_per_action > 0
    assert report.conditions.runtime.threads == 1
    assert from_plain(BenchReport, json.loads(to_json(report)), "report") == report


def test_an_estimate_is_called_one_wherever_it_shows() -> None:
    report = bench(DATA / "arm-int8.tflite", n=100, warmup=1, energy_window_s=0.05)
    label = "measured" if report.energy.measured else "ESTIMATE"
    assert f"({label})" in bench_text(report)


@pytest.mark.parametrize(
    "options",
    [{"n": 1}, {"n": 10**12}, {"cpu_watts": -5.0}, {"cpu_watts": math.nan}, {"energy_window_s": 0.0}, {"threads": 0}],
)
def test_a_bench_of_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="it was given"):
        bench(DATA / "arm-int8.tflite", **options)
