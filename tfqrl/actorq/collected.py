"""What a session asks of its environments, where actors have those."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edge.artifact import PolicySpec
from tfqrl.actorq.ledger import Ledger
from tfqrl.envs.step import EPISODES_KEPT
from tfqrl.runs import State, nested, prefixed


class Collected:
    """Stands for the environments of a session: what is known of them here.

    Attributes:
      spec: what a policy for them reads and gives.
      episodes: (return, length) of each episode that has ended, oldest first.
      ledger: what became of their steps.
    """

    def __init__(self, spec: PolicySpec, actors: int) -> None:
        """Of so many actors."""
        self.spec = spec
        self.episodes: list[tuple[float, int]] = []
        self.ledger = Ledger(actors)

    def reset(self) -> npt.NDArray[Any]:
        """Nothing to act on: actors begin by themselves."""
        return np.zeros((0, *self.spec.observation.shape), self.spec.observation.dtype)

    def state(self) -> State:
        """For a checkpoint."""
        episodes = np.array(self.episodes[-EPISODES_KEPT:], np.float64).reshape(-1, 2)
        return {"episodes": episodes} | prefixed("ledger", self.ledger.state())

    def restore(self, state: State) -> npt.NDArray[Any]:
        """From a checkpoint."""
        self.episodes = [(float(episode_return), int(length)) for episode_return, length in state["episodes"]]
        self.ledger.restore(nested(state, "ledger"))
        return self.reset()

    def close(self) -> None:
        """Nothing to release."""
