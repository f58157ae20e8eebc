import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from fakes import DATA

from edge import cli, compare
from edge.bench import BenchReport, Entry, bench
from edge.records import to_json
from edge.report import compare_text
from edge.stats import Estimate, Latency


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return bench([DATA / "arm-float32.tflite", DATA / "arm-int8.tflite"], n=100, energy_windows=0)


def with_act_p50(report: BenchReport, value: float, low: float, high: float) -> BenchReport:
    def changed(entry: Entry) -> Entry:
        return dataclasses.replace(entry, act_us=dataclasses.replace(entry.act_us, p50=Estimate(value, low, high)))

    return dataclasses.replace(report, entries=tuple(changed(entry) for entry in report.entries))


def test_a_report_does_not_differ_from_itself(report: BenchReport) -> None:
    result = compare.compare(report, report)
    assert len(result.differences) == 2 * 4
    assert not any(difference.carried for difference in result.differences)
    assert result.conditions == ()
    assert "not shown to differ" in compare_text(result)


def test_two_runs_of_the_same_thing_are_rarely_called_different(report: BenchReport) -> None:
    # Processes differ by 10 % and their calls by far less: the noise that a run cannot see within one process.
    rng = np.random.default_rng(0)

    def run() -> BenchReport:
        levels_ns = rng.normal(2000, 200, (2, 5, 1))
        act, invoke = (Latency.of_ns(rows.round()) for rows in levels_ns + rng.normal(0, 10, (2, 5, 200)))
        entry = dataclasses.replace(report.entries[0], act_us=act, invoke_us=invoke)
        return dataclasses.replace(report, entries=(entry,))

    comparisons = [compare.compare(run(), run()) for _ in range(150)]
    carried = [difference.carried for comparison in comparisons for difference in comparison.differences]
    assert len(carried) == 600
    assert np.mean(carried) < 0.05


@pytest.mark.parametrize(("low", "high", "carried"), [(1.9, 2.1, True), (1.05, 3.0, False), (0.4, 0.6, True)])
def test_only_intervals_that_lie_apart_carry_a_difference(
    report: BenchReport, low: float, high: float, carried: bool
) -> None:
    a, b = with_act_p50(report, 1.0, 0.9, 1.1), with_act_p50(report, (low + high) / 2, low, high)
    difference = compare.compare(a, b).differences[0]
    assert difference.figure == "act p50, us"
    assert difference.carried is carried
    assert difference.ratio.low == pytest.approx(low / 1.1)
    assert difference.ratio.high == pytest.approx(high / 0.9)


def test_other_conditions_models_and_contenders_are_told(report: BenchReport) -> None:
    board = dataclasses.replace(report.conditions, board="Raspberry Pi 5", load_1min=9.0)
    entry = dataclasses.replace(report.entries[0], sha256="0" * 64)
    other = dataclasses.replace(report, conditions=board, entries=(entry,))
    result = compare.compare(report, other)
    assert [name for name, _, _ in result.conditions] == ["board"]
    assert result.only_a == ("arm int8",)
    assert any("arm float32 is not the same model" in warning for warning in result.warnings)
    assert any(warning.startswith("b: The machine was busy") for warning in result.warnings)


def test_the_command_compares_files_and_writes_json(
    report: BenchReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(to_json(report))
    words = ["compare", str(tmp_path / "a.json"), str(tmp_path / "a.json"), "--json", str(tmp_path / "c.json")]
    assert cli.main(words) == 0
    assert "not shown to differ" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "c.json").read_text())["differences"]) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no bench report of version 2"),
        ('{"schema_version": 1}', "(it says 1)"),
        ('{"schema_version": 2}', "does not follow the schema"),
    ],
)
def test_files_that_are_no_reports_are_refused(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    assert cli.main(["compare", str(path), str(path)]) == 1
    assert message in capsys.readouterr().err


def test_a_report_that_never_ends_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "/dev/zero", "x.json"]) == 1
    assert "Cannot read /dev/zero: it is not a regular file" in capsys.readouterr().err


def test_two_contenders_with_one_label_cannot_be_compared(report: BenchReport, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(to_json(dataclasses.replace(report, entries=report.entries[:1] * 2)))
    with pytest.raises(compare.ReportError, match="two contenders with the same label"):
        compare.read(tmp_path / "a.json")


def test_another_delegate_is_another_condition(report: BenchReport) -> None:
    slower = dataclasses.replace(report.entries[0].runtime, delegate="none")
    entries = tuple(dataclasses.replace(entry, runtime=slower) for entry in report.entries)
    ((name, _, b),) = compare.compare(report, dataclasses.replace(report, entries=entries)).conditions
    assert (name, "delegate none" in b) == ("runtime", True)
