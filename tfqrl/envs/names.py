"""Environments by name."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any

import gymnasium
import numpy as np

from edge.errors import UnknownNameError, UsageError


def _warn(message: str) -> None:
    # Gymnasium's own models use an option that MuJoCo will drop; nobody who trains can do anything about it.
    if "is deprecated" not in message:
        print(f"MuJoCo: {message}", file=sys.stderr)


with contextlib.suppress(ImportError):
    import mujoco

    mujoco.set_mju_user_warning(_warn)


def make(name: str, module: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment called `name`; `module`, if given, is imported first, and registers it with Gymnasium.

    Raises:
      UnknownNameError: there is none; the nearest name is offered.
      UsageError: it cannot be made here, or its spaces are of a kind that no algorithm here can take.
    """
    if module is not None:
        import_module(module)
    try:
        # The checker's warnings are for authors of environments; the checks that matter here are made below.
        env = gymnasium.make(name, disable_env_checker=True)
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound, gymnasium.error.VersionNotFound) as error:
        raise UnknownNameError("environment", name, gymnasium.registry) from error
    except (gymnasium.error.Error, ImportError, AttributeError) as error:
        raise UsageError(f"The environment {name} cannot be made here: {error}") from error
    _check_spaces(name, env)
    return env


def import_module(name: str) -> None:
    """Import the module that registers a user's own environments; the working directory is searched too.

    Raises:
      UsageError: it cannot be imported.
    """
    # A script in .../bin does not find what lies in the working directory by itself.
    if "" not in sys.path:
        sys.path.append("")
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"The module {name!r} cannot be imported: {error}. --env-module takes the name of a module in the "
            "working directory or of an installed one, without .py, that registers environments with Gymnasium."
        ) from error


def is_frames(observation: gymnasium.spaces.Box) -> bool:
    """Whether a space is one of camera frames: (height, width, channels) uint8."""
    return len(observation.shape) == 3 and observation.dtype == np.uint8


def _check_spaces(name: str, env: gymnasium.Env[Any, Any]) -> None:
    observation, action = env.observation_space, env.action_space
    if not isinstance(observation, gymnasium.spaces.Box) or not (len(observation.shape) == 1 or is_frames(observation)):
        raise UsageError(
            f"{name} observes {observation}; a vector (Box of one dimension) or frames (Box of uint8: height, width, "
            "channels) are needed. Wrap it with gymnasium.wrappers.FlattenObservation, say, and register the result."
        )
    if not isinstance(action, gymnasium.spaces.Discrete) and not (
        isinstance(action, gymnasium.spaces.Box) and len(action.shape) == 1
    ):
        raise UsageError(f"{name} acts by {action}; a vector (Box of one dimension) or Discrete is needed.")
    if isinstance(action, gymnasium.spaces.Discrete) and action.start != 0:
        raise UsageError(f"{name} numbers its actions from {action.start}; they must begin at 0.")
