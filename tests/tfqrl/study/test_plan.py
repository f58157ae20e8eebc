from pathlib import Path
from typing import Any

import pytest
import yaml

from edge.errors import UsageError, UserError
from tfqrl.study import plan

STUDY: dict[str, Any] = {
    "title": "A study",
    "seeds": [3, 4],
    "methods": {
        "float": {"recipes": ["float32", "int8"]},
        "qat-4": {"train": "--compress qat --weight-bits 4", "recipes": ["int8x4"]},
    },
    "tasks": [
        {"algorithm": "ppo", "env": "CartPole-v1", "steps": 1000},
        {
            "algorithm": "sac",
            "env": "Pendulum-v1",
            "steps": 900,
            "continued_steps": 100,
            "seeds": [5],
            "continued": "--tau 0.1",
        },
    ],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
    return path


def test_cells_are_tasks_by_methods_by_seeds(tmp_path: Path) -> None:
    cells = plan.cells(plan.load(written(tmp_path)))
    assert [cell.name for cell in cells] == [
        "ppo-CartPole-v1-float-s3",
        "ppo-CartPole-v1-float-s4",
        "ppo-CartPole-v1-qat-4-s3",
        "ppo-CartPole-v1-qat-4-s4",
        "sac-Pendulum-v1-float-s5",
        "sac-Pendulum-v1-qat-4-s5",
    ]
    assert cells[2].train == (
        *("ppo", "--env", "CartPole-v1", "--steps", "1000"),
        *("--compress", "qat", "--weight-bits", "4"),
    )
    assert [cell.begins_with for cell in cells] == [None] * 5 + ["sac-Pendulum-v1-float-s5"]
    assert [cell.is_baseline for cell in cells] == [True, True, False, False, True, False]
    assert "100" in cells[5].train
    assert "900" not in cells[5].train


def test_a_cell_that_goes_on_begins_with_the_baselines_policy_and_computes_on_its_grids_at_once(tmp_path: Path) -> None:
    scratch, continued = (plan.cells(plan.load(written(tmp_path)))[i] for i in (2, 5))
    algorithm, config = continued.configuration(Path("out"))
    assert (algorithm, config.init_from, config.seed) == ("sac", "out/sac-Pendulum-v1-float-s5", 5)
    assert (config.compress.delay, config.tau) == (0.0, 0.1)
    assert scratch.configuration(Path("policies"))[1].compress.delay is None


def test_a_distilled_cell_has_the_baselines_policy_as_its_teacher_and_none_of_the_tasks_options(tmp_path: Path) -> None:
    methods = STUDY["methods"] | {"small": {"distill": "--hidden 8 --compress qat", "recipes": ["int8"]}}
    tasks = [STUDY["tasks"][0] | {"train": "--num-envs 32 --env-module toy_envs"}]
    *_, cell = plan.cells(plan.load(written(tmp_path, methods=methods, tasks=tasks)))
    assert cell.begins_with == "ppo-CartPole-v1-float-s4"
    algorithm, config = cell.configuration(Path("policies"))
    assert (algorithm, config.teacher, config.hidden) == ("distill", "policies/ppo-CartPole-v1-float-s4", (8,))
    assert (config.num_envs, config.env_module, config.seed) == (16, "toy_envs", 4)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"taks": []}, "'taks'.*'tasks'"),
        ({"seeds": "all"}, "seeds is 'all'"),
        ({"seeds": []}, "give one or more, each once"),
        ({"seeds": [1, 1]}, "give one or more, each once"),
        ({"episodes": 1}, "at least 2"),
        ({"tasks": []}, "has no tasks"),
        ({"methods": {}}, "has no methods"),
        ({"methods": {"float": {"distill": ""}}}, "it cannot be distilled itself"),
        ({"methods": {"float": {}, "both": {"train": "--hidden 8", "distill": "--hidden 8"}}}, "give one of them"),
        ({"methods": {"float": {"keep": "first"}}}, "'first'"),
        ({"methods": {"float": {"recipes": ["int9"]}}}, "'int9'.*'int8'"),
        ({"tasks": STUDY["tasks"][:1] * 2}, "two tasks called ppo-CartPole-v1"),
        ({"tasks": [STUDY["tasks"][0] | {"methods": ["qat-4"]}]}, "lacks float"),
        ({"tasks": [STUDY["tasks"][0] | {"methods": ["float", "qat-3"]}]}, "'qat-3'.*'qat-4'"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_would_be_right(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=f"(?s){sentence}"):
        plan.load(written(tmp_path, **changes))


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"algorithm": "pop"}, "'pop'.*'ppo'"),
        ({"env": "CartPole-v2"}, "task ppo-CartPole-v2: .*CartPole"),
        (
            {"algorithm": "sac", "steps": 20_000},
            "method float of the task sac-CartPole-v1: .*needs actions that are a vector",
        ),
        ({"train": "--gama '0.9"}, "cannot be split into words"),
        ({"train": "--gama 0.9"}, "'--gama'.*'--gamma'"),
        ({"train": "--num-envs 0"}, "--num-envs must be at least 1"),
        ({"train": "--compress prune --layer-sparsity hiden_0 0.5"}, "'hiden_0'.*'hidden_0'"),
    ],
)
def test_a_training_that_would_be_refused_is_refused_before_any_begins(
    tmp_path: Path, task: dict[str, Any], sentence: str
) -> None:
    study = plan.load(written(tmp_path, tasks=[STUDY["tasks"][1], STUDY["tasks"][0] | task]))
    with pytest.raises(UsageError, match=f"(?s){sentence}"):
        plan.check_cells(plan.cells(study))


def test_what_is_to_be_the_best_has_to_be_evaluated(tmp_path: Path) -> None:
    methods = STUDY["methods"] | {"best": {"keep": "best"}}
    study = plan.load(written(tmp_path, methods=methods))
    assert [cell.keep for cell in plan.cells(study)] == ["last"] * 4 + ["best"] * 2 + ["last", "last", "best"]
    tasks = [STUDY["tasks"][0] | {"keep": "last"}, STUDY["tasks"][1] | {"keep": "best"}]
    kept = plan.load(written(tmp_path, methods=methods, tasks=tasks))
    assert [cell.keep for cell in plan.cells(kept)] == ["last"] * 6 + ["best"] * 3
    student = {"methods": STUDY["methods"] | {"small": {"distill": "--hidden 8"}}, "tasks": tasks[1:]}
    assert [cell.keep for cell in plan.cells(plan.load(written(tmp_path, **student)))] == ["best", "best", "last"]
    with pytest.raises(UsageError, match=r"method best of the task ppo-CartPole-v1: .*add --evaluate-every"):
        plan.check_cells(plan.cells(study))


@pytest.mark.parametrize("name", ["quarl-smoke", "quarl", "quarl-full", "qabp", "qabp-full"])
def test_the_shipped_studies_load(name: str) -> None:
    study = plan.load(Path(__file__).parents[3] / "studies" / f"{name}.yaml")
    cells = plan.cells(study)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in {(cell.task, cell.method): cell for cell in cells}.values():
        cell.configuration(Path("policies"))


def test_trainings_of_one_name_are_refused(tmp_path: Path) -> None:
    tasks = [STUDY["tasks"][0] | {"name": name} for name in ("a:b", "a/b")]
    with pytest.raises(UsageError, match="Two trainings of the study would be called a-b-float-s3"):
        plan.cells(plan.load(written(tmp_path, tasks=tasks)))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Cannot read"):
        plan.load(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="is not YAML"):
        plan.load(tmp_path / "broken.yaml")
