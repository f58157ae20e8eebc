"""The page about scaling is what its data say."""

import json
from pathlib import Path

import actorq_scaling

ROOT = Path(__file__).parents[2]


def test_a_page_is_drawn_between_its_marks() -> None:
    page = f"above\n{actorq_scaling.BEGIN}\nold\n{actorq_scaling.END}\nbelow\n"
    drawn = actorq_scaling.redrawn(page, ["new"])
    assert drawn == f"above\n{actorq_scaling.BEGIN}\n\nnew\n\n{actorq_scaling.END}\nbelow\n"
    assert actorq_scaling.redrawn(drawn, ["new"]) == drawn


def test_the_page_is_that_of_the_results() -> None:
    names = (*actorq_scaling.NEEDED, actorq_scaling.CHECKED)
    paths = {name: ROOT / "results" / f"{name}.json" for name in names}
    measured = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
    page = (ROOT / "docs" / "actorq-scaling.md").read_text()
    assert actorq_scaling.redrawn(page, actorq_scaling.drawn(measured)) == page, "run `make results`"
