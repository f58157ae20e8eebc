import algorithms_section
import pytest

PLAN = {
    "runs": [
        {"algorithm": "ppo", "env": "A", "steps": 1000000, "seeds": [10, 11, 12]},
        {"algorithm": "td3", "env": "dmc:b", "steps": 300000, "seeds": [10]},
        {"algorithm": "ppo", "env": "A", "steps": 3000000, "seeds": [10]},
        {"algorithm": "ppo", "env": "A", "steps": 1000000, "options": "--fast", "seeds": [10]},
        {"library": "stable-baselines3", "algorithm": "td3", "env": "dmc:b", "steps": 300000, "seeds": [10]},
    ],
    "published": [
        {"algorithm": "ppo", "env": "A", "steps": 1000000, "return": 5.0, "spread": 0.5, "source": "them"},
        {"algorithm": "td3", "env": "dmc:b", "steps": 1000000, "return": 9.0, "source": "others"},
        {"algorithm": "td3", "env": "A", "steps": 1000000, "return": 9.0, "source": "nobody"},
    ],
}


def result(algorithm: str, env: str, steps: int, returns: list[float], **more: object) -> dict:
    return {
        "library": "tfqrl",
        "algorithm": algorithm,
        "env": env,
        "steps": steps,
        "returns": returns,
        "curve": [(steps // 2, 1.0), (steps, 2.0)],
        "steps_per_s": 1234.0,
        "attempts": [{"commit": "abc", "threads": 1}],
        **more,
    }


def rows(results: list[dict]) -> list[str]:
    return [line for line in algorithms_section.algorithms_section(PLAN, results) if line.startswith("| ")][1:]


def test_what_is_not_there_is_said_to_be_missing() -> None:
    assert rows([]) == [
        "| A | ppo | 1M | missing | (0 of 3) | 5.0 ± 0.5 (them) |  | missing |",
        "| A | ppo | 3M | missing | (0 of 1) | 5.0 ± 0.5 at 1M (them) |  | missing |",
        "| A | ppo `--fast` | 1M | missing | (0 of 1) | 5.0 ± 0.5 (them) |  | missing |",
        "| dmc:b | td3 | 300k | missing | (0 of 1) | 9.0 at 1M (others) | missing | missing |",
    ]
    assert not any("figures/" in line for line in algorithms_section.algorithms_section(PLAN, []))


def test_the_spread_is_that_of_seeds_not_of_episodes() -> None:
    results = [
        result("ppo", "A", 1000000, [0.0, 4.0]),
        result("ppo", "A", 1000000, [5.0, 7.0]),
        result("ppo", "A", 1000000, [9.0], options="--fast"),
        result("td3", "dmc:b", 300000, [3.0, 5.0], steps_per_s=99.6),
        result("td3", "dmc:b", 300000, [1.0], library="stable-baselines3"),
    ]
    assert rows(results) == [
        "| A | ppo | 1M | 4.0 ± 2.8 | 2.0, 6.0 (2 of 3) | 5.0 ± 0.5 (them) |  | 1,234 |",
        "| A | ppo | 3M | missing | (0 of 1) | 5.0 ± 0.5 at 1M (them) |  | missing |",
        "| A | ppo `--fast` | 1M | 9.0 | 9.0 | 5.0 ± 0.5 (them) |  | 1,234 |",
        "| dmc:b | td3 | 300k | 4.0 | 4.0 | 9.0 at 1M (others) | 1.0 | 100 |",
    ]
    lines = algorithms_section.algorithms_section(PLAN, results)
    assert "at commit abc." in lines[2]
    assert [line for line in lines if "figures/" in line] == [
        "![Learning curves on A](figures/algorithms-A.svg)",
        "![Learning curves on dmc:b](figures/algorithms-dmc-b.svg)",
    ]


def test_each_environment_has_a_figure_that_names_algorithm_and_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    # Text as text, not as shapes.
    monkeypatch.setitem(algorithms_section.axes_of_curves.__globals__["matplotlib"].rcParams, "svg.fonttype", "none")
    results = [
        result("ppo", "A", 1000000, [1.0]),
        result("ppo", "A", 1000000, [1.0], options="--fast"),
        result("td3", "dmc:b", 300000, [1.0]),
        result("td3", "dmc:b", 300000, [1.0], library="stable-baselines3"),
    ]
    figures = algorithms_section.figures(results)
    assert list(figures) == ["algorithms-A.svg", "algorithms-dmc-b.svg"]
    assert "ppo, 1M, --fast" in figures["algorithms-A.svg"]
    assert "td3, 300k, stable-baselines3" in figures["algorithms-dmc-b.svg"]
    assert figures == algorithms_section.figures(results)
