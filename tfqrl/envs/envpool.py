"""Several copies of an environment, stepped by EnvPool (Weng et al. 2022, arXiv 2206.10558): simulations in C++."""

from __future__ import annotations

import contextlib
import os
import warnings
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from edge.errors import UsageError, UserError
from tfqrl.envs.names import make
from tfqrl.envs.spec import policy_spec
from tfqrl.envs.step import EPISODES_KEPT, ActionScaler, VectorStep
from tfqrl.runs import State

# As ale-py's v5 environments and Gymnasium's AtariPreprocessing have it; EnvPool's own defaults are others.
ATARI_SETTINGS = {"repeat_action_probability": 0.25, "use_fire_reset": False}


class EnvPoolVectorEnv:
    """What `VectorEnv` does, for environments that EnvPool has too: the same names, the same `VectorStep`.

    Simulations in C++ cannot be put back to where they stood: a restored batch begins new episodes.

    Attributes:
      num_envs: how many copies.
      spec: what a policy for it reads and gives, from the environment of that name in Gymnasium or dm_control.
      episodes: (return, length) of each episode that has ended, oldest first.
    """

    def __init__(self, name: str, num_envs: int, *, seed: int, module: str | None = None) -> None:
        """Make the copies, in as many threads as there are cores. `module` is as in `make`.

        Raises:
          UsageError: EnvPool is not installed, or has no environment that is like the one called `name`; or what `make`
            raises.
        """
        with contextlib.closing(make(name, module)) as env:
            self.spec = policy_spec(env, None)
            # What a task of dm_control observes, in its order; EnvPool has the parts by name, and some of other tasks.
            self._parts: tuple[str, ...] = getattr(env.unwrapped, "parts", ())
            action_space = env.action_space
        self._name, self.num_envs = name, num_envs
        self._seed, self._restarts = seed, 0
        self.episodes: list[tuple[float, int]] = []
        self._step = VectorStep.empty(num_envs, self.spec)
        self._scale = ActionScaler(self.spec.action)
        self._returns = np.zeros(num_envs, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._make_pool()
        self._check_alike(action_space)

    def reset(self) -> npt.NDArray[Any]:
        """Begin a new episode in every copy; returns the observations, (num_envs, *shape)."""
        observation, info = self._pool.reset()
        self._step.observation[info["env_id"]] = self._observation(observation)
        self._returns[:], self._lengths[:] = 0.0, 0
        return self._step.observation

    def step(self, actions: npt.NDArray[Any]) -> VectorStep:
        """Step every copy; see `VectorEnv.step`.

        Raises:
          UserError: an environment returned NaN or infinity.
        """
        out, actions = self._step, self._scale(actions).astype(self._action_space.dtype)
        observation, reward, terminated, truncated, info = self._pool.step(actions)
        rows = info["env_id"]
        out.next_observation[rows] = self._observation(observation)
        out.reward[rows], out.terminated[rows], out.done[rows] = reward, terminated, terminated | truncated
        if not np.isfinite(out.reward).all() or not np.isfinite(out.next_observation).all():
            raise UserError(f"{self._name} returned NaN or infinity. Its simulation has diverged.")
        self._returns += out.reward
        self._lengths += 1
        out.observation[:] = out.next_observation
        if out.done.any():
            self._begin(np.flatnonzero(out.done))
        return out

    def state(self) -> State:
        """The returns of the last episodes, for a checkpoint, and how often the batch was restored."""
        return {
            "restarts": np.array(self._restarts),
            "episodes": np.array(self.episodes[-EPISODES_KEPT:], np.float64).reshape(-1, 2),
        }

    def restore(self, state: State) -> npt.NDArray[Any]:
        """Begin new episodes, with other seeds than those before; returns the observations."""
        self._restarts = int(state["restarts"]) + 1
        self.episodes = [(float(episode_return), int(length)) for episode_return, length in state["episodes"]]
        self._make_pool()
        return self.reset()

    def close(self) -> None:
        """Release the simulations."""
        self._pool.close()

    def _begin(self, ended: npt.NDArray[np.int64]) -> None:
        """Begin new episodes in the copies whose episodes have ended.

        EnvPool would do so at the next step, whose action it would ignore and whose reward means nothing.
        """
        self.episodes += [(float(self._returns[i]), int(self._lengths[i])) for i in ended]
        self._returns[ended], self._lengths[ended] = 0.0, 0
        observation, info = self._pool.reset(ended.astype(np.int32))
        self._step.observation[info["env_id"]] = self._observation(observation)

    def _observation(self, observation: Any) -> npt.NDArray[Any]:
        if self._parts:
            parts = [np.reshape(observation[part], (len(observation[part]), -1)) for part in self._parts]
            return np.concatenate(parts, axis=1)
        # Frames come with the channels first.
        return np.moveaxis(observation, 1, -1) if self.spec.observation.frames else np.asarray(observation)

    def _make_pool(self) -> None:
        envpool = _import_envpool()
        task = task_name(self._name)
        if task not in envpool.list_all_envs():
            raise UsageError(f"EnvPool has no environment like {self._name}. Leave out --vec envpool.")
        seeds = np.random.SeedSequence((self._seed, self._restarts)).generate_state(self.num_envs) >> 1
        with warnings.catch_warnings():
            # About the precision of its own spaces.
            warnings.simplefilter("ignore", UserWarning)
            self._pool = envpool.make_gymnasium(
                task,
                num_envs=self.num_envs,
                num_threads=min(self.num_envs, len(os.sched_getaffinity(0))),
                seed=[int(seed) for seed in seeds],
                **(ATARI_SETTINGS if self._name.startswith("ale:") else {}),
            )
            self._action_space = self._pool.action_space

    def _check_alike(self, action_space: gymnasium.Space[Any]) -> None:
        """See that EnvPool's environment is one of the same kind, before anything is trained in it."""
        theirs = self._action_space
        if isinstance(action_space, gymnasium.spaces.Discrete):
            alike = action_space == theirs
        else:
            assert isinstance(action_space, gymnasium.spaces.Box)
            alike = isinstance(theirs, gymnasium.spaces.Box) and all(
                a.shape == b.shape and np.allclose(a, b, rtol=1e-5)
                for a, b in ((action_space.low, theirs.low), (action_space.high, theirs.high))
            )
        observation, _ = self._pool.reset()
        if not alike or self._observation(observation).shape != self._step.observation.shape:
            raise UsageError(
                f"EnvPool's {task_name(self._name)} observes or acts otherwise than {self._name}. "
                "Leave out --vec envpool."
            )


def task_name(name: str) -> str:
    """What EnvPool calls the environment `name`: Pong-v5 is ale:Pong-v5, CheetahRun-v1 is dmc:cheetah-run."""
    family, _, rest = name.rpartition(":")
    if family != "dmc":
        return rest
    return "".join(word[:1].upper() + word[1:] for word in rest.replace("-", "_").split("_")) + "-v1"


def _import_envpool() -> ModuleType:
    try:
        import envpool
    except ImportError as error:
        raise UsageError(
            f"EnvPool cannot be imported ({error}). Run `pip install 'tfqrl[envpool]'`, or leave out --vec envpool."
        ) from error
    return envpool
