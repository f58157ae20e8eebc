from dataclasses import replace
from typing import Any

import pytest
import toy_envs  # noqa: F401  (registers the toys)

from edge.artifact import ActionSpec, ObservationSpec, PolicySpec
from edge.errors import UsageError
from tfqrl import envs


def test_specs_come_from_the_spaces() -> None:
    count = envs.spec_of("toys/Count-v0")
    assert count.observation.low == (None, None)
    assert (count.action.low, count.action.high) == ((-2.0, 0.0), (2.0, 1.0))
    cart = envs.spec_of("CartPole-v1")
    assert cart.action.n == 2
    # CartPole writes "unbounded" as infinity for its velocities, and bounds its angle.
    assert cart.observation.low[1] is None
    assert cart.observation.low[2] == pytest.approx(-0.419, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "rate_hz"), [("Pendulum-v1", 20.0), ("CartPole-v1", 50.0), ("HalfCheetah-v5", 20.0), ("Hopper-v5", 125.0)]
)
def test_the_control_rate_is_that_of_the_simulation_not_of_its_video(name: str, rate_hz: float) -> None:
    env = envs.make(name)
    assert envs.control_rate_hz(env) == rate_hz
    env.close()


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
