"""What a policy for an environment reads and gives."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from edge.artifact import ActionSpec, Normalizer, ObservationSpec, PolicySpec
from edge.errors import UsageError
from tfqrl.envs.names import is_frames, make


def policy_spec(env: gymnasium.Env[Any, Any], normalizer: Normalizer | None) -> PolicySpec:
    """The spec of a policy for `env`."""
    observation, action = env.observation_space, env.action_space
    assert isinstance(observation, gymnasium.spaces.Box)
    if isinstance(action, gymnasium.spaces.Discrete):
        action_spec = ActionSpec((), (), (), int(action.n))
    else:
        assert isinstance(action, gymnasium.spaces.Box)
        action_spec = ActionSpec(action.shape, _finite(action.low), _finite(action.high))
    if is_frames(observation):
        observation_spec = ObservationSpec(observation.shape, (), (), "uint8")
    else:
        observation_spec = ObservationSpec(observation.shape, _finite(observation.low), _finite(observation.high))
    return PolicySpec(observation_spec, action_spec, control_rate_hz(env), normalizer)


def spec_of(name: str, module: str | None = None) -> PolicySpec:
    """The spec of a policy for the environment called `name`; `module` is as in `make`.

    Raises:
      UsageError: what `make` raises.
    """
    with contextlib.closing(make(name, module)) as env:
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


def _finite(bounds: npt.NDArray[Any]) -> tuple[float | None, ...]:
    # Bounds such as float32's largest number are how some environments write "unbounded".
    return tuple(float(b) if math.isfinite(b) and abs(b) < 1e30 else None for b in bounds.ravel())
