"""The loop of algorithms that learn from a replay buffer: collect some steps, then make some updates, and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tfqrl.exploration import random_actions
from tfqrl.replay import NStep, Transitions
from tfqrl.runs import Run, State, nested, prefixed
from tfqrl.training.config import OffPolicyConfig
from tfqrl.training.session import Session

Array = npt.NDArray[Any]


def train(run: Run, config: OffPolicyConfig, agent_type: Any) -> None:
    """Train `run` to its configured steps, from its checkpoint if it has one.

    Between two calls of the agent's update, `updates_per_call * update_every` steps are made by one policy; each
    update draws a batch of its own from all that was seen until then. More updates to a call are faster and let the
    policy that acts lag behind by as many updates.

    SIGINT and SIGTERM end it after the current call, with a checkpoint; `Interrupted` is then raised.
    """
    with Session(run, config, agent_type) as session:
        env, agent, rng = session.env, session.agent, session.rng
        windows = NStep(config.num_envs, config.n_step, config.gamma)
        replay = config.make_replay(env.spec)
        if session.episodes_go_on:
            windows.restore(nested(session.saved, "windows"))
        if config.save_replay and session.saved:
            replay.restore(nested(session.saved, "replay"))

        def state() -> State:
            kept = prefixed("replay", replay.state()) if config.save_replay else {}
            return prefixed("windows", windows.state()) | kept

        observation = session.observation.copy()
        call_steps = config.update_every * config.updates_per_call
        while session.unfinished:
            for _ in range(call_steps // config.num_envs):
                if session.steps < config.learning_starts and config.init_from is None:
                    action = random_actions(env.spec, config.num_envs, rng)
                else:
                    action = agent.explorer(session.steps)(agent.acting, session.normalize(observation), rng)
                session.observed(observation)
                step = env.step(action)
                if config.clip_reward:
                    np.sign(step.reward, out=step.reward)
                replay.extend(windows.add(observation, action, step))
                observation = step.observation.copy()
                session.steps += config.num_envs
            metrics, learnt_from = {}, None
            # A resumed run without its replay buffer fills that with the trained policy's steps first.
            if len(replay) >= config.learning_starts:
                batch = replay.sample(config.updates_per_call, config.batch_size, rng)
                metrics, learnt_from = learn(session, replay, batch)
            session.updated(metrics, learnt_from, state)
        session.finish(state())


def learn(session: Session, replay: Any, batch: Transitions) -> tuple[dict[str, Any], Array]:
    """Update the agent on each of several batches, (updates, batch, ...) from `replay`, whose priorities follow.

    Returns:
      The agent's metrics, and the observations of the last batch, normalised.
    """
    batch.observation = session.normalize(batch.observation)
    batch.next_observation = session.normalize(batch.next_observation)
    metrics = session.agent.update(batch)
    errors = metrics.pop("td_error", None)
    # Errors that are not finite end the training in `Session.updated`.
    if batch.index is not None and np.isfinite(errors).all():
        replay.update_priorities(batch.index, errors.numpy())
    return metrics, batch.observation[-1]
