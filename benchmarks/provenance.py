"""What every result records of the code that measured it."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit() -> str:
    """The commit of this checkout, with "+" if there are changes since that are not committed."""

    def git(*words: str) -> str:
        root = Path(__file__).parents[1]
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "edge", "converters", "tfqrl", "benchmarks")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
