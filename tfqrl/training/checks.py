"""What an algorithm can be trained on; looked at before anything is built."""

from __future__ import annotations

from edge.artifact import PolicySpec
from edge.errors import UsageError
from tfqrl.envs import text
from tfqrl.networks.cnn import check_pixels


def needs_bounded_actions(algorithm: str, _config: object, spec: PolicySpec) -> None:
    """Refuse what an algorithm for vectors, with actions in [-1, 1], cannot take.

    Raises:
      UsageError: the environment has choices, actions without bounds, or observes frames.
    """
    if spec.action.discrete:
        raise UsageError(
            f"{algorithm} needs actions that are a vector; the environment acts by {text(spec.action)}. Train dqn, a2c "
            "or ppo there."
        )
    if not spec.action.scaling[0].all():
        raise UsageError(
            f"{algorithm} needs actions with two bounds each; the environment acts by {text(spec.action)}. Train a2c "
            "or ppo there, or give it an action_space whose `low` and `high` are finite."
        )
    if spec.observation.frames:
        raise UsageError(
            f"{algorithm} learns from vectors; the environment observes {text(spec.observation)}. Train dqn, a2c or "
            "ppo there."
        )


def needs_choices(algorithm: str, config: object, spec: PolicySpec) -> None:
    """Refuse what an algorithm that values each choice cannot take.

    Raises:
      UsageError: the environment's actions are a vector, or its frames are too small.
    """
    enough_pixels(config, spec)
    if not spec.action.discrete:
        raise UsageError(
            f"{algorithm} needs a choice of actions; the environment acts by {text(spec.action)}. Train a2c or ppo "
            "there, or, on a vector with actions between bounds, sac, td3, ddpg or d4pg."
        )


def enough_pixels(_config: object, spec: PolicySpec) -> None:
    """Refuse frames that are too small for the Nature CNN.

    Raises:
      UsageError: they are.
    """
    if spec.observation.frames:
        check_pixels(spec.observation.shape)
