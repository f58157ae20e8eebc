from dataclasses import replace

import qabp_section

from edge.stats import Estimate
from tfqrl.study.tables import Findings, Row

ROW = Row(
    *("td3-A", "td3", "qabp", "int8x4", "qabp", None, 0.91, 0.2, 0.6, (98.0, 100.0), 99.0),
    *("more", Estimate(0.05, 0.0, 0.1), 4096.0, None, None, 0, 0, None),
)


def row(method: str, each: tuple[float, ...], coded: float, recipe: str = "int8x4") -> Row:
    return replace(ROW, method=method, recipe=recipe, each=each, coded_bits_per_weight=coded)


FOUND = Findings(
    schema_version=4,
    title="QABP",
    command=("tfqrl", "study", "it.yaml"),
    baseline="float",
    control="more",
    returns={"td3-A": Estimate(100.0, 90.0, 110.0)},
    rows=(
        row("more", (50.0, 52.1), 8.0, "int8"),
        row("more", (150.0, 152.0), 32.0, "float32"),
        row("prune-qat", (90.0, 99.0), 0.9),
        ROW,
    ),
    mean_errors=(),
    algorithm_errors={},
    measured_on=None,
    lowest_bits={},
)


def said(*rows: Row) -> str:
    return qabp_section.qabp_section(replace(FOUND, rows=rows))[4]


def test_it_is_to_return_as_much_in_no_more_bits() -> None:
    text = said(*FOUND.rows)
    assert text.startswith(
        "td3-A: in no more coded bits QABP returns as much as the other in 2 of 2 pairings, for certain more in 1. With"
    )
    assert text.endswith("at the most, it keeps 99.0% of the dense return; wanted were 97%: reached.")
    assert "(qabp returns less than vnq, int8x4)" in said(*FOUND.rows, row("vnq", (190.0, 192.0), 1.5))
    assert "(qabp returns less in the mean than vnq" in said(*FOUND.rows, row("vnq", (80.0, 192.0), 1.5))
    assert "(qabp has more bits than prune-qat-er, int8x4)" in said(*FOUND.rows, row("prune-qat-er", (1.0, 2.0), 0.1))


def test_pairings_are_of_the_same_seeds_and_of_those_named() -> None:
    assert "of 2 pairings" in said(*FOUND.rows, row("vnq", (1.0,), 1.5), row("prune-qat-97", (1.0, 2.0), 1.5))
    lines = qabp_section.qabp_section(FOUND)
    assert any(line.startswith("| td3-A | qabp | more, int8 | ") and line.endswith("| beats it |") for line in lines)


def test_what_keeps_too_many_weights_does_not_count() -> None:
    assert "keeps 0.0% of the dense return; wanted were 97%: not reached." in said(
        *FOUND.rows[:3], replace(ROW, sparsity=0.8)
    )
    assert said(*FOUND.rows[:3]) == "td3-A: QABP, or all that it is measured against, is missing."


def test_rows_and_ablations() -> None:
    lines = qabp_section.qabp_section(FOUND)
    row_of = "| td3-A: qabp | int8x4 | 99.0 | 98.0, 100.0 | 99.0% | +5.0% [0.0%, +10.0%] | 91.0% | 0.2 | 0.6 |"
    assert row_of in lines
    ablated = replace(FOUND, rows=(*FOUND.rows, row("no-tuning", (60.0, 60.0), 0.2)))
    lines = qabp_section.qabp_section(ablated)
    assert "### What of it matters, on td3-A" in lines
    assert lines[-2].startswith("| qabp | the method | 99.0 |")
    assert lines[-1].startswith("| no-tuning | no training on the fixed grid")
