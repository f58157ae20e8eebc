"""Hostile inputs for everything that edge reads: `python -m fuzz artefact 1000` runs one target in this process.

`tests/fuzz/test_fuzz.py` runs all of them, each in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Target:
    """Something that reads what it does not know.

    Attributes:
      inputs: makes them.
      read: reads one; returns whether it was accepted.
      refuses: what it may raise, which is its documentation.
      share: part of all inputs that it gets.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], bool]
    refuses: tuple[type[Exception], ...]
    share: float
