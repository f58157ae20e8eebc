"""What all ways of stepping several copies of an environment share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import ActionSpec, PolicySpec

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Episodes whose returns a checkpoint keeps.
EPISODES_KEPT = 100


@dataclass
class VectorStep:
    """What a step of all environments gave. The arrays are overwritten by the next step.

    Attributes:
      observation: (num_envs, *shape) float32, or uint8 of frames, to act on next: the first of a new episode where one
        has ended.
      next_observation: of the same shape and dtype, what the action led to: the last of the episode where it has ended.
      reward: (num_envs,) float32.
      terminated: (num_envs,) the episode ended in a state without a future.
      done: (num_envs,) the episode ended, for that reason or because its time was up.
    """

    observation: npt.NDArray[Any]
    next_observation: npt.NDArray[Any]
    reward: FloatArray
    terminated: BoolArray
    done: BoolArray

    @classmethod
    def empty(cls, num_envs: int, spec: PolicySpec) -> VectorStep:
        """Arrays for the steps of `num_envs` copies of what `spec` describes."""
        shape, dtype = (num_envs, *spec.observation.shape), spec.observation.dtype
        reward = np.zeros(num_envs, np.float32)
        flags = [np.zeros(num_envs, np.bool_) for _ in range(2)]
        return cls(np.zeros(shape, dtype), np.zeros(shape, dtype), reward, *flags)


class ActionScaler:
    """From what a policy's network gives to what an environment takes, as the deployed graph does it."""

    def __init__(self, spec: ActionSpec) -> None:
        """For actions of `spec`."""
        self._discrete = spec.discrete
        self._bounded, self._half_range, self._middle = spec.scaling

    def __call__(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Scale and clip (num_envs, *shape) actions; choices are taken as they are."""
        if self._discrete:
            return actions
        clipped = np.where(self._bounded, np.clip(actions, -1.0, 1.0), actions)
        return (self._middle + clipped * self._half_range).astype(np.float32)
