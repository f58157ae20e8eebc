import importlib
import json
import re
import statistics
from pathlib import Path

import pytest

from tfqrl import agents, zoo

DOCS = Path(__file__).parents[3] / "docs" / "algorithms"


@pytest.mark.parametrize("name", agents.TRAINABLE)
def test_each_algorithm_has_a_page_with_every_metric(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    table = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    metrics = importlib.import_module(f"tfqrl.agents.{name}").METRICS
    assert [row for row in table if row in metrics] == list(metrics)
    # The rest is what the loop of rollouts adds.
    assert set(table) - set(metrics) <= {"explained_variance", "learning_rate"}
    assert f"[{name}]({name}.md)" in (DOCS / "README.md").read_text()


@pytest.mark.parametrize("name", agents.TRAINABLE)
def test_each_page_has_a_command_of_the_zoo_and_what_it_gave(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    train = re.search(rf"\$ tfqrl train {name} --env (\S+) --steps (\d+) --seed (\d+) --out (\S+)\n", page)
    gave = re.search(r"^gave a return of (\S+) here \(`(results/algorithms/\S+)`\)", page, re.MULTILINE)
    assert train is not None
    assert gave is not None
    result = json.loads((DOCS.parents[1] / gave[2]).read_text())
    assert (result["library"], result["algorithm"], result.get("options", "")) == ("tfqrl", name, "")
    assert (result["env"], str(result["steps"]), str(result["seed"])) == train.group(1, 2, 3)
    assert train[1] in zoo.environments(name)
    assert gave[1] == f"{statistics.mean(result['returns']):.1f}"
    episodes = f"--episodes {len(result['returns'])} --seed {result['first_seed']}"
    assert f"$ tfqrl evaluate {train[4]} {episodes}\n" in page
