from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import toy_envs  # noqa: F401  (registers the toys)

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UnknownNameError, UsageError, UserError
from tfqrl import envs
from tfqrl.envs import VectorEnv


def test_actions_span_the_bounds_and_are_clipped() -> None:
    env = VectorEnv("toys/Count-v0", 3, seed=0)
    env.reset()
    # The reward of Count is its first action, which lies in -2..2.
    step = env.step(np.array([[-1.0, 0.0], [0.5, 0.0], [7.0, 0.0]], np.float32))
    np.testing.assert_allclose(step.reward, [-2.0, 1.0, 2.0])
    env.close()


def test_unbounded_actions_are_taken_as_they_are_in_training_as_in_deployment() -> None:
    env = VectorEnv("toys/Unbounded-v0", 1, seed=0)
    assert env.spec.action.low == (None, None)
    env.reset()
    assert env.step(np.array([[7.5, 0.0]], np.float32)).reward.tolist() == [7.5]


@pytest.mark.parametrize(("name", "terminated"), [("toys/Count-v0", True), ("toys/CutOff-v0", False)])
def test_an_ended_episode_shows_its_last_observation_and_begins_the_next(name: str, terminated: bool) -> None:
    env = VectorEnv(name, 2, seed=0)
    env.reset()
    action = np.zeros((2, 2), np.float32)
    for _ in range(4):
        step = env.step(action)
        assert not step.done.any()
        np.testing.assert_array_equal(step.observation, step.next_observation)
    step = env.step(action)
    assert step.done.all()
    assert step.terminated.tolist() == [terminated] * 2
    assert step.next_observation[:, 0].tolist() == [5.0, 5.0]
    assert step.observation[:, 0].tolist() == [0.0, 0.0]
    assert [length for _, length in env.episodes] == [5, 5]
    env.close()


def test_the_number_of_threads_does_not_change_what_happens() -> None:
    trajectories = []
    for threads in (1, 2, 4):
        env = VectorEnv("Pendulum-v1", 4, seed=3, threads=threads)
        rng = np.random.default_rng(0)
        seen = [env.reset().copy()]
        seen += [env.step(rng.uniform(-1, 1, (4, 1)).astype(np.float32)).observation.copy() for _ in range(210)]
        trajectories.append(np.stack(seen))
        env.close()
    np.testing.assert_array_equal(trajectories[0], trajectories[1])
    np.testing.assert_array_equal(trajectories[0], trajectories[2])


def test_copies_and_seeds_differ() -> None:
    first, second = (VectorEnv("Pendulum-v1", 2, seed=seed) for seed in (0, 1))
    a, b = first.reset().copy(), second.reset().copy()
    assert not np.array_equal(a[0], a[1])
    assert not np.array_equal(a, b)


def test_an_environment_that_returns_nan_is_stopped() -> None:
    env = VectorEnv("toys/Diverges-v0", 2, seed=0)
    env.reset()
    action = np.zeros((2, 2), np.float32)
    env.step(action)
    env.step(action)
    with pytest.raises(UserError, match="toys/Diverges-v0 returned NaN"):
        env.step(action)


def test_specs_come_from_the_spaces() -> None:
    env = VectorEnv("toys/Count-v0", 1, seed=0)
    assert env.spec.observation.low == (None, None)
    assert (env.spec.action.low, env.spec.action.high) == ((-2.0, 0.0), (2.0, 1.0))
    cart = VectorEnv("CartPole-v1", 1, seed=0)
    assert cart.spec.action.n == 2
    # CartPole writes "unbounded" as infinity for its velocities, and bounds its angle.
    assert cart.spec.observation.low[1] is None
    assert cart.spec.observation.low[2] == pytest.approx(-0.419, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "rate_hz"), [("Pendulum-v1", 20.0), ("CartPole-v1", 50.0), ("HalfCheetah-v5", 20.0), ("Hopper-v5", 125.0)]
)
def test_the_control_rate_is_that_of_the_simulation_not_of_its_video(name: str, rate_hz: float) -> None:
    env = envs.make(name)
    assert envs.control_rate_hz(env) == rate_hz
    env.close()


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("HalfCheetah-v55", UnknownNameError, "Did you mean 'HalfCheetah-v5'"),
        ("nowhere/Robot-v0", UnknownNameError, "Unknown environment"),
        ("toys/Dict-v0", UsageError, "FlattenObservation"),
        ("toys/Image-v0", UsageError, "one dimension"),
        ("toys/FloatFrames-v0", UsageError, "frames .Box of uint8: height, width, channels. are needed"),
        ("toys/Tuple-v0", UsageError, "MultiDiscrete"),
        ("toys/From1-v0", UsageError, "must begin at 0"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        envs.make(name)


def test_frames_are_bytes_without_bounds() -> None:
    env = envs.make("toys/Blob-v0")
    spec = envs.policy_spec(env, None)
    assert spec.observation == ObservationSpec((84, 84, 4), (), (), "uint8")
    assert (spec.action.n, spec.control_rate_hz) == (3, 15.0)


def test_a_vector_of_bytes_is_a_vector_of_numbers() -> None:
    spec = envs.policy_spec(envs.make("toys/Bytes-v0"), None)
    assert spec.observation == ObservationSpec((3,), (0.0,) * 3, (255.0,) * 3)


def pendulum(**action: Any) -> PolicySpec:
    unknown = ObservationSpec((3,), (None,) * 3, (None,) * 3)
    return PolicySpec(unknown, ActionSpec(**{"shape": (1,), "low": (-2.0,), "high": (2.0,), **action}), None, None)


def test_a_policy_fits_an_environment_up_to_the_rounding_of_its_bounds() -> None:
    theirs = envs.spec_of("Pendulum-v1")
    # Who exported it need not have known the bounds of what it observes.
    assert None not in theirs.observation.low
    envs.check_fits("It", pendulum(low=(-2.0000001,)), "Pendulum-v1", theirs)
    for other, message in (
        (pendulum(low=(-1.99,)), r"It is not for Pendulum-v1: it acts by 1 numbers \(-1.99..2\), the environment by 1"),
        (pendulum(high=(None,)), r"acts by 1 numbers \(-2\.\.\), the environment"),
        (pendulum(shape=(), low=(), high=(), n=3), "acts by one of 3 choices, the environment by 1 numbers"),
        (replace(pendulum(), observation=ObservationSpec((2,), (None,) * 2, (None,) * 2)),
         r"observes 2 numbers \(unbounded\), the environment 3 numbers \(-1\.\.1, -1\.\.1, -8\.\.8\)"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            envs.check_fits("It", other, "Pendulum-v1", theirs)
