"""What the documents tell a reader to type works."""

import contextlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli as edge_cli
from edge.plants.wiring import Wiring
from tfqrl import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: str, *languages: str) -> list[tuple[str, str]]:
    """Language and text of each block that is marked as one of `languages`."""
    return [block for block in FENCE.findall((ROOT / document).read_text()) if block[0] in languages]


# Blocks marked `sh` and `python` are run here, in order, in one folder. Those marked `console` install things, need
# hardware, or are themselves what runs the tests: their make targets are only looked up.
@pytest.mark.long
@pytest.mark.parametrize(("document", "least"), [("README.md", 6), ("docs/plants.md", 2)])
def test_what_the_documents_show_runs(document: str, least: int, tmp_path: Path) -> None:
    run = blocks(document, "sh", "python")
    assert len(run) >= least
    if document != "README.md":  # which trains its own
        shutil.copy(ROOT / "tests/data/lever-int8.tflite", tmp_path / "policy.tflite")
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for language, text in run:
        if name := re.match(r"# (\w+\.py)\n", text):
            (tmp_path / name[1]).write_text(text)
        words = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_wiring_that_is_shown_is_one(tmp_path: Path) -> None:
    ((_, text),) = blocks("docs/plants.md", "json")
    (tmp_path / "wiring.json").write_text(text)
    assert Wiring.load(tmp_path / "wiring.json").emergency_stop is not None


def test_the_readmes_make_targets_exist() -> None:
    console = "".join(text for _, text in blocks("README.md", "console"))
    targets = re.findall(r"^\$? ?make (\w[\w-]*)", console, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def typed(document: str, program: str) -> list[list[str]]:
    """The words after `program` of each command with it in the document's console blocks."""
    console = "".join(text for _, text in blocks(document, "console")).replace("\\\n", "")
    lines = [shlex.split(line.removeprefix("$ ").rstrip(" &"), comments=True) for line in console.splitlines()
             if line.startswith(f"$ {program} ")]  # fmt: skip
    return [words[1:] for words in lines]


def test_the_options_of_tfqrl_edge_that_the_documents_show_exist(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [(document, words) for document in DOCUMENTS for words in typed(document, "tfqrl-edge")]
    assert len(commands) > 5
    for document, words in commands:
        with contextlib.suppress(SystemExit):
            edge_cli.parser().parse_args(words)
            continue
        raise AssertionError(f"{document} shows `tfqrl-edge {shlex.join(words)}`: {capsys.readouterr().err}")


def test_the_commands_and_options_of_tfqrl_that_the_documents_show_exist(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [(document, words) for document in DOCUMENTS for words in typed(document, "tfqrl")]
    assert {"deploy", "hil-keys", "hil-serve", "sign"} <= {words[0] for _, words in commands}
    for document, words in commands:
        with contextlib.suppress(SystemExit):
            cli.main([*words, "--help"])
        help_text, errors = capsys.readouterr()
        for word in [f"tfqrl {words[0]}", *(word for word in words if word.startswith("--") and " " not in word)]:
            assert word in help_text, (
                f"{document} shows `tfqrl {shlex.join(words)}`, whose help has no {word}: {errors}"
            )


def test_the_documents_name_files_that_exist() -> None:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for name in re.findall(r"`((?:edge|converters|tfqrl|tests|docs|benchmarks|results|scripts)/[\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"


def test_the_results_name_no_places_on_the_machine_that_made_them() -> None:
    tracked = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=False)
    for name in tracked.stdout.split():
        # The arrays of policies have no texts.
        if not name.endswith(".npz"):
            assert not re.search(r'"(/|~)[\w.-]+/[^"]*"', (ROOT / name).read_text()), name


def test_the_results_page_is_what_the_data_say() -> None:
    drawn = runpy.run_path(str(ROOT / "benchmarks" / "results_page.py"))["page"]()
    assert (ROOT / "docs" / "RESULTS.md").read_text() == drawn, "run `make results`"
