"""Child processes of this program's own: for what must begin afresh, may crash, or may not disturb this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from edge.errors import UserError


def command(module: str, *words: str) -> list[str]:
    """The command that runs `main(words)` of a module of ours, and returns what it returns.

    `python -m` would look for modules in the current directory first, where a user may have an `edge.py` of his own.
    The child looks where this process does, but not there.
    """
    path = [*filter(None, sys.path), str(Path(__file__).parents[1])]
    program = f"import sys; sys.path[:] = {path!r}; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", program, *words]


def ask(module: str, *words: str, given: bytes = b"") -> bytes:
    """What `main(words)` of a module of ours writes in a fresh process that is `given` this on its standard input.

    Raises:
      UserError: the process failed; with the last line of what it said.
    """
    child = subprocess.run(command(module, *words), input=given, capture_output=True, check=False)
    if child.returncode:
        said = child.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {child.returncode}"]
        raise UserError(f"A fresh process could not act: {said[-1]}")
    return child.stdout
