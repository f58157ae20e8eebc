"""The loop of distillation: the student acts for a while, the teacher says what it would have done, then updates."""

from __future__ import annotations

from typing import Any

from tfqrl.replay import Demonstrations
from tfqrl.runs import Run, State, nested, prefixed
from tfqrl.training.session import Session


def train(run: Run, config: Any, agent_type: Any) -> None:
    """Train `run` to its configured steps, from its checkpoint if it has one.

    While the teacher acts, at the beginning, the student's normaliser takes in what is observed; then it is fixed.

    SIGINT and SIGTERM end it after the current iteration, with a checkpoint; `Interrupted` is then raised.
    """
    with Session(run, config, agent_type) as session:
        env, agent, rng = session.env, session.agent, session.rng
        outputs = env.spec.action.n or env.spec.action.shape[0]
        seen = Demonstrations(config.demonstrations, env.spec, outputs)
        # Memories of frames take gigabytes: a run that is resumed begins with an empty one.
        if not env.spec.observation.frames:
            seen.restore(nested(session.saved, "demonstrations"))

        def state() -> State:
            return {} if env.spec.observation.frames else prefixed("demonstrations", seen.state())

        observation = session.observation.copy()
        while session.unfinished:
            fraction_done = session.steps / config.steps
            teaches = fraction_done < config.teacher_fraction
            for _ in range(config.rollout_steps):
                target = agent.teach(observation)
                seen.extend(observation, target)
                if teaches:
                    session.observed(observation)
                    action = agent.choose(target)
                else:
                    action = agent.explore(session.normalize(observation), session.steps, rng)
                observation = env.step(action).observation.copy()
                session.steps += config.num_envs
            learning_rate = config.learning_rate * (1.0 - fraction_done)
            observations, targets = seen.sample(config.updates, config.batch_size, rng)
            observations = session.normalize(observations)
            metrics = agent.update(observations, targets, learning_rate)
            session.updated(metrics | {"learning_rate": learning_rate}, observations[-1], state)
        session.finish(state())
