"""An actor that makes rollouts when it is asked to, for algorithms that learn from their present policy alone.

No TensorFlow, and no Ray, as in `actor`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfqrl.actorq.acting import Bytes, PushedPolicy
from tfqrl.actorq.counter import Counter
from tfqrl.actorq.messages import Assignment, Push
from tfqrl.actorq.stopwatch import Stopwatch, Usage
from tfqrl.envs import VectorEnv

Array = npt.NDArray[Any]

SPANS = ("environment", "inference", "wait", "pull", "load")


@dataclass(frozen=True)
class Part:
    """The part of a rollout that one actor made; arrays are (time, environments of the actor, ...).

    Attributes:
      observation: acted on, as the environment gave it.
      action: taken.
      next_observation: what the action led to, also where an episode ended there.
      reward: float32, as the environment gave it, or its sign.
      terminated: whether the episode ended in a state without a future.
      done: whether it ended, for that reason or because its time was up.
      stepped: steps that this actor, and those before it in its place, have made.
      episodes: (return, steps) of those that have ended.
      usage: of the actor since it began.
    """

    observation: Array
    action: Array
    next_observation: Array
    reward: Array
    terminated: Array
    done: Array
    stepped: int
    episodes: list[tuple[float, int]]
    usage: Usage


class RolloutActor:
    """One actor, with several environments that it steps in turn."""

    def __init__(self, assignment: Assignment, envs: int, *, successor: int) -> None:
        """Make so many environments; `successor` is as in `Actor`.

        Raises:
          UserError: they cannot be made.
        """
        self._assignment = assignment
        self._counter = Counter(assignment.counter)
        seeds = np.random.SeedSequence((assignment.seed, assignment.actor, successor)).generate_state(2)
        self._env = VectorEnv(assignment.env, envs, seed=int(seeds[0]), threads=1, module=assignment.env_module)
        self._rng = np.random.default_rng(seeds[1])
        self._policy = PushedPolicy(assignment.actor, assignment.actors)
        self._observation = self._env.reset()
        self._watch = Stopwatch(*SPANS)

    def collect(self, push: Push, pull: Callable[[], Bytes], steps: int) -> Part:
        """So many steps of each environment by this policy, whose flatbuffer `pull` gives.

        Raises:
          UserError: an environment failed, or gave NaN or infinity.
        """
        env, watch, policy = self._env, self._watch, self._policy
        watch.lap("wait")
        flatbuffer = pull()
        watch.lap("pull")
        policy.take(push, flatbuffer)
        watch.lap("load")
        rows = []
        for _ in range(steps):
            observation = self._observation.copy()
            action = policy.explorer(policy, observation, self._rng)
            watch.lap("inference")
            step = env.step(action)
            self._counter.add(env.num_envs)
            reward = np.sign(step.reward) if self._assignment.clip_reward else step.reward.copy()
            rows.append(
                (observation, action, step.next_observation.copy(), reward, step.terminated.copy(), step.done.copy())
            )
            self._observation = step.observation
            watch.lap("environment")
        episodes, env.episodes[:] = list(env.episodes), []
        return Part(*map(np.stack, zip(*rows)), self._counter.value, episodes, watch.usage())
