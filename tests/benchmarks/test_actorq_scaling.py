"""The page about scaling is what its data say."""

import json
from pathlib import Path

import actorq_scaling
import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("actorq_actors", "actorq_learner", "actorq")


def test_a_page_is_drawn_between_its_marks() -> None:
    page = f"above\n{actorq_scaling.BEGIN}\nold\n{actorq_scaling.END}\nbelow\n"
    drawn = actorq_scaling.redrawn(page, ["new"])
    assert drawn == f"above\n{actorq_scaling.BEGIN}\n\nnew\n\n{actorq_scaling.END}\nbelow\n"
    assert actorq_scaling.redrawn(drawn, ["new"]) == drawn


def test_the_page_is_that_of_the_results() -> None:
    paths = [ROOT / "results" / f"{name}.json" for name in NAMES]
    page = (ROOT / "docs" / "actorq-scaling.md").read_text()
    assert all(path.exists() for path in paths)
    measured = {name: json.loads(path.read_text()) for name, path in zip(NAMES, paths)}
    assert actorq_scaling.redrawn(page, actorq_scaling.drawn(measured)) == page


def test_a_message_is_sent_every_push_every_steps() -> None:
    trainings = [{"steps": 300, "actors": {"insert": insert}} for insert in (0.1, 0.2, 0.9)]
    found = actorq_scaling.send_s({"results": [{"trainings": trainings}]})
    assert found == pytest.approx(0.2 / 10)
