"""Distillation: a student learns to do what a teacher would, in the states that the student itself gets into.

DAgger (Ross, Gordon & Bagnell 2011, arXiv 1011.0686, algorithm 3.1, with beta 1 at first and 0 from there on);
for policies that choose, towards the teacher's probabilities (Rusu et al. 2015, arXiv 1511.06295, eq. 3).

Read it from the top: configuration, the networks, `_update`, which is one gradient step. `tfqrl.training.imitation` is
the loop around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tyro

from converters.export import DeployedPolicy
from edge.artifact import PolicySpec
from edge.errors import UsageError
from tfqrl import envs
from tfqrl.networks import acting_network, as_input, as_trained, policy_network, regularization
from tfqrl.options import optional
from tfqrl.runs import Run
from tfqrl.training.checks import enough_pixels
from tfqrl.training.config import TrainingConfig, above, at_least, within_unit
from tfqrl.training.optimizers import adam
from tfqrl.training.scan import compiled, scan

Array = npt.NDArray[Any]

METRICS = ("loss", "disagreement")

# Values of choices become probabilities by a softmax as sharp as in Rusu et al., section 4.2; logits are some already.
VALUE_TEMPERATURE = 0.01


@dataclass(frozen=True)
class DistillConfig(TrainingConfig):
    """Distillation.

    Attributes:
      teacher: run whose policy is the teacher, trained here or imported.
      teacher_fraction: part of the training in which the teacher acts, at the beginning; then the student does.
      demonstrations: observations that are remembered.
      rollout_steps: steps of each copy between updates.
      updates: gradient steps after each of these.
      batch_size: observations in a gradient step.
      learning_rate: step size of Adam, which falls linearly to 0 over `steps`.
      temperature: what a teacher's logits are divided by, where it chooses (default: 1; 0.01 for the values of dqn).
    """

    # What distillation has no use for.
    gamma: tyro.conf.Suppress[float] = 0.99
    clip_reward: tyro.conf.Suppress[bool] = False
    target_return: tyro.conf.Suppress[float | None] = None

    teacher: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    steps: int = 100_000
    num_envs: int = 16
    normalize_observation: bool = True
    teacher_fraction: float = 0.1
    demonstrations: int = 100_000
    rollout_steps: int = 64
    updates: int = 128
    batch_size: int = 256
    learning_rate: float = 1e-3
    temperature: Annotated[float | None, optional("T")] = None

    @property
    def remembered(self) -> int:
        """How many observations are learnt from, at the most."""
        return self.demonstrations

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        at_least(self, 1, "demonstrations", "rollout_steps", "updates", "batch_size")
        # While the teacher acts, the student's normaliser is fitted.
        above(self, 0, "learning_rate", "teacher_fraction")
        within_unit(self, "teacher_fraction")
        if self.temperature is not None:
            above(self, 0, "temperature")


class Distill:
    """The student's network, its optimiser, the teacher, and the update."""

    check = staticmethod(enough_pixels)
    network = staticmethod(policy_network)
    deployed = staticmethod(as_trained)

    def __init__(self, config: DistillConfig, spec: PolicySpec) -> None:
        """A network for `spec`, initialised from the configuration's seed.

        Raises:
          RunError: there is no teacher.
          UsageError: it does not fit the environment.
        """
        self.config = config
        self._discrete, self._bounded = spec.action.discrete, spec.action.scaling[0]
        self._teacher, self._temperature = _teacher(config, spec)
        self.policy = self.network(config, spec)
        self.optimizer = adam(config.learning_rate, self.policy.trainable_variables)
        self.variables = {"policy": self.policy.variables, "optimizer": self.optimizer.variables}
        self.acting = acting_network(self.policy, spec)
        self._updates = compiled(self._scan, spec)

    def teach(self, observation: Array) -> Array:
        """What the teacher's network gives, (batch, outputs): actions in [-1, 1], or logits; for raw observations."""
        output = np.asarray(self._teacher(tf.constant(observation)))
        return output / self._temperature if self._discrete else output

    def choose(self, output: Array) -> Array:
        """Actions of a network's outputs, (batch, actions) or (batch,)."""
        return output.argmax(axis=-1) if self._discrete else output

    def explore(self, observation: Array, steps: int, rng: np.random.Generator) -> Array:
        """The student's actions for normalised observations, (batch, ...), as it will be deployed."""
        return self.choose(self.acting(observation))

    def refresh(self) -> None:
        """Let `explore` take over the network's weights."""
        self.acting.refresh()

    def update(self, observation: Array, target: Array, learning_rate: float) -> dict[str, tf.Tensor]:
        """One gradient step on each of the batches, (updates, batch, ...); means of METRICS."""
        self.optimizer.learning_rate.assign(learning_rate)
        return self._updates(observation, target)

    def _scan(self, *batches: tf.Tensor) -> dict[str, tf.Tensor]:
        return scan(self._update, batches, METRICS)

    def _update(self, observation: tf.Tensor, target: tf.Tensor) -> Sequence[tf.Tensor]:
        with tf.GradientTape() as tape:
            output = self.policy(as_input(observation), training=True)
            if self._discrete:
                # The teacher's entropy, which is all that divides this from eq. 3, has no gradient.
                losses = tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(target), output)
                other = tf.cast(tf.argmax(output, -1) != tf.argmax(target, -1), tf.float32)
            else:
                losses = tf.reduce_mean((output - target) ** 2, axis=-1)
                action = tf.where(self._bounded, tf.clip_by_value(output, -1.0, 1.0), output)
                other = tf.reduce_mean(tf.abs(action - target), axis=-1)
            loss = tf.reduce_mean(losses)
            objective = loss + regularization(self.policy)
        variables = self.policy.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(objective, variables), variables))
        return loss, tf.reduce_mean(other)


def _teacher(config: DistillConfig, spec: PolicySpec) -> tuple[Any, float]:
    """The teacher's outputs for raw observations, and the temperature of its logits."""
    from tfqrl import agents

    if not config.teacher:
        raise UsageError("Distillation needs a teacher: tfqrl distill TEACHER --out RUN.")
    run = Run.open(config.teacher)
    network, theirs = agents.load_policy(run)
    envs.check_fits(f"The teacher {run.path}", theirs, config.env, spec)
    policy = DeployedPolicy(network, theirs)
    bounded = theirs.action.scaling[0]

    def output(observation: tf.Tensor) -> tf.Tensor:
        found = network(policy.normalize(tf.cast(observation, theirs.observation.dtype)))
        return found if theirs.action.discrete else tf.where(bounded, tf.clip_by_value(found, -1.0, 1.0), found)

    # Imported ones say what they were.
    values = "dqn" in (run.algorithm, str(run.config.get("origin", {}).get("algorithm")).lower())
    temperature = config.temperature or (VALUE_TEMPERATURE if values else 1.0)
    return tf.function(output, reduce_retracing=True), temperature
