"""An off-policy algorithm that learns nothing and records what the loop has it do."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from edge.artifact import PolicySpec
from tfqrl.replay import Transitions
from tfqrl.training.config import OffPolicyConfig


class Recorder:
    """What `off_policy.train` needs of an algorithm. It acts by 0.5, or by choice 0.

    Attributes:
      made: all that were made since the list was emptied; the last is that of the last training.
      explored: the number of steps each time that it explored.
      batches: what each call of `update` was given.
      stepped: how often it had explored by then.
    """

    made: list["Recorder"] = []  # noqa: RUF012

    @staticmethod
    def check(config: OffPolicyConfig, spec: PolicySpec) -> None:
        pass

    def __init__(self, config: OffPolicyConfig, spec: PolicySpec) -> None:
        self.config, self.spec = config, spec
        self.variables = {"policy": [tf.Variable(0.0)]}
        self.acting = SimpleNamespace(weights=[np.zeros(1)])
        self.explored: list[int] = []
        self.batches: list[Transitions] = []
        self.stepped: list[int] = []
        Recorder.made.append(self)

    def explorer(self, steps: int) -> Any:
        def explore(network: Any, observation: Any, rng: np.random.Generator) -> Any:
            self.explored.append(steps)
            if self.spec.action.discrete:
                return np.zeros(len(observation), np.int64)
            return np.full((len(observation), *self.spec.action.shape), 0.5, np.float32)

        return explore

    def update(self, batch: Transitions) -> dict[str, Any]:
        self.batches.append(batch)
        self.stepped.append(len(self.explored))
        self.variables["policy"][0].assign_add(float(len(batch)))
        return {"loss": 0.0}

    def refresh(self) -> None:
        pass
