"""What algorithms learn from: transitions, their assembly from steps, and memories of them. No TensorFlow.

The loop of an algorithm is `replay.extend(n_step.add(observation, action, step))` at each step, and
`replay.sample(updates, batch_size, rng)` when it learns, whether it observes vectors or frames.
"""

from tfqrl.replay.demonstrations import Demonstrations
from tfqrl.replay.n_step import NStep
from tfqrl.replay.prioritized import PrioritizedReplay
from tfqrl.replay.transitions import Transitions
from tfqrl.replay.uniform import UniformReplay

__all__ = ["Demonstrations", "NStep", "PrioritizedReplay", "Transitions", "UniformReplay"]
