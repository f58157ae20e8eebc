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


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({}, "The books balance, and nothing is left or grows."),
        ({"exit_code": 1}, "Not reached: exit code 1."),
        ({"balanced": False}, "Not reached: the books do not balance."),
        ({"processes_left": 2}, "Not reached: 2 processes were left."),
        (
            {"memory_growth_mib_per_10_min": {"actor": 3.0}},
            "Not reached: memory of the actor processes grew by 3.0 MiB in 10 minutes, 1.5%.",
        ),
    ],
)
def test_what_kills_leave_behind_is_said(changed: dict[str, Any], text: str) -> None:
    result = {
        "command": "python benchmarks/actorq_faults.py",
        "commit": "1234567",
        "actors": 4,
        "every_s": 60.0,
        "exit_code": 0,
        "minutes": 30.1,
        "kills": 29,
        "replaced": {"died": 30, "hung": 0},
        "account": {"stepped": 1000, "inserted": 990, "lost": 10},
        "balanced": True,
        "processes_left": 0,
        "memory_growth_mib_per_10_min": {"actor": 1.0},
        "memory_mib": [{"s": 10.0, "actor": 50.0}, {"s": 20.0, "actor": 200.0}],
    }
    lines = actorq_section.faults_section(result | changed)
    assert lines[2].endswith(text)
    assert "29 killed; replaced: 30 died. Transitions: 1,000 stepped, 990 inserted, 10 lost;" in lines[2]
    assert lines[-1].startswith("| actors together | 200 | +")
