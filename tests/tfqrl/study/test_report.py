"""Tables and the page, from results that are made up."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import screenshot

from edge.conditions import Conditions
from tfqrl.compress.report import LayerReport
from tfqrl.study import report
from tfqrl.study.outcome import SCHEMA_VERSION, Outcome, Policy, Weights
from tfqrl.study.plan import Method, Study, Task
from tfqrl.study.tables import Fewest, Findings, findings

STUDY = Study(
    "Made <up>",
    (Task("ppo", "Here-v0", 10), Task("sac", "There-v0", 10)),
    {
        "float": Method(recipes=("float32", "int8")),
        "qat-8": Method(recipes=("int8",)),
        "qat-4": Method(recipes=("int8x4",)),
        "qat-3": Method(recipes=("int8x4",)),
        "prune": Method(recipes=("float32",)),
    },
    seeds=(0, 1),
    episodes=2,
)
LAYER = LayerReport("hidden_0", (2, 3), 3, 3, 96, 32, 100.0, 6)
WEIGHTS = Weights("hidden_0", (2, 3), 0.5, -1.0, 1.0, 0.4, (-1.0, 0.0, 1.0), (2, 4))


def outcome(task: str, method: str, seed: int, returns: dict[str, float], compress: dict[str, Any] | None) -> Outcome:
    """Policies whose episodes all return the same but for one either way."""
    name = (compress or {}).get("method")
    layer = replace(LAYER, log_alpha=(1,) * 16, left=2, max_bits=4, total_bits=6) if name == "qabp" else LAYER
    return Outcome(
        schema_version=SCHEMA_VERSION,
        cell=f"{task}-{method}-s{seed}",
        task=task,
        method=method,
        seed=seed,
        algorithm=task.split("-")[0],
        env="Here-v0",
        train=(),
        begins_with=None,
        config={"compress": compress},
        origin=None,
        versions={"tfqrl": "1"},
        conditions=Conditions.now(),
        training_s=3600.0,
        first_seed=7,
        returns=(99.0, 101.0),
        policies=tuple(Policy(r, "0" * 64, 2000, 1000, 500, None, (v - 1, v + 1)) for r, v in returns.items()),
        weights=(WEIGHTS, replace(WEIGHTS, layer="output", shape=(6,), zeros=0.0)),
        layers=(layer, replace(layer, layer="output", shape=(6, 1))),
        curve=((5, 90.0), (10, 100.0 + seed)),
        keep="last",
        deployed_steps=10,
        complete=name != "qabp" or seed == 0,
    )


def outcomes() -> list[Outcome]:
    found = []
    for task, kept in (("ppo-Here-v0", 1.0), ("sac-There-v0", 0.9)):
        for seed in (0, 1):
            found += [
                outcome(task, "float", seed, {"float32": 100.0, "int8": 99.0 * kept}, None),
                outcome(task, "qat-8", seed, {"int8": 99.0}, {"method": "qat", "weight_bits": 8}),
                outcome(task, "qat-4", seed, {"int8x4": 98.0 * kept}, {"method": "qat", "weight_bits": 4}),
                outcome(task, "qat-3", seed, {"int8x4": 80.0}, {"method": "qat", "weight_bits": 3}),
                outcome(task, "prune", seed, {"float32": 97.0}, {"method": "prune"}),
            ]
    return found


def found() -> Findings:
    return findings(STUDY, outcomes(), {}, ["tfqrl", "study", "made-up.yaml"])


def test_each_method_and_recipe_of_a_task_is_a_row_over_its_seeds() -> None:
    rows = {(row.task, row.method, row.recipe): row for row in found().rows}
    assert len(rows) == 12
    row = rows["sac-There-v0", "float", "int8"]
    assert (row.seeds, row.bits, row.sparsity) == (2, None, 0.25)
    assert row.mean_return == pytest.approx(89.1)
    # Half of the weights are left, of 8 bits each once they are converted.
    assert (row.bits_per_weight, rows["sac-There-v0", "float", "float32"].bits_per_weight) == (4.0, 16.0)
    # Of 100 bits in each layer those of its 3 weights that int8 spares.
    assert row.coded_bits_per_weight == pytest.approx(200 / 12 - 24 * 0.5)
    assert row.error is not None
    assert row.error.value == pytest.approx(0.109)


def test_means_are_over_tasks_and_the_fewest_bits_are_those_that_keep_97_percent() -> None:
    result = found()
    means = {(mean.method, mean.recipe): mean for mean in result.mean_errors}
    assert means["float", "int8"].error.value == pytest.approx((0.01 + 0.109) / 2)
    assert means["float", "int8"].tasks == 2
    assert means["float", "int8"].over_tasks.high > means["float", "int8"].error.high
    assert means["float", "int8"].left_out == ()
    assert result.algorithm_errors == {}
    again = [replace(one, task="sac-Again-v0") for one in outcomes() if one.task == "sac-There-v0"]
    (mean,) = findings(STUDY, [*outcomes(), *again], {}, []).algorithm_errors["sac"][1:]
    assert (mean.method, mean.recipe, mean.tasks) == ("float", "int8", 2)
    assert mean.error.value == pytest.approx(0.109)
    assert result.lowest_bits == {"ppo-Here-v0": Fewest(4, certain=True), "sac-There-v0": Fewest(8, certain=True)}


def test_a_width_is_enough_only_if_all_larger_ones_are() -> None:
    some = [
        replace(one, policies=(replace(one.policies[0], returns=(kept - 1, kept + 1)),))
        for one in outcomes()
        if (kept := {"qat-8": 99.0, "qat-4": 90.0, "qat-3": 99.0, "float": 100.0}.get(one.method)) is not None
    ]
    # Its other seed is worse, so that the interval reaches beyond.
    some = [
        replace(one, policies=(replace(one.policies[0], returns=(94.0, 98.0)),))
        if (one.task, one.method, one.seed) == ("sac-There-v0", "qat-8", 1)
        else one
        for one in some
    ]
    result = findings(STUDY, some, {}, [])
    assert result.lowest_bits == {"ppo-Here-v0": Fewest(8, certain=True), "sac-There-v0": Fewest(8, certain=False)}
    assert report.fewest_bits(result, "sac-There-v0") == "(8)"
    # A second method of 4 bits that is luckier does not count.
    lucky = [replace(one, method="qat-4-again") for one in outcomes() if one.method == "qat-4"]
    assert findings(STUDY, [*some, *lucky], {}, []).lowest_bits == result.lowest_bits


def test_what_goes_on_is_compared_with_what_goes_on_without_compression() -> None:
    study = replace(STUDY, methods={**STUDY.methods, "more": Method()}, control="more")
    some = [replace(one, begins_with=None if one.method == "float" else "it") for one in outcomes()]
    some += [
        replace(
            outcome("ppo-Here-v0", "more", seed, {"float32": 150.0}, None), returns=(149.0, 151.0), begins_with="it"
        )
        for seed in (0, 1)
    ]
    rows = {(row.task, row.method, row.recipe): row for row in findings(study, some, {}, []).rows}
    references = {key: row.reference for key, row in rows.items()}
    # That of the other task has no control.
    assert references["ppo-Here-v0", "qat-8", "int8"] == "more"
    assert references["sac-There-v0", "qat-8", "int8"] == "float"
    assert references["ppo-Here-v0", "more", "float32"] == references["ppo-Here-v0", "float", "int8"] == "float"
    error = rows["ppo-Here-v0", "qat-8", "int8"].error
    assert error is not None
    assert error.value == pytest.approx(51 / 150)
    assert (rows["ppo-Here-v0", "qat-8", "int8"].trained_return, rows["ppo-Here-v0", "qat-8", "int8"].each) == (
        100.0,
        (99.0, 99.0),
    )


def test_a_task_whose_return_is_near_zero_is_left_out_and_named() -> None:
    some = [
        replace(one, returns=(3.0 - 5 * one.seed,) * 2) if one.cell.startswith("ppo-Here-v0-float") else one
        for one in outcomes()
    ]
    third = [replace(one, task="td3-Else-v0") for one in outcomes() if one.task == "sac-There-v0"]
    result = findings(STUDY, [*some, *third], {}, [])
    (mean,) = (mean for mean in result.mean_errors if (mean.method, mean.recipe) == ("float", "int8"))
    assert (mean.tasks, mean.left_out) == (2, ("ppo-Here-v0",))
    assert "Without ppo-Here-v0: no relative error." in report.text(result, {})


def test_what_bayesian_policies_leave_is_drawn_against_return() -> None:
    some = [*outcomes(), *(outcome("ppo-Here-v0", "qabp", s, {"int8x4": 99.0}, {"method": "qabp"}) for s in (0, 1))]
    result = findings(STUDY, some, {}, [])
    (row,) = (row for row in result.rows if row.method == "qabp")
    assert row.bits_per_weight == 1.0
    page = report.study_page(result, some, 0)
    assert "ppo-Here-v0, qabp, int8x4: 1 of 2 seeds are not as small as they were to be." in page
    for part in ("Return against bits", "Noise of weights", "Learning curves"):
        assert part in page
    # Of each task return by bits and a legend; noise of one policy.
    assert page.count("<svg") == report.study_page(found(), outcomes(), 0).count("<svg") + 3 + 1


def test_a_recipe_that_failed_on_one_task_has_no_mean_and_a_student_is_no_qat() -> None:
    failed = Policy("int8", failure="No.")
    some = [
        replace(one, policies=(one.policies[0], failed)) if one.cell.startswith("ppo-Here-v0-float") else one
        for one in outcomes()
    ]
    student = outcome("sac-There-v0", "student", 0, {"int8x4": 99.5}, {"method": "qat", "weight_bits": 3})
    students = [replace(student, algorithm="distill", seed=seed) for seed in (0, 1)]
    result = findings(STUDY, [*some, *students], {}, [])
    assert result.lowest_bits["sac-There-v0"] == Fewest(8, certain=True)
    page = report.study_page(result, some, 0)
    assert "student" in page[page.index("Other methods") :]
    assert [mean.recipe for mean in result.mean_errors if mean.method == "float"] == ["float32"]


def test_a_policy_that_could_not_be_made_is_in_the_table_and_says_why() -> None:
    some = outcomes()
    some[0] = replace(some[0], policies=(Policy("int8", failure="It has no bias."),))
    result = findings(STUDY, some[:1], {}, [])
    assert report.cells(result.rows[0])[3:11] == ["-", "-", "-", "float", "-", "-", "25%", "4"]
    assert "It has no bias." in report.text(result, {"other": "It was stopped."})
    assert "other: It was stopped." in report.text(result, {"other": "It was stopped."})


def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(report.study_page(found(), outcomes(), 3))
    text = screenshot(page, tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    for part in (
        "Made &lt;up&gt;",
        "20 trainings; 3 are missing",
        "sac-There-v0: trained on grids, 8 bits are the fewest",
        "+10.9%",
    ):
        assert part in text, part
    # Two tasks, their bits, their weights and their curves, and three ways to pay with a legend.
    assert text.count("<svg") == 10
    for outside in ("http://", "https://"):
        links = [line for line in text.splitlines() if f'href="{outside}' in line or f'src="{outside}' in line]
        assert links == []
