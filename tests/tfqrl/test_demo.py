import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tfqrl import cli, demo


class Page(HTMLParser):
    """Collects tags and what they refer to; every tag has to be closed."""

    VOID = ("meta", "br", "img", "link", "path", "use")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_a_small_demo_goes_the_whole_way_and_says_that_it_did_not_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "STEPS", 2048)
    monkeypatch.setattr(demo, "EPISODES", 3)
    monkeypatch.setattr(demo, "LOOP_S", 0.5)
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out)]) == 1
    text = capfd.readouterr().out
    assert "DOES NOT REACH the wanted 9000" in text
    assert re.search(r"^int8 .* us .*J", text, re.MULTILINE)

    html = (out / "report.html").read_text()
    page = Page()
    page.feed(html)
    assert page.open == []
    assert page.seen.count("svg") == 3
    assert page.seen.count("tr") == 3
    assert all(reference.startswith("#") for reference in page.references), "the page must need nothing from outside"
    assert "DOES NOT REACH" in html

    # Once more into the same folder: what is there is replaced.
    assert cli.main(["demo", "--out", str(out)]) == 1
