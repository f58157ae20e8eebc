import importlib
import re
from pathlib import Path

import pytest

from tfqrl import agents, zoo

DOCS = Path(__file__).parents[3] / "docs" / "algorithms"


@pytest.mark.parametrize("name", agents.TRAINABLE)
def test_each_algorithm_has_a_page_with_every_metric_and_a_command_of_the_zoo(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    table = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    metrics = importlib.import_module(f"tfqrl.agents.{name}").METRICS
    assert [row for row in table if row in metrics] == list(metrics)
    # The rest is what the loop of rollouts adds.
    assert set(table) - set(metrics) <= {"explained_variance", "learning_rate"}
    command = re.search(rf"\$ tfqrl train {name} --env (\S+) --seed 0 --out ", page)
    assert command is not None
    assert command[1] in zoo.environments(name)
    assert f"[{name}]({name}.md)" in (DOCS / "README.md").read_text()
