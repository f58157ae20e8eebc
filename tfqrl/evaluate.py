"""Playing episodes with a fixed policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import UserError
from tfqrl import envs

Array = npt.NDArray[Any]

# Longer than any time limit in use: an environment that reaches it has none.
MAX_EPISODE_STEPS = 100_000

# Actions for a batch of observations, (n, *observation.shape) -> (n, *action.shape), in the environment's units.
Act = Callable[[Array], Array]


def play(act: Act, env: str, *, first_seed: int, episodes: int) -> tuple[Array, list[Array]]:
    """Play episodes seeded first_seed, first_seed + 1, ..., side by side, so that `act` gets them as one batch.

    Raises:
      UserError: an episode does not end.

    Returns:
      The returns, (episodes,) float64; and for each episode the observations acted on, (length, *shape) float32, or
      uint8 for frames.
    """
    copies = [envs.make(env) for _ in range(episodes)]
    dtype = envs.policy_spec(copies[0], None).observation.dtype
    observations = [copy.reset(seed=first_seed + i)[0] for i, copy in enumerate(copies)]
    visited: list[list[Array]] = [[] for _ in copies]
    returns = np.zeros(episodes)
    playing = list(range(episodes))
    while playing:
        batch = np.stack([observations[i] for i in playing]).astype(dtype)
        actions = act(batch)
        for i, observation, action in zip(list(playing), batch, actions):
            visited[i].append(observation)
            observations[i], reward, terminated, truncated, _ = copies[i].step(action)
            returns[i] += float(reward)
            if terminated or truncated:
                playing.remove(i)
            elif len(visited[i]) >= MAX_EPISODE_STEPS:
                raise UserError(
                    f"An episode of {env} lasts over {MAX_EPISODE_STEPS} steps. Register it with max_episode_steps."
                )
    for copy in copies:
        copy.close()
    return returns, [np.stack(episode) for episode in visited]
