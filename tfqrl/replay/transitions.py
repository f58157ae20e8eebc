"""A batch of transitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Transitions:
    """Transitions of one or more steps, with any leading dimensions (...).

    The target of a value is `reward + discount * value(next_observation)`: it needs neither gamma nor flags. A time
    limit bootstraps (Pardo et al. 2018, arXiv 1712.00378), because its discount is not 0.

    Attributes:
      observation: (..., *observation.shape) float32, or uint8 frames, acted on.
      action: (..., *action.shape) float32 in [-1, 1], or (...) int32 choices.
      reward: (...) float32, the discounted sum over the steps of the window.
      next_observation: like `observation`, what the last step of the window led to.
      discount: (...) float32, gamma ** steps; 0 where that state has no future.
      weight: (...) float32 importance weights, 0..1, of prioritised replay; else None.
      index: (...) int64, which transitions these are, for `PrioritizedReplay.update_priorities`; else None.
    """

    observation: npt.NDArray[Any]
    action: npt.NDArray[Any]
    reward: npt.NDArray[np.float32]
    next_observation: npt.NDArray[Any]
    discount: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32] | None = None
    index: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.reward)
