"""Rollouts by a pushed policy."""

from pathlib import Path

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from converters.template import Template
from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UserError
from tfqrl.actorq.acting import Bytes
from tfqrl.actorq.messages import Assignment, Push
from tfqrl.actorq.rollouts import RolloutActor
from tfqrl.exploration import Gumbel, Normal
from tfqrl.networks import HostNetwork, mlp


def pushed(inputs: int, outputs: int, explorer: Normal | Gumbel) -> tuple[object, Push, Bytes]:
    network = mlp(inputs, (8,), outputs, activation="tanh", output_gain=None, seed=1)
    unbounded = ActionSpec((outputs,), (None,) * outputs, (None,) * outputs)
    spec = PolicySpec(ObservationSpec((inputs,), (None,) * inputs, (None,) * inputs), unbounded, None, None)
    flatbuffer = np.frombuffer(bytes(Template(network, spec).flatbuffer), np.uint8)
    return network, Push(None, spec, 0, explorer, False), flatbuffer


def actor(path: Path, env: str, *, clip_reward: bool = False) -> RolloutActor:
    return RolloutActor(Assignment(0, 1, env, "toy_envs", 0, clip_reward, str(path / "counter")), 3, successor=0)


def test_rollouts_go_on_where_the_last_one_ended(tmp_path: Path) -> None:
    network, push, flatbuffer = pushed(2, 1, Normal(np.float32([0.0])))
    acting = actor(tmp_path, "toys/CutOff-v0")
    first, second = (acting.collect(push, lambda: flatbuffer, 4) for _ in range(2))
    assert first.observation.shape == (4, 3, 2)
    assert first.action.shape == (4, 3, 1)
    expected = HostNetwork(network)(first.observation.reshape(-1, 2).astype(np.float32))
    np.testing.assert_allclose(first.action.reshape(-1, 1), expected, atol=1e-5)
    # An episode has five steps: it ends in the second rollout, by its time.
    assert not first.done.any()
    np.testing.assert_array_equal(second.done[:, 0], [True, False, False, False])
    assert not second.terminated.any()
    np.testing.assert_array_equal(second.observation[0], first.next_observation[-1])
    assert (first.stepped, second.stepped) == (12, 24)
    assert (len(first.episodes), len(second.episodes)) == (0, 3)
    assert second.usage.spans["environment"] > 0


def test_choices_are_drawn_and_rewards_clipped(tmp_path: Path) -> None:
    _, push, flatbuffer = pushed(2, 3, Gumbel())
    part = actor(tmp_path, "toys/Choose-v0", clip_reward=True).collect(push, lambda: flatbuffer, 200)
    assert part.action.shape == (200, 3)
    assert set(part.action.ravel()) == {0, 1, 2}
    assert set(part.reward.ravel()) == {0.0, 1.0}


def test_an_environment_that_fails_ends_it(tmp_path: Path) -> None:
    _, push, flatbuffer = pushed(1, 1, Normal(np.float32([0.0])))
    with pytest.raises(UserError, match="toys/FailingStep-v0"):
        actor(tmp_path, "toys/FailingStep-v0").collect(push, lambda: flatbuffer, 4)
