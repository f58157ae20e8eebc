import dataclasses
import json
from pathlib import Path

import pytest
from fakes import DATA

from edge import cli, compare
from edge.bench import BenchReport, Entry, bench
from edge.records import to_json
from edge.report import compare_text
from edge.stats import Estimate


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
