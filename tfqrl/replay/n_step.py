"""From steps to transitions of n steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfqrl.envs import VectorStep
from tfqrl.replay.transitions import Transitions
from tfqrl.runs import State


class NStep:
    """Windows of up to n steps over the steps of one or more environments (Sutton & Barto 2018, eq. 7.1).

    One begins at each step. It is finished after n steps, or earlier where the episode ends: then all windows of that
    environment are.
    """

    def __init__(self, num_envs: int, n_step: int, gamma: float) -> None:
        """Windows of `n_step` steps of `num_envs` copies of an environment, discounted by `gamma` a step."""
        assert num_envs >= 1
        assert n_step >= 1
        assert 0 <= gamma <= 1
        self._num_envs, self._n_step = num_envs, n_step
        self._discounts = gamma ** np.arange(n_step + 1, dtype=np.float64)
        self._discounts = self._discounts.astype(np.float32)
        self._discount = self._discounts[-1]
        # The last n steps of all copies, a ring: `_slot` is that of the next. Made when the first step shows its shapes.
        self._slot = 0
        self._observation: npt.NDArray[Any] | None = None
        self._action: npt.NDArray[Any] | None = None
        self._reward = np.zeros((n_step, num_envs), np.float32)
        # How many of them belong to the episode that a copy is in.
        self._open = np.zeros(num_envs, np.int64)

    def add(self, observation: npt.NDArray[Any], action: npt.NDArray[Any], step: VectorStep) -> Transitions:
        """Take in what all copies did; returns the windows that this finished, with one leading dimension, maybe 0 long.

        They come in the order of their first steps, and may share memory with the arguments and with what is kept
        here: use or copy them before the next step.

        Args:
          observation: (num_envs, *observation.shape) that was acted on. `VectorEnv.step` overwrites what it returned
            before: pass a copy made before the step.
          action: (num_envs, *action.shape) taken.
          step: what it gave.
        """
        assert observation is not step.observation, "copy the observation before the step overwrites it"
        if self._n_step == 1:
            discount = np.where(step.terminated, np.float32(0), self._discount)
            return Transitions(observation, action, step.reward, step.next_observation, discount)
        raise NotImplementedError
