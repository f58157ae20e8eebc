"""The loop of algorithms that learn from rollouts of their present policy: one rollout, one update, and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfqrl.normalization import RunningMoments
from tfqrl.runs import Run, State, nested, prefixed
from tfqrl.training.config import OnPolicyConfig
from tfqrl.training.session import Session

Array = npt.NDArray[Any]

REWARD_CLIP = 10.0


@dataclass(frozen=True)
class Rollout:
    """Steps of all copies under one policy; arrays are (time, envs, ...).

    Attributes:
      observation: acted on; normalised float32, or bytes of frames.
      action: taken.
      next_observation: what the action led to, also where an episode ended there.
      reward: float32, scaled.
      terminated: float32, 1 where the episode ended in a state without a future.
      done: float32, 1 where the episode ended, for that reason or because its time was up.
    """

    observation: Array
    action: Array
    next_observation: Array
    reward: Array
    terminated: Array
    done: Array


Collect = Callable[[Session, Rollout], Mapping[str, float]]


def train(
    run: Run, config: OnPolicyConfig, agent_type: Any, *, collect: Collect | None = None, **of_session: Any
) -> None:
    """Train `run` to its configured steps, from its checkpoint if it has one.

    Args:
      run: the run.
      config: its configuration.
      agent_type: its algorithm.
      collect: fills a rollout, as the present policy acts, counts its steps, and returns metrics; None for environments
        of this process.
      **of_session: what a `Session` takes besides.

    The observation normaliser is fixed during a rollout and updated after it, so that the probabilities that the
    rollout was sampled with are exactly those that the update computes for it.

    SIGINT and SIGTERM end it after the current iteration, with a checkpoint; `Interrupted` is then raised.
    """
    collect = Here() if collect is None else collect
    with Session(run, config, agent_type, **of_session) as session:
        env, agent, rng = session.env, session.agent, session.rng
        steps, envs = config.rollout_steps, config.num_envs
        observations, actions = env.spec.observation, env.spec.action
        rollout = Rollout(
            observation=np.zeros((steps, envs, *observations.shape), observations.dtype),
            action=np.zeros((steps, envs, *actions.shape), np.int32 if actions.discrete else np.float32),
            next_observation=np.zeros((steps, envs, *observations.shape), observations.dtype),
            reward=np.zeros((steps, envs), np.float32),
            terminated=np.zeros((steps, envs), np.float32),
            done=np.zeros((steps, envs), np.float32),
        )
        scaler = RewardScaler(envs, config.gamma)
        scaler.restore(nested(session.saved, "reward"))

        def state() -> State:
            return prefixed("reward", scaler.state())

        while session.unfinished:
            measured = collect(session, rollout)
            reward = rollout.reward
            if config.normalize_reward:
                reward = scaler.scale(rollout.reward, rollout.done)
            fraction_left = 1.0
            if config.anneal_learning_rate:
                fraction_left = max(0.0, 1.0 - (session.steps - steps * envs) / config.steps)
            learning_rate = config.learning_rate * fraction_left
            normalized = session.normalize(rollout.observation)
            metrics = agent.update(
                Rollout(
                    observation=normalized,
                    action=rollout.action,
                    next_observation=session.normalize(rollout.next_observation),
                    reward=reward,
                    terminated=rollout.terminated,
                    done=rollout.done,
                ),
                learning_rate,
                rng,
            )
            session.observed(rollout.observation)
            learnt_from = normalized.reshape(-1, *observations.shape)
            session.updated({**metrics, "learning_rate": learning_rate, **measured}, learnt_from, state)
        session.finish(state())


class Here:
    """Collects from the environments of the session itself."""

    def __init__(self) -> None:
        self._observation: Array | None = None

    def __call__(self, session: Session, rollout: Rollout) -> Mapping[str, float]:
        """Fill `rollout`, from where the environments stand."""
        env, agent, config = session.env, session.agent, session.config
        observation = session.observation if self._observation is None else self._observation
        for t in range(len(rollout.reward)):
            rollout.observation[t] = observation
            explorer = agent.explorer(session.steps)
            rollout.action[t] = explorer(agent.acting, session.normalize(observation), session.rng)
            step = env.step(rollout.action[t])
            rollout.next_observation[t] = step.next_observation
            rollout.reward[t] = np.sign(step.reward) if config.clip_reward else step.reward
            rollout.terminated[t] = step.terminated
            rollout.done[t] = step.done
            observation = step.observation
            session.steps += config.num_envs
        self._observation = observation
        return {}


class RewardScaler:
    """Divides rewards by the running deviation of the discounted return.

    That needs no mean: it would move the goal of tasks that reward every step survived (Engstrom et al. 2020, arXiv
    2005.12729, section 3).
    """

    def __init__(self, num_envs: int, gamma: float) -> None:
        self._gamma = gamma
        self._returns = np.zeros(num_envs)
        self._moments = RunningMoments(())

    def scale(self, reward: Array, done: Array) -> Array:
        """(time, envs) rewards, scaled and bounded, float32; `done` says where episodes ended."""
        discounted = np.zeros(reward.shape)
        for t in range(len(reward)):
            self._returns = reward[t] + self._gamma * self._returns
            discounted[t] = self._returns
            self._returns = self._returns * (1.0 - done[t])
        self._moments.update(discounted.reshape(-1))
        return np.clip(reward / np.float32(self._moments.std), -REWARD_CLIP, REWARD_CLIP)

    def state(self) -> State:
        """For a checkpoint."""
        return {"returns": self._returns, **prefixed("moments", self._moments.state())}

    def restore(self, state: State) -> None:
        """From a checkpoint; nothing if that is empty."""
        if state:
            self._returns = state["returns"]
            self._moments.restore(nested(state, "moments"))
