"""Options that are numbers of bits."""

from __future__ import annotations

from typing import Any

from edge.errors import UsageError


def check_bits(options: Any, *names: str) -> None:
    """Refuse widths that integer kernels do not have.

    Raises:
      UsageError: one of these options is not in 2..8.
    """
    for name in names:
        if getattr(options, name) not in range(2, 9):
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} must lie in 2..8; it was given {getattr(options, name)}.")
