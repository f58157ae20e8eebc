"""Replay in which transitions with large errors come up more often."""

from __future__ import annotations

from tfqrl.replay.uniform import UniformReplay


class PrioritizedReplay(UniformReplay):
    """Being written."""
