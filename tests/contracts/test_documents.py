"""What the documents tell a reader to type works."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

# Blocks marked `sh` and `python` are run here, in order, in one folder. Those marked `console` install things or are
# themselves what runs the tests: their make targets are only looked up.
RUN = [(language, text) for language, text in FENCE.findall(README) if language in ("sh", "python")]
CONSOLE = "".join(text for language, text in FENCE.findall(README) if language == "console")


def test_the_readmes_commands_run(tmp_path: Path) -> None:
    assert len(RUN) >= 4
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for language, text in RUN:
        words = ["bash", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_readmes_make_targets_exist() -> None:
    targets = re.findall(r"^\$? ?make (\w[\w-]*)", CONSOLE, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_documents_name_files_that_exist() -> None:
    for document in ("README.md", "docs/ARCHITECTURE.md", "docs/virtual-pi.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        for name in re.findall(r"`((?:edge|converters|tfqrl|tests|docs|benchmarks|results|scripts)/[\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"


def test_the_results_page_is_what_the_data_say() -> None:
    drawn = runpy.run_path(str(ROOT / "benchmarks" / "results_page.py"))["page"]()
    assert (ROOT / "docs" / "RESULTS.md").read_text() == drawn, "run `make results`"
