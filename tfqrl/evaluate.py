"""Playing episodes with a fixed policy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import UserError
from tfqrl import envs

Array = npt.NDArray[Any]

# Longer than any time limit in use: an environment that reaches it has none.
MAX_EPISODE_STEPS = 100_000

# Episodes that are stepped together: more make the batches hardly cheaper, and each is a simulator in memory.
SIDE_BY_SIDE = 128

# Actions for a batch of observations, (n, *observation.shape) -> (n, *action.shape), in the environment's units.
Act = Callable[[Array], Array]


@dataclass(frozen=True)
class Episodes:
    """Episodes that were played.

    Attributes:
      returns: (episodes,) float64.
      lengths: of each episode, in steps, (episodes,) int64.
      observations: for each episode those acted on, (length, *shape), uint8 for frames and float32 otherwise; none at
        all if they were not to be kept.
    """

    returns: Array
    lengths: Array
    observations: tuple[Array, ...]


def play(
    act: Act,
    env: str,
    *,
    first_seed: int,
    episodes: int,
    keep_observations: bool = True,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Episodes:
    """Play episodes seeded first_seed, first_seed + 1, ..., side by side, so that `act` gets them in batches.

    `progress` is told the fraction of the work that is done, 0..1.

    Raises:
      UserError: an episode does not end, or the environment gives NaN or infinity.
    """
    chunks = []
    for begin in range(0, episodes, SIDE_BY_SIDE):
        end = min(begin + SIDE_BY_SIDE, episodes)
        share = (end - begin) / episodes

        def chunk_progress(fraction: float, begin: int = begin, share: float = share) -> None:
            progress(begin / episodes + fraction * share)

        chunks.append(_play_together(act, env, first_seed + begin, end - begin, keep_observations, chunk_progress))
    return Episodes(
        np.concatenate([chunk.returns for chunk in chunks]),
        np.concatenate([chunk.lengths for chunk in chunks]),
        tuple(episode for chunk in chunks for episode in chunk.observations),
    )


def _play_together(
    act: Act,
    env: str,
    first_seed: int,
    episodes: int,
    keep_observations: bool,
    progress: Callable[[float], None],
) -> Episodes:
    with contextlib.ExitStack() as closing:
        copies = [closing.enter_context(contextlib.closing(envs.make(env))) for _ in range(episodes)]
        dtype = envs.policy_spec(copies[0], None).observation.dtype
        # Where there is no limit, only episodes that have ended show in the progress.
        limit = getattr(copies[0].spec, "max_episode_steps", None) or np.inf
        observations = [copy.reset(seed=first_seed + i)[0] for i, copy in enumerate(copies)]
        visited: list[list[Array]] = [[] for _ in copies]
        returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
        playing = list(range(episodes))
        steps = 0
        while playing:
            batch = np.stack([observations[i] for i in playing]).astype(dtype)
            if not np.isfinite(batch).all():
                raise UserError(f"{env} observes NaN or infinity. Its simulation has diverged; check the environment.")
            steps += 1
            for i, observation, action in zip(list(playing), batch, act(batch)):
                if keep_observations:
                    visited[i].append(observation)
                observations[i], reward, terminated, truncated, _ = copies[i].step(action)
                returns[i] += float(reward)
                lengths[i] = steps
                if terminated or truncated:
                    playing.remove(i)
                elif steps >= MAX_EPISODE_STEPS:
                    raise UserError(
                        f"An episode of {env} lasts over {MAX_EPISODE_STEPS} steps. Register it with max_episode_steps."
                    )
            progress(1 - len(playing) / episodes * (1 - min(steps / limit, 1)))
    if not np.isfinite(returns).all():
        raise UserError(f"{env} rewards with NaN or infinity. Its simulation has diverged; check the environment.")
    return Episodes(returns, lengths, tuple(np.stack(episode) for episode in visited) if keep_observations else ())
