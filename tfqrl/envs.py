"""Environments by name, alone and in batches."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from edge.errors import UnknownNameError, UsageError, UserError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def _warn(message: str) -> None:
    # Gymnasium's own models use an option that MuJoCo will drop; nobody who trains can do anything about it.
    if "is deprecated" not in message:
        print(f"MuJoCo: {message}", file=sys.stderr)


with contextlib.suppress(ImportError):
    import mujoco

    mujoco.set_mju_user_warning(_warn)


def make(name: str) -> gymnasium.Env[Any, Any]:
    """The environment called `name`.

    Raises:
      UnknownNameError: there is none; the nearest name is offered.
      UsageError: it cannot be made here, or its spaces are of a kind that no algorithm here can take.
    """
    try:
        # The checker's warnings are for authors of environments; the checks that matter here are made below.
        env = gymnasium.make(name, disable_env_checker=True)
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound, gymnasium.error.VersionNotFound) as error:
        raise UnknownNameError("environment", name, gymnasium.registry) from error
    except (gymnasium.error.Error, ImportError, AttributeError) as error:
        raise UsageError(f"The environment {name} cannot be made here: {error}") from error
    _check_spaces(name, env)
    return env


def make_for_training(name: str) -> gymnasium.Env[Any, Any]:
    """What `make` does, for the algorithms here.

    Raises:
      UsageError: it observes frames, besides what `make` refuses.
    """
    env = make(name)
    if policy_spec(env, None).observation.frames:
        env.close()
        raise UsageError(
            f"{name} observes frames, {env.observation_space.shape}; the algorithms here train on vectors. Policies "
            "for frames come from elsewhere: they can be converted, evaluated and run."
        )
    return env


def policy_spec(env: gymnasium.Env[Any, Any], normalizer: Normalizer | None) -> PolicySpec:
    """The spec of a policy for `env`."""
    observation, action = env.observation_space, env.action_space
    assert isinstance(observation, gymnasium.spaces.Box)
    if isinstance(action, gymnasium.spaces.Discrete):
        action_spec = ActionSpec((), (), (), int(action.n))
    else:
        assert isinstance(action, gymnasium.spaces.Box)
        action_spec = ActionSpec(action.shape, _finite(action.low), _finite(action.high))
    if _frames(observation):
        observation_spec = ObservationSpec(observation.shape, (), (), "uint8")
    else:
        observation_spec = ObservationSpec(observation.shape, _finite(observation.low), _finite(observation.high))
    return PolicySpec(observation_spec, action_spec, control_rate_hz(env), normalizer)


def spec_of(name: str) -> PolicySpec:
    """The spec of a policy for the environment called `name`.

    Raises:
      UsageError: what `make` raises.
    """
    with contextlib.closing(make(name)) as env:
        return policy_spec(env, None)


def check_fits(who: str, spec: PolicySpec, name: str, theirs: PolicySpec) -> None:
    """See whether a policy can act in the environment called `name`, whose spec is `theirs`; `who` names the policy.

    Raises:
      UsageError: they observe or act otherwise. Bounds of actions may differ as much as float32 rounds them; those of
        observations change nothing of what a policy does.
    """
    ours, acts, other = spec.observation, spec.action, theirs.action
    bounds = zip((*acts.low, *acts.high), (*other.low, *other.high))
    if (ours.shape, ours.dtype) != (theirs.observation.shape, theirs.observation.dtype):
        difference = f"observes {text(ours)}, the environment {text(theirs.observation)}"
    elif (acts.shape, acts.n) != (other.shape, other.n) or not all(_near(a, b) for a, b in bounds):
        difference = f"acts by {text(acts)}, the environment by {text(other)}"
    else:
        return
    raise UsageError(f"{who} is not for {name}: it {difference}. Give the --env that it was trained in.")


def _near(a: float | None, b: float | None) -> bool:
    return a is b is None or (a is not None and b is not None and bool(np.isclose(a, b, rtol=1e-5)))


def text(space: ObservationSpec | ActionSpec) -> str:
    """What is observed or done, for people."""
    if isinstance(space, ActionSpec) and space.n is not None:
        return f"one of {space.n} choices"
    shape = "x".join(map(str, space.shape))
    if not space.low:
        return f"{shape} bytes"
    if all(bound is None for bound in (*space.low, *space.high)):
        return f"{shape} numbers (unbounded)"
    pairs = [(("" if b is None else f"{b:g}") for b in pair) for pair in zip(space.low, space.high)]
    bounds = ["..".join(pair) for pair in pairs[:6]]
    return f"{shape} numbers ({', '.join(bounds)}{', ...' if len(pairs) > 6 else ''})"


def control_rate_hz(env: gymnasium.Env[Any, Any]) -> float | None:
    """Control steps per second of simulated time, where the environment has a notion of it."""
    # MuJoCo environments and Pendulum say how long a step is; CartPole calls it tau. The render rate, which others
    # name, is that of the video.
    for attribute in ("dt", "tau"):
        step_s = getattr(env.unwrapped, attribute, None)
        if isinstance(step_s, float) and step_s > 0:
            return round(1 / step_s, 6)
    rate = env.metadata.get("render_fps")
    return float(rate) if rate else None


@dataclass
class VectorStep:
    """What a step of all environments gave. The arrays are overwritten by the next step.

    Attributes:
      observation: (num_envs, *shape) float32, to act on next: the first of a new episode where one has ended.
      next_observation: (num_envs, *shape) float32, what the action led to: the last of the episode where it has ended.
      reward: (num_envs,) float32.
      terminated: (num_envs,) the episode ended in a state without a future.
      done: (num_envs,) the episode ended, for that reason or because its time was up.
    """

    observation: FloatArray
    next_observation: FloatArray
    reward: FloatArray
    terminated: BoolArray
    done: BoolArray


class VectorEnv:
    """Several copies of an environment, stepped by threads, each reset as soon as its episode ends.

    MuJoCo releases Python's lock while it simulates, so threads step in parallel, without the copies and the context
    switches that processes cost (benchmarks/rollout.py).

    Attributes:
      num_envs: how many copies.
      spec: what a policy for it reads and gives.
      episodes: (return, length) of each episode that has ended, oldest first.
    """

    def __init__(self, name: str, num_envs: int, *, seed: int, threads: int | None = None) -> None:
        """Make the copies. The same seed gives the same episodes, whatever the number of threads.

        `threads` counts the one that calls `step`; if None there are two where there are two cores. More contend for
        Python's lock.
        """
        self._envs = [make_for_training(name) for _ in range(num_envs)]
        self._name = name
        self.num_envs = num_envs
        self.spec = policy_spec(self._envs[0], None)
        self.episodes: list[tuple[float, int]] = []
        self._seeds = [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(num_envs)]
        shape = (num_envs, *self.spec.observation.shape)
        self._step = VectorStep(
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(num_envs, np.float32),
            np.zeros(num_envs, np.bool_),
            np.zeros(num_envs, np.bool_),
        )
        self._returns = [0.0] * num_envs
        self._lengths = [0] * num_envs
        # As the deployed graph does it: [-1, 1] is scaled where both bounds are known, else taken as it is.
        self._bounded, self._half_range, self._middle = self.spec.action.scaling
        threads = min(threads or min(2, len(os.sched_getaffinity(0))), num_envs)
        self._groups = [list(group) for group in np.array_split(np.arange(num_envs), threads)]
        self._pool = ThreadPoolExecutor(max(1, threads - 1), "env")

    def reset(self) -> FloatArray:
        """Begin a new episode in every copy; returns the observations, (num_envs, *shape)."""
        for i, env in enumerate(self._envs):
            self._step.observation[i], _ = env.reset(seed=self._seeds[i])
        self._returns = [0.0] * self.num_envs
        self._lengths = [0] * self.num_envs
        return self._step.observation

    def step(self, actions: npt.NDArray[Any]) -> VectorStep:
        """Step every copy.

        Args:
          actions: (num_envs, *action.shape) float32, where [-1, 1] spans the bounds and what is beyond is clipped
            (unbounded elements are taken as they are); or (num_envs,) choices.

        Raises:
          UserError: an environment returned NaN or infinity.
        """
        if not self.spec.action.discrete:
            actions = self._scale(actions)
        # The first group is this thread's own: waking another for it would only cost.
        others = [self._pool.submit(self._step_group, group, actions) for group in self._groups[1:]]
        try:
            self.episodes += self._step_group(self._groups[0], actions)
        except BaseException:
            wait(others)  # they write to arrays that are about to be given up
            raise
        for other in others:
            self.episodes += other.result()
        if not (np.isfinite(self._step.next_observation).all() and np.isfinite(self._step.reward).all()):
            raise UserError(
                f"{self._name} returned NaN or infinity. Its simulation has diverged; check the environment."
            )
        return self._step

    def close(self) -> None:
        """Release the environments and threads."""
        self._pool.shutdown()
        for env in self._envs:
            env.close()

    def _step_group(self, group: list[int], actions: npt.NDArray[Any]) -> list[tuple[float, int]]:
        out, ended = self._step, []
        for i in group:
            observation, reward, terminated, truncated, _ = self._envs[i].step(actions[i])
            out.next_observation[i] = observation
            out.reward[i] = reward
            out.terminated[i] = terminated
            out.done[i] = terminated or truncated
            self._returns[i] += float(reward)
            self._lengths[i] += 1
            if out.done[i]:
                ended.append((self._returns[i], self._lengths[i]))
                self._returns[i], self._lengths[i] = 0.0, 0
                observation, _ = self._envs[i].reset()
            out.observation[i] = observation
        return ended

    def _scale(self, actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
        clipped = np.where(self._bounded, np.clip(actions, -1.0, 1.0), actions)
        return (self._middle + clipped * self._half_range).astype(np.float32)


def _check_spaces(name: str, env: gymnasium.Env[Any, Any]) -> None:
    observation, action = env.observation_space, env.action_space
    if not isinstance(observation, gymnasium.spaces.Box) or not (len(observation.shape) == 1 or _frames(observation)):
        raise UsageError(
            f"{name} observes {observation}; a vector (Box of one dimension) or frames (Box of uint8: height, width, "
            "channels) are needed. Wrap it with gymnasium.wrappers.FlattenObservation, say, and register the result."
        )
    if not isinstance(action, gymnasium.spaces.Discrete) and not (
        isinstance(action, gymnasium.spaces.Box) and len(action.shape) == 1
    ):
        raise UsageError(f"{name} acts by {action}; a vector (Box of one dimension) or Discrete is needed.")
    if isinstance(action, gymnasium.spaces.Discrete) and action.start != 0:
        raise UsageError(f"{name} numbers its actions from {action.start}; they must begin at 0.")


def _frames(observation: gymnasium.spaces.Box) -> bool:
    return len(observation.shape) == 3 and observation.dtype == np.uint8


def _finite(bounds: npt.NDArray[Any]) -> tuple[float | None, ...]:
    # Bounds such as float32's largest number are how some environments write "unbounded".
    return tuple(float(b) if math.isfinite(b) and abs(b) < 1e30 else None for b in bounds.ravel())
