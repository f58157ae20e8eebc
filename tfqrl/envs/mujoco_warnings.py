"""What MuJoCo's warnings become."""

from __future__ import annotations

import contextlib
import sys


def _warn(message: str) -> None:
    # Models of Gymnasium and dm_control use options that MuJoCo will drop; nobody who trains can do anything about it.
    if "is deprecated" not in message:
        print(f"MuJoCo: {message}", file=sys.stderr)


def filter_warnings() -> None:
    """Print MuJoCo's warnings to stderr, without those that are for the authors of models. It can be absent."""
    with contextlib.suppress(ImportError):
        import mujoco

        mujoco.set_mju_user_warning(_warn)
