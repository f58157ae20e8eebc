from typing import Any

import actorq_section
import pytest

OPTIONS = "--actors 4 --actor-precision "
ENTRY = {"library": "actorq", "algorithm": "d4pg", "env": "dmc:a", "steps": 100000, "seeds": [10, 11]}
PLAN: dict[str, Any] = {
    "runs": [
        {"algorithm": "d4pg", "env": "dmc:a", "steps": 100000, "seeds": [10]},
        *({**ENTRY, "options": OPTIONS + precision} for precision in ("float32", "int8")),
    ]
}


def runs(precision: str, *means: float) -> list[dict[str, Any]]:
    entry = {**ENTRY, "options": OPTIONS + precision}
    return [{**entry, "returns": [mean - 1.0, mean + 1.0]} for mean in means]


def drawn(results: list[dict[str, Any]]) -> tuple[str, str]:
    """What is said, and the only row."""
    lines = actorq_section.returns_section(PLAN, results)
    return lines[2], lines[-1]


def test_returns_that_are_not_there_are_said_to_be_missing() -> None:
    said, row = drawn(runs("float32", 10.0))
    assert row == "| d4pg on dmc:a, 100k | 10.0 | 10.0 (1 of 2) | missing | (0 of 2) | missing |"
    assert said.endswith("Nothing can be compared yet.")
    assert "with `--actors 4` and actors" in said


@pytest.mark.parametrize(
    ("int8", "difference", "text"),
    [
        ((8.0, 10.0), "-2.0", "That is so."),  # as much as float32's seeds differ by
        ((5.0, 5.0), "-6.0", "Not reached: dmc:a: 6.0 below, the spread is 2.8."),
        ((20.0, 22.0), "+10.0", "That is so."),
    ],
)
def test_int8_is_to_be_within_the_spread(int8: tuple[float, ...], difference: str, text: str) -> None:
    said, row = drawn(runs("float32", 9.0, 13.0) + runs("int8", *int8))
    assert row.startswith("| d4pg on dmc:a, 100k | 11.0 ± 2.8 | 9.0, 13.0 |")
    assert row.endswith(f"| {difference} |")
    assert text in said


def test_weights_are_streamed_by_bytes() -> None:
    def actor(name: str, inference_us: float, push_bytes: int) -> dict[str, Any]:
        us = {"environment": 100.0, "inference": inference_us}
        return {"actor": name, "push_bytes": push_bytes, "us_per_step": us}

    measured = {"actors": [actor("int8", 500.0, 8), actor("float32", 1200.0, 32)]}
    # 1300 us against 100 us and a quarter of 1200.
    assert actorq_section._if_streamed(measured) == 3.25
