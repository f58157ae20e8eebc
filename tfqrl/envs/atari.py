"""Atari games as they are played in the field (Mnih et al. 2015; Machado et al. 2018, arXiv 1709.06009)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from edge.errors import UnknownNameError, UsageError

SKIP, STACK, SIZE = 4, 4, 84
# An Atari 2600 draws 60 frames a second, and an action holds for SKIP of them.
ACTIONS_HZ = 60 // SKIP


def make(name: str) -> gymnasium.Env[Any, Any]:
    """The game called NAME-v5, such as Pong-v5: observes (84, 84, 4) bytes, the newest frame last.

    Grey, each frame the brighter of two that follow each other, an action held for 4 frames, 1 to 30 frames without
    action at the beginning, and with a probability of 0.25 for each frame the action of the one before (v5's sticky
    actions). Rewards are the game's points, and an episode is the whole game, of 30 minutes (27,000 actions) at most.

    Raises:
      UsageError: ale-py or OpenCV is not installed.
      UnknownNameError: there is no such game.
    """
    try:
        import ale_py
        import cv2  # noqa: F401  (AtariPreprocessing scales with it)
    except ImportError as error:
        raise UsageError(
            f"{error.name} is not installed. Environments called ale:... need it: run `pip install 'tfqrl[atari]'`."
        ) from error

    # Before the first game, or it prints a banner.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    games = [known.removeprefix("ALE/") for known in gymnasium.registry if known.startswith("ALE/")]
    if name not in games:
        raise UnknownNameError("environment", f"ale:{name}", [f"ale:{game}" for game in games])
    env: gymnasium.Env[Any, Any] = gymnasium.make(f"ALE/{name}", frameskip=1, disable_env_checker=True)
    env = gymnasium.wrappers.AtariPreprocessing(env, frame_skip=SKIP, screen_size=SIZE)
    # At a reset the first frame is repeated.
    env = gymnasium.wrappers.FrameStackObservation(env, STACK)
    space = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, STACK), np.uint8)
    env = gymnasium.wrappers.TransformObservation(env, lambda frames: np.moveaxis(frames, 0, -1), space)
    env.metadata = {**env.metadata, "render_fps": ACTIONS_HZ}
    return env
