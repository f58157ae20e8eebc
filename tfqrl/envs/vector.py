"""Several copies of an environment, stepped together."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from edge.errors import UserError
from tfqrl.envs.envpool import EnvPoolVectorEnv
from tfqrl.envs.names import make
from tfqrl.envs.spec import policy_spec
from tfqrl.envs.step import EPISODES_KEPT, ActionScaler, VectorStep
from tfqrl.runs import State

T = TypeVar("T")

# Actions of an episode that there is room for at first.
ROOM = 1024


def make_vector(
    name: str,
    num_envs: int,
    *,
    seed: int,
    vec: Literal["threads", "envpool"] = "threads",
    module: str | None = None,
) -> VectorEnv | EnvPoolVectorEnv:
    """`num_envs` copies of the environment called `name`; `module` is as in `make`.

    Raises:
      UsageError: what `make` raises; or EnvPool is asked for and is not installed, or has no such task.
    """
    if vec == "envpool":
        return EnvPoolVectorEnv(name, num_envs, seed=seed, module=module)
    return VectorEnv(name, num_envs, seed=seed, module=module)


class VectorEnv:
    """Several copies of an environment, stepped by threads, each reset as soon as its episode ends.

    MuJoCo releases Python's lock while it simulates, so threads step in parallel, without the copies and the context
    switches that processes cost (benchmarks/rollout.py).

    Each episode is seeded by (seed, copy, number of the episode) alone, so that an episode can be played again.

    Attributes:
      num_envs: how many copies.
      spec: what a policy for it reads and gives.
      episodes: (return, length) of each episode that has ended, oldest first.
    """

    def __init__(
        self, name: str, num_envs: int, *, seed: int, threads: int | None = None, module: str | None = None
    ) -> None:
        """Make the copies. The same seed gives the same episodes, whatever the number of threads.

        `threads` counts the one that calls `step`; if None there are two where there are two cores. More contend for
        Python's lock. `module` is as in `make`.
        """
        self._envs = [make(name, module) for _ in range(num_envs)]
        self._name, self._seed = name, seed
        self.num_envs = num_envs
        self.spec = policy_spec(self._envs[0], None)
        self.episodes: list[tuple[float, int]] = []
        self._step = VectorStep.empty(num_envs, self.spec)
        self._numbers = np.full(num_envs, -1, np.int64)
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        action = self.spec.action
        # As the environment is given them.
        self._actions = np.zeros((num_envs, ROOM, *action.shape), np.int64 if action.discrete else np.float32)
        self._scale = ActionScaler(action)
        threads = min(threads or min(2, len(os.sched_getaffinity(0))), num_envs)
        self._groups = [list(group) for group in np.array_split(np.arange(num_envs), threads)]
        self._pool = ThreadPoolExecutor(max(1, threads - 1), "env")

    def reset(self) -> npt.NDArray[Any]:
        """Begin a new episode in every copy.

        Returns:
          The observations, (num_envs, *shape).

        Raises:
          UserError: the environment failed, or returned something else than its space says, or NaN or infinity.
        """
        with self._failures_named():
            for i in range(self.num_envs):
                self._begin(i)
        return self._step.observation

    def step(self, actions: npt.NDArray[Any]) -> VectorStep:
        """Step every copy.

        Args:
          actions: (num_envs, *action.shape) float32, where [-1, 1] spans the bounds and what is beyond is clipped
            (unbounded elements are taken as they are); or (num_envs,) choices.

        Raises:
          UserError: an environment failed, or returned NaN or infinity, or an observation of another shape than its
            space has.
        """
        actions = self._scale(actions)
        if self._lengths.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        with self._failures_named():
            for ended in self._in_threads(self._step_group, actions):
                self.episodes += ended
        if not np.isfinite(self._step.reward).all() or not np.isfinite(self._step.next_observation).all():
            raise self._diverged()
        return self._step

    def state(self) -> State:
        """Where every copy stands, for a checkpoint: what has been done since the beginning of its episode."""
        actions = [self._actions[i, :length] for i, length in enumerate(self._lengths)]
        return {
            "number": self._numbers.copy(),
            "return": self._returns.copy(),
            "length": self._lengths.copy(),
            "observation": self._step.observation.copy(),
            "action": np.concatenate(actions),
            "episodes": np.array(self.episodes[-EPISODES_KEPT:], np.float64).reshape(-1, 2),
        }

    def restore(self, state: State) -> npt.NDArray[Any]:
        """Bring every copy to where it stood, by playing its episode again; returns the observations.

        A copy that comes out elsewhere begins a new episode, and a line on stderr says so: its environment is not
        deterministic.
        """
        self._numbers[:] = state["number"]
        self._returns[:] = state["return"]
        self._lengths[:] = state["length"]
        self.episodes = [(float(episode_return), int(length)) for episode_return, length in state["episodes"]]
        room = ROOM * 2 ** max(0, int(np.ceil(np.log2(max(1, self._lengths.max()) / ROOM))))
        self._actions = np.zeros((self.num_envs, room, *self._actions.shape[2:]), self._actions.dtype)
        ends = np.cumsum(self._lengths)
        for i, end in enumerate(ends):
            self._actions[i, : self._lengths[i]] = state["action"][end - self._lengths[i] : end]
        with self._failures_named():
            elsewhere = [i for found in self._in_threads(self._replay_group, state["observation"]) for i in found]
        for i in elsewhere:
            self._numbers[i] += 1
            self._begin(i)
        if elsewhere:
            print(
                f"{self._name} is not deterministic: the same seed and actions led elsewhere. {len(elsewhere)} of "
                f"{self.num_envs} episodes that were under way begin anew.",
                file=sys.stderr,
            )
        return self._step.observation

    def close(self) -> None:
        """Release the environments and threads."""
        self._pool.shutdown()
        for env in self._envs:
            env.close()

    def _in_threads(self, work: Callable[[list[int], npt.NDArray[Any]], list[T]], argument: Any) -> list[list[T]]:
        """What `work` returns for each group, with the first group done by this thread."""
        # Waking another thread for the first group would only cost.
        others = [self._pool.submit(work, group, argument) for group in self._groups[1:]]
        try:
            first = work(self._groups[0], argument)
        except BaseException:
            wait(others)  # they write to arrays that are about to be given up
            raise
        return [first, *(other.result() for other in others)]

    def _step_group(self, group: list[int], actions: npt.NDArray[Any]) -> list[tuple[float, int]]:
        out, ended = self._step, []
        for i in group:
            observation, reward, terminated, truncated, _ = self._envs[i].step(actions[i])
            if np.shape(observation) != self.spec.observation.shape:
                raise self._misshapen(observation)
            out.next_observation[i] = observation
            out.reward[i] = reward
            out.terminated[i] = terminated
            out.done[i] = terminated or truncated
            self._actions[i, self._lengths[i]] = actions[i]
            self._returns[i] += float(reward)
            self._lengths[i] += 1
            if out.done[i]:
                ended.append((float(self._returns[i]), int(self._lengths[i])))
                self._begin(i)
            else:
                out.observation[i] = out.next_observation[i]
        return ended

    def _replay_group(self, group: list[int], observations: npt.NDArray[Any]) -> list[int]:
        """Play the episodes that are under way again; returns the copies that came out elsewhere."""
        elsewhere = []
        for i in group:
            observation, _ = self._envs[i].reset(seed=self._episode_seed(i))
            ended = False
            for action in self._actions[i, : self._lengths[i]]:
                observation, _, terminated, truncated, _ = self._envs[i].step(action)
                ended = terminated or truncated
                if ended:
                    break
            self._step.observation[i] = observation
            if ended or not np.array_equal(self._step.observation[i], observations[i]):
                elsewhere.append(i)
        return elsewhere

    def _begin(self, i: int) -> None:
        """Begin the next episode of copy `i`."""
        self._numbers[i] += 1
        self._returns[i], self._lengths[i] = 0.0, 0
        observation, _ = self._envs[i].reset(seed=self._episode_seed(i))
        array = np.asarray(observation)
        if array.shape != self.spec.observation.shape or not np.can_cast(
            array.dtype, self._step.observation.dtype, "same_kind"
        ):
            raise self._misshapen(observation)
        self._step.observation[i] = array
        if not np.isfinite(self._step.observation[i]).all():
            raise self._diverged()

    @contextmanager
    def _failures_named(self) -> Iterator[None]:
        """What an environment raises, as an error that says whose it is and where it came from."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"{self._name} failed in {where.name} ({where.filename}, line {where.lineno}): "
                f"{type(error).__name__}: {error}. Correct the environment: reset returns (observation, info), step "
                "(observation, reward, terminated, truncated, info)."
            ) from error

    def _episode_seed(self, i: int) -> int:
        return int(np.random.SeedSequence((self._seed, i, int(self._numbers[i]))).generate_state(1)[0])

    def _diverged(self) -> UserError:
        return UserError(f"{self._name} returned NaN or infinity. Its simulation has diverged; check the environment.")

    def _misshapen(self, observation: Any) -> UserError:
        array, space = np.asarray(observation), self._envs[0].observation_space
        return UserError(
            f"{self._name} returned an observation of shape {array.shape} and type {array.dtype}, but its "
            f"observation_space says {space.shape} and {space.dtype}. Correct the environment."
        )
