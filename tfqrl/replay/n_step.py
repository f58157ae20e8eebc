"""From steps to transitions of n steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfqrl.envs import VectorStep
from tfqrl.replay.transitions import Transitions
from tfqrl.runs import State


class NStep:
    """Windows of n steps over what one or more environments do (Sutton & Barto 2018, eq. 7.1).

    A window begins at every step. It is finished after n steps, or earlier where the episode ends, which finishes all
    of them: one that is cut short is a transition of fewer steps.
    """

    def __init__(self, num_envs: int, n_step: int, gamma: float) -> None:
        """Windows of `n_step` steps of `num_envs` copies of an environment, discounted by `gamma` a step."""
        assert num_envs >= 1
        assert n_step >= 1
        assert 0 <= gamma <= 1
        self._num_envs, self._n_step = num_envs, n_step
        self._discounts = np.float32(gamma ** np.arange(n_step + 1))
        # The last n steps are a ring, in whose slot `_slot` the next one comes. `_ages[slot, i]` is how many steps ago
        # slot i was written when `slot` has just been.
        self._slot = 0
        self._ages = (np.arange(n_step)[:, None] - np.arange(n_step)) % n_step
        # What windows were begun with, (n_step, num_envs, ...): made when the first step shows its shapes.
        self._observation: npt.NDArray[Any] | None = None
        self._action: npt.NDArray[Any] | None = None
        # Their discounted sums of rewards so far, and how many of them each copy has open.
        self._reward = np.zeros((n_step, num_envs), np.float32)
        self._open = np.zeros(num_envs, np.int64)

    def add(self, observation: npt.NDArray[Any], action: npt.NDArray[Any], step: VectorStep) -> Transitions:
        """Take in a step of all copies; returns the windows that it finished, with one leading dimension (0 or more).

        Those that began earlier come first. Their arrays may be the arguments' own and those in which windows are
        kept here, so use them before the next step.

        Args:
          observation: (num_envs, *observation.shape) that was acted on. An environment's arrays are overwritten by its
            next step: this must be a copy from before it.
          action: (num_envs, *action.shape) taken.
          step: what it gave.
        """
        assert observation is not step.observation, "this is what the step gave, not what it was taken on"
        if self._n_step == 1:
            discount = np.where(step.terminated, np.float32(0.0), self._discounts[1])
            return Transitions(observation, action, step.reward, step.next_observation, discount)
        if self._observation is None or self._action is None:
            self._observation = np.zeros((self._n_step, *observation.shape), observation.dtype)
            self._action = np.zeros((self._n_step, *action.shape), action.dtype)
        slot, ages = self._slot, self._ages[self._slot]
        self._slot = (slot + 1) % self._n_step
        self._observation[slot], self._action[slot], self._reward[slot] = observation, action, 0.0
        # Slots that no open window has are added to as well: they are set to 0 when one begins there.
        self._reward += self._discounts[ages, None] * step.reward
        np.minimum(self._open + 1, self._n_step, out=self._open)

        # The usual case, without gathering: windows are long, and no episode ends.
        if self._open.min() == self._n_step and not step.done.any():
            oldest, discount = self._slot, np.full(self._num_envs, self._discounts[-1])
            began = self._observation[oldest], self._action[oldest]
            return Transitions(*began, self._reward[oldest], step.next_observation, discount)

        oldest_first = np.argsort(-ages)
        age = ages[oldest_first, None]
        finished = (age < self._open) & (step.done | (age == self._n_step - 1))
        i, copy = np.nonzero(finished)
        began_at = oldest_first[i]
        self._open[step.done] = 0
        return Transitions(
            self._observation[began_at, copy],
            self._action[began_at, copy],
            self._reward[began_at, copy],
            step.next_observation[copy],
            np.where(step.terminated[copy], np.float32(0.0), self._discounts[1 + ages[began_at]]),
        )

    @property
    def unfinished(self) -> int:
        """How many windows are open, of all copies."""
        # Of a full ring, the next step's window takes the place of one that it finishes.
        return int(np.minimum(self._open, self._n_step - 1).sum())

    def state(self) -> State:
        """The windows that are open, for a checkpoint."""
        if self._observation is None or self._action is None:
            return {}
        return {
            "slot": np.array(self._slot),
            "observation": self._observation.copy(),
            "action": self._action.copy(),
            "reward": self._reward.copy(),
            "open": self._open.copy(),
        }

    def restore(self, state: State) -> None:
        """The inverse of `state`, for environments that go on where they were. Leave it out if they begin anew."""
        if state:
            self._slot = int(state["slot"])
            self._observation, self._action = state["observation"].copy(), state["action"].copy()
            self._reward, self._open = state["reward"].copy(), state["open"].copy()
