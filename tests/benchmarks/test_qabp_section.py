from dataclasses import replace

import qabp_section

from edge.stats import Estimate
from tfqrl.study.tables import Findings, Row

ROW = Row(
    *("td3-A", "td3", "qabp", "int8x4", "qabp", None, 0.91, 0.2, (98.0, 100.0), 99.0),
    *("more", Estimate(0.05, 0.0, 0.1), 4096.0, None, None, 0, 0, None),
)


def row(method: str, value: float, bits: float, recipe: str = "int8x4") -> Row:
    return replace(ROW, method=method, recipe=recipe, each=(value, value), bits_per_weight=bits)


FOUND = Findings(
    schema_version=3,
    title="QABP",
    command=("tfqrl", "study", "it.yaml"),
    baseline="float",
    control="more",
    returns={"td3-A": Estimate(100.0, 90.0, 110.0)},
    rows=(
        row("float", 100.0, 32.0, "float32"),
        row("float", 95.0, 8.0, "int8"),
        row("prune-qat", 97.0, 0.4),
        ROW,
    ),
    mean_errors=(),
    measured_on=None,
    lowest_bits={},
)


def said(*rows: Row) -> str:
    return qabp_section.qabp_section(replace(FOUND, rows=rows))[4]


def test_it_is_to_return_as_much_in_no_more_bits() -> None:
    text = said(*FOUND.rows)
    assert text.startswith("td3-A: QABP of no more bits returns at least as much as every other compressed policy.")
    assert text.endswith("With 90% of weights gone it keeps 99.0% of the dense return; wanted were 97%: reached.")
    better = said(*FOUND.rows, row("vnq", 120.0, 1.5))
    assert "vnq, int8x4 returns 120.0, QABP of no more bits 99.0." in better
    assert "prune-qat-97, int8x4 has fewer bits than each of them" in said(*FOUND.rows, row("prune-qat-97", 10.0, 0.1))


def test_what_keeps_too_many_weights_does_not_count() -> None:
    assert "keeps 0.0% of the dense return; wanted were 97%: not reached." in said(replace(ROW, sparsity=0.8))
    assert said(*FOUND.rows[:3]) == "td3-A: QABP is missing."


def test_rows_and_ablations() -> None:
    lines = qabp_section.qabp_section(FOUND)
    assert lines[-2] == ("| td3-A: qabp | int8x4 | 99.0 | 98.0, 100.0 | 99.0% | +5.0% [0.0%, +10.0%] | 91.0% | 0.2 |")
    ablated = replace(FOUND, rows=(*FOUND.rows, row("no-tuning", 60.0, 0.2)))
    lines = qabp_section.qabp_section(ablated)
    assert "### What of it matters, on td3-A" in lines
    assert lines[-2].startswith("| qabp | the method | 99.0 |")
    assert lines[-1].startswith("| no-tuning | no training on the fixed grid")
