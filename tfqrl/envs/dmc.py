"""The environments of dm_control's suite (Tassa et al. 2018, arXiv 1801.00690), as Gymnasium's."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from edge.errors import UnknownNameError, UsageError, UserError
from tfqrl.envs.mujoco_warnings import filter_warnings

# MuJoCo's mjMAXVAL, which dm_control writes for "unbounded".
UNBOUNDED = 1e10


class DmcEnv(gymnasium.Env[npt.NDArray[np.float32], npt.NDArray[Any]]):
    """A task of the suite. Observes everything that the task shows, flattened and in its order.

    An episode ends where the task says so (termination) or by the suite's limit of time (truncation). A reset with a
    seed determines the episode.

    Attributes:
      dt: seconds between actions.
      parts: the names of what is observed, in order.
    """

    def __init__(self, domain: str, task: str) -> None:
        """The suite's own settings.

        Raises:
          UsageError: dm_control is not installed.
          UnknownNameError: there is no such task.
        """
        suite = _import_suite()
        if (domain, task) not in suite.ALL_TASKS:
            given = "-".join(part for part in (domain, task) if part)
            raise UnknownNameError("environment", f"dmc:{given}", [f"dmc:{d}-{t}" for d, t in suite.ALL_TASKS])
        self._name = f"dmc:{domain}-{task}"
        # Seeded, because lqr draws its springs when it is made: every copy is to have the same.
        self._env = suite.load(domain, task, task_kwargs={"random": 0})
        self.dt = float(self._env.control_timestep())
        observed, action = self._env.observation_spec(), self._env.action_spec()
        self.parts = tuple(observed)
        size = sum(int(np.prod(part.shape)) for part in observed.values())
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        low, high = (np.where(np.abs(b) < UNBOUNDED, b, np.sign(b) * np.inf) for b in (action.minimum, action.maximum))
        self.action_space = gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin an episode.

        Raises:
          UserError: the task needs a way to draw (quadruped-escape does), or the simulation diverged.
        """
        if seed is not None:
            self._env.task.random.seed(np.random.SeedSequence(seed).generate_state(4))
        try:
            return self._flat(self._env.reset().observation), {}
        except RuntimeError as error:
            raise UserError(
                f"{self._name} cannot begin an episode: {error} If it needs OpenGL, set MUJOCO_GL to egl or osmesa."
            ) from error

    def step(self, action: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Act for `dt` seconds.

        Raises:
          UserError: the simulation diverged.
        """
        from dm_control.rl.control import PhysicsError

        try:
            step = self._env.step(action)
        except PhysicsError as error:
            raise UserError(f"The simulation of {self._name} has diverged: {error}") from error
        # A limit of time leaves the discount at 1, because there is a future beyond it.
        terminated, truncated = step.last() and step.discount == 0, step.last() and step.discount != 0
        return self._flat(step.observation), float(step.reward), terminated, truncated, {}

    def close(self) -> None:
        """Release the simulation."""
        self._env.close()

    def _flat(self, observation: dict[str, Any]) -> npt.NDArray[np.float32]:
        return np.concatenate([np.ravel(observation[part]) for part in self.parts]).astype(np.float32)


def make(name: str) -> gymnasium.Env[Any, Any]:
    """The task called DOMAIN-TASK, such as cheetah-run or ball_in_cup-catch.

    Raises:
      UsageError: what `DmcEnv` raises.
    """
    domain, _, task = name.partition("-")
    return DmcEnv(domain, task)


def _import_suite() -> Any:
    # dm_control looks for a way to draw when it is imported, and complains where there is no screen. Nothing is drawn.
    chosen = os.environ.get("MUJOCO_GL")
    os.environ.setdefault("MUJOCO_GL", "disabled")
    try:
        from dm_control import suite
    except ImportError as error:
        raise UsageError(
            f"dm_control cannot be imported ({error}). Environments called dmc:... need it: "
            "run `pip install 'tfqrl[dmc]'`."
        ) from error
    finally:
        if chosen is None:
            del os.environ["MUJOCO_GL"]
    # Importing dm_control replaced the filter.
    filter_warnings()
    return suite
