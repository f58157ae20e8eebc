"""Steps, episodes and checkpoints for the tests of replay."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from tfqrl.envs import VectorStep
from tfqrl.replay import Transitions


def vectors(size: int = 3) -> PolicySpec:
    unknown = (None,) * size
    action = ActionSpec((2,), (-2.0, 0.0), (2.0, 1.0))
    return PolicySpec(ObservationSpec((size,), unknown, unknown), action, None, None)


def frames(height: int = 5, width: int = 4, stack: int = 4) -> PolicySpec:
    return PolicySpec(ObservationSpec((height, width, stack), (), (), "uint8"), ActionSpec((), (), (), 3), None, None)


def numbered(first: int, count: int, size: int = 3) -> Transitions:
    """Transitions all of whose fields tell their numbers."""
    n = np.arange(first, first + count, dtype=np.float32)
    observation = n[:, None] + np.float32(0.25) * np.arange(size, dtype=np.float32)
    return Transitions(observation, np.stack([n, -n], 1), n, observation + 1, n / 1024)


def through_npz(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint makes of a state."""
    buffer = io.BytesIO()
    np.savez(buffer, **state)
    buffer.seek(0)
    return dict(np.load(buffer, allow_pickle=False))


def play(spec: PolicySpec, num_envs: int, steps: int, seed: int) -> Iterator[tuple[Any, Any, VectorStep]]:
    """Observations, actions and steps of random episodes. The step's arrays are overwritten, as `VectorEnv` does it.

    Frames are stacked as usual: the first one of an episode fills its stack. Rewards number the steps.
    """
    rng = np.random.default_rng(seed)
    shape = (num_envs, *spec.observation.shape)

    def observe(previous: Any, begin: Any) -> Any:
        if not spec.observation.frames:
            return rng.normal(size=shape).astype(np.float32)
        new = rng.integers(0, 256, (*shape[:-1], 1), dtype=np.uint8)
        first = np.broadcast_to(new, shape)
        return np.where(begin[:, None, None, None], first, np.concatenate([previous[..., 1:], new], -1))

    observation = observe(np.zeros(shape, np.uint8), np.ones(num_envs, bool))
    step = VectorStep(observation.copy(), observation.copy(), *(np.zeros(num_envs, t) for t in ("f4", "?", "?")))
    for t in range(steps):
        observation = step.observation.copy()
        if spec.action.discrete:
            action = rng.integers(0, spec.action.n, num_envs)
        else:
            action = rng.uniform(-1, 1, (num_envs, *spec.action.shape)).astype(np.float32)
        step.next_observation[:] = observe(observation, np.zeros(num_envs, bool))
        step.reward[:] = t * num_envs + np.arange(num_envs)
        step.done[:] = rng.random(num_envs) < 0.2
        step.terminated[:] = step.done & (rng.random(num_envs) < 0.5)
        first = observe(observation, np.ones(num_envs, bool))
        step.observation[:] = np.where(step.done.reshape(-1, *[1] * (len(shape) - 1)), first, step.next_observation)
        yield observation, action, step
