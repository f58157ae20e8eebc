import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("dm_control", reason="dm_control needs labmaze, which has no wheels for this Python")

from edge.errors import UserError
from tfqrl import envs
from tfqrl.envs.dmc import DmcEnv


def test_names_are_those_of_the_suite_underscores_and_all() -> None:
    for name, size, actions, rate_hz in (
        ("dmc:cheetah-run", 17, 6, 100.0),
        ("dmc:ball_in_cup-catch", 8, 2, 50.0),
        ("dmc:cartpole-swingup_sparse", 5, 1, 100.0),
        ("dmc:humanoid_CMU-run", 137, 56, 50.0),
    ):
        spec = envs.spec_of(name)
        assert (spec.observation.shape, spec.observation.dtype) == ((size,), "float32")
        assert (spec.action.shape, spec.action.low) == ((actions,), (-1.0,) * actions)
        assert spec.action.high == (1.0,) * actions
        assert spec.control_rate_hz == rate_hz


def test_what_the_suite_bounds_by_its_largest_number_is_unbounded() -> None:
    assert envs.spec_of("dmc:lqr-lqr_2_1").action.low == (None,)


def test_everything_that_a_task_shows_is_observed_in_its_order() -> None:
    env = DmcEnv("walker", "stand")
    observation, _ = env.reset(seed=0)
    assert env.parts == ("orientations", "height", "velocity")
    physics = env._env.physics
    expected = np.concatenate([physics.orientations(), [physics.torso_height()], physics.velocity()])
    np.testing.assert_array_equal(observation, expected.astype(np.float32))
    assert observation.dtype == np.float32


def test_a_seed_determines_an_episode_whatever_was_before() -> None:
    first, second = DmcEnv("cheetah", "run"), DmcEnv("cheetah", "run")
    second.reset(seed=5)
    for _ in range(20):
        second.step(np.ones(6))
    starts = [env.reset(seed=2**53 - 1)[0] for env in (first, second)]
    np.testing.assert_array_equal(*starts)
    rng = np.random.default_rng(0)
    for _ in range(50):
        action = rng.uniform(-1, 1, 6)
        (a, reward_a, *_), (b, reward_b, *_) = first.step(action), second.step(action)
        np.testing.assert_array_equal(a, b)
        assert reward_a == reward_b
    assert not np.array_equal(first.reset(seed=1)[0], starts[0])


def test_the_limit_of_time_is_truncation_and_rewards_lie_in_0_to_1() -> None:
    env = DmcEnv("cartpole", "balance")
    env.reset(seed=0)
    steps = [env.step(np.zeros(1)) for _ in range(1000)]
    assert [terminated or truncated for _, _, terminated, truncated, _ in steps] == [False] * 999 + [True]
    assert steps[-1][2:4] == (False, True)
    assert all(0.0 <= reward <= 1.0 for _, reward, *_ in steps)


@pytest.mark.parametrize(("discount", "ends"), [(0.0, (True, False)), (1.0, (False, True)), (None, (False, False))])
def test_a_discount_of_0_is_termination(
    discount: float | None, ends: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    env = DmcEnv("cartpole", "balance")
    env.reset(seed=0)
    monkeypatch.setattr(env._env.task, "get_termination", lambda physics: discount)
    assert env.step(np.zeros(1))[2:4] == ends


def test_a_simulation_that_diverges_is_told_in_a_sentence() -> None:
    env = DmcEnv("cheetah", "run")
    env.reset(seed=0)
    env._env.physics.data.qvel[:] = 1e12
    with pytest.raises(UserError, match="The simulation of dmc:cheetah-run has diverged"):
        env.step(np.zeros(6))


def test_no_screen_is_needed_and_nothing_is_said() -> None:
    script = (
        "import os\n"
        "from tfqrl import envs\n"
        "env = envs.make('dmc:cheetah-run')\n"
        "env.reset(seed=0)\n"
        "assert 'MUJOCO_GL' not in os.environ\n"
        "env = envs.make('dmc:quadruped-escape')\n"
        "try:\n"
        "    env.reset(seed=0)\n"
        "except envs.names.UserError as error:\n"
        "    print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "DISPLAY")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "dmc:quadruped-escape cannot begin an episode: No OpenGL rendering backend is available. If it needs OpenGL, "
        "set MUJOCO_GL to egl or osmesa.\n"
    )
