"""What a policy of Stable-Baselines3 reads and gives: its spaces and its VecNormalize, from their pickles."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.sources import ImportPolicyError, pickles, shown
from converters.sources.archive import contents
from edge.artifact import ActionSpec, Normalizer, ObservationSpec


def observation(space: Any, path: str | Path) -> tuple[ObservationSpec, tuple[int, int, int] | None]:
    """What is observed and, if that is frames, their (channels, height, width) as PyTorch has them."""
    low, high = _box(space, "observations", path)
    # What Stable-Baselines3 takes for an image, and divides by 255.
    if low.ndim == 3 and low.dtype == np.uint8 and (low == 0).all() and (high == 255).all():
        channels, height, width = low.shape
        return ObservationSpec((height, width, channels), (), (), "uint8"), (channels, height, width)
    return ObservationSpec(low.shape, _finite(low), _finite(high)), None


def action(space: Any, path: str | Path) -> ActionSpec:
    """What is done; of a continuous action each element has two bounds or none."""
    if _space_name(space) == "discrete.Discrete":
        n, start = getattr(space, "n", None), getattr(space, "start", 0)
        if not isinstance(n, int) or n < 1 or start != 0:
            raise ImportPolicyError(
                f"{path} has a choice of {shown(n, 40)} actions from {shown(start, 40)} on; from 0 on is supported."
            )
        return ActionSpec((), (), (), n)
    low, high = _box(space, "actions", path)
    spec = ActionSpec(low.shape, _finite(low), _finite(high))
    for a, b in zip(spec.low, spec.high):
        if (a is None) != (b is None) or (a is not None and b is not None and not a < b):
            raise ImportPolicyError(f"{path} has an action between {a} and {b}; it must have two bounds, or none.")
    return spec


def _box(space: Any, what: str, path: str | Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    low, high = pickles.array(getattr(space, "low", None)), pickles.array(getattr(space, "high", None))
    if _space_name(space) != "box.Box" or low is None or high is None or low.shape != high.shape or not low.size:
        raise ImportPolicyError(
            f"{path} has {what} in a {shown(_space_name(space), 80)} space: not supported. Observations must be a Box, "
            "actions a Box or Discrete."
        )
    if np.isnan(low).any() or np.isnan(high).any():
        raise ImportPolicyError(f"{path} has NaN in the bounds of its {what}.")
    return low, high


def _space_name(space: Any) -> str:
    return re.sub(r"^gym(nasium)?\.spaces\.", "", pickles.class_name(space))


def _finite(bounds: npt.NDArray[Any]) -> tuple[float | None, ...]:
    # Bounds such as float32's largest number are how some environments write "unbounded".
    return tuple(float(b) if math.isfinite(b) and abs(b) < 1e30 else None for b in bounds.ravel().tolist())


def normalizer(path: str | Path, observation: ObservationSpec) -> Normalizer | None:
    """How a VecNormalize normalised observations; None if it left them as they were."""
    saved = pickles.load(contents(path, pickles.MAX_BYTES), str(path))
    if pickles.class_name(saved) != "stable_baselines3.common.vec_env.vec_normalize.VecNormalize":
        raise ImportPolicyError(f"{path} is not what VecNormalize.save writes.")
    if getattr(saved, "norm_obs", None) is False:
        return None
    moments = getattr(saved, "obs_rms", None)
    mean, variance = (pickles.array(getattr(moments, name, None)) for name in ("mean", "var"))
    clip, epsilon = (getattr(saved, name, None) for name in ("clip_obs", "epsilon"))
    if observation.dtype == "uint8":
        raise ImportPolicyError(f"{path} normalises frames: not supported. Train with norm_obs=False.")
    if mean is None or variance is None or mean.shape != observation.shape or variance.shape != observation.shape:
        raise ImportPolicyError(f"{path} is not of observations of the shape {observation.shape}, as the policy's are.")
    if not (_number(clip) and clip > 0 and _number(epsilon) and 0 <= epsilon < math.inf):
        raise ImportPolicyError(f"{path} has no proper clip_obs and epsilon.")
    with np.errstate(invalid="ignore"):
        std = np.sqrt(variance.astype(np.float64) + epsilon)
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise ImportPolicyError(f"{path} has means or variances that are no finite numbers, or deviations of 0.")
    return Normalizer(
        tuple(mean.ravel().tolist()), tuple(std.ravel().tolist()), float(clip) if clip < math.inf else None
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
