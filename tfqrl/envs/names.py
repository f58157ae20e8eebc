"""Environments by name."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

import gymnasium
import numpy as np

from edge.errors import UnknownNameError, UsageError, UserError
from tfqrl.envs import atari, dmc
from tfqrl.envs.mujoco_warnings import filter_warnings

# What stands before a colon, and what makes the environment called by what follows it.
FAMILIES = {"dmc": dmc.make, "ale": atari.make}

filter_warnings()


def make(name: str, module: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment called `name`: HalfCheetah-v5 of Gymnasium, dmc:cheetah-run of dm_control, ale:Pong-v5 of Atari.

    `module`, if given, is imported first: it registers environments of the user's own with Gymnasium.

    Raises:
      UnknownNameError: there is none; the nearest name is offered.
      UsageError: it cannot be made here, or its spaces are of a kind that no algorithm here can take.
    """
    if module is not None:
        import_module(module)
    family, colon, rest = name.partition(":")
    env = FAMILIES[family](rest) if colon and family in FAMILIES else _make_registered(name)
    _check_spaces(name, env)
    return env


def import_module(name: str) -> None:
    """Import the module that registers a user's own environments; the working directory is searched too.

    Raises:
      UsageError: there is no such module.
      UserError: importing it fails.
    """
    missing = UsageError(
        f"There is no module {name!r}, neither in {os.getcwd()} nor installed. --env-module takes the name of a "
        "module, without .py, that registers environments with Gymnasium."
    )
    if not all(part.isidentifier() for part in name.split(".")):
        raise missing
    # Last, so that a file here cannot take the place of an installed module.
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise missing from error
        raise UserError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def _make_registered(name: str) -> gymnasium.Env[Any, Any]:
    # Gymnasium would take the newest version, of which the zoo knows nothing and a run's folder would not say it.
    if name not in gymnasium.registry and not re.search(r"-v\d+$", name):
        raise UnknownNameError("environment", name, gymnasium.registry)
    try:
        # The checker's warnings are for authors of environments; the checks that matter here are made by `make`.
        return gymnasium.make(name, disable_env_checker=True)
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound, gymnasium.error.VersionNotFound) as error:
        raise UnknownNameError("environment", name, gymnasium.registry) from error
    except Exception as error:  # its own __init__ may raise anything
        raise UsageError(f"The environment {name!r} cannot be made here: {type(error).__name__}: {error}") from error


def is_frames(observation: gymnasium.spaces.Box) -> bool:
    """Whether a space is one of camera frames: (height, width, channels) uint8."""
    return len(observation.shape) == 3 and observation.dtype == np.uint8


_WRAP = "Wrap it with gymnasium.wrappers.TransformAction, say, and register the result."


def _check_spaces(name: str, env: gymnasium.Env[Any, Any]) -> None:
    observation, action = getattr(env, "observation_space", None), getattr(env, "action_space", None)
    if not isinstance(observation, gymnasium.spaces.Box) or not (len(observation.shape) == 1 or is_frames(observation)):
        raise UsageError(
            f"{name} observes {observation}; a vector (Box of one dimension) or frames (Box of uint8: height, width, "
            "channels) are needed. Wrap it with gymnasium.wrappers.FlattenObservation, say, and register the result."
        )
    if not isinstance(action, gymnasium.spaces.Discrete) and not (
        isinstance(action, gymnasium.spaces.Box) and len(action.shape) == 1
    ):
        raise UsageError(f"{name} acts by {action}; a vector (Box of one dimension) or Discrete is needed. {_WRAP}")
    if isinstance(action, gymnasium.spaces.Box) and not np.issubdtype(action.dtype, np.floating):
        raise UsageError(
            f"{name} acts by {action}, whose elements are whole; a Box of floats or Discrete is needed. {_WRAP}"
        )
    if 0 in observation.shape or action.shape == (0,):
        raise UsageError(f"{name} observes {observation} and acts by {action}; neither can be empty.")
    if isinstance(action, gymnasium.spaces.Discrete) and action.start != 0:
        raise UsageError(f"{name} numbers its actions from {action.start}; they must begin at 0. {_WRAP}")
