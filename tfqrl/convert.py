"""From a run to a policy file: what `tfqrl convert` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.compare import Act, Array
from converters.conversion import Conversion, convert
from converters.export import DeployedPolicy
from edge.errors import UsageError, UserError
from tfqrl import agents, evaluate
from tfqrl.runs import Run

# Far from the seeds that one would train with: the episodes that prove a policy are not those that it learned on.
CALIBRATION_SEED = 1_000_000
EVALUATION_SEED = 2_000_000
CALIBRATION_EPISODES = 10


def convert_run(run: Run, recipe: str, *, episodes: int, observations: npt.ArrayLike | None = None) -> Conversion:
    """Convert the policy of a run, calibrated on observations that it visits itself or on those that are given.

    The returns of both policies are compared on `episodes` paired episodes, if the run names its environment.

    Raises:
      RunError: the run has no checkpoint.
      UsageError: it names no environment, and no observations are given.
      UserError: whatever `converters.convert` refuses.
    """
    network, spec = agents.load_policy(run)
    env = agents.config_of(run).env
    training = {"algorithm": run.algorithm, **run.config}
    if env is None:
        if observations is None:
            raise UsageError(
                f"{run.path} names no environment whose observations the policy could be calibrated on. Give some "
                "that it has met, --observations OBSERVATIONS.npy, or import it again with --env."
            )
        return convert(network, spec, recipe, observations, name=run.path.resolve().name, training=training)

    def episode_returns(act: Act) -> Array:
        return evaluate.play(act, env, first_seed=EVALUATION_SEED, episodes=episodes)[0]

    if observations is None:
        trained = DeployedPolicy(network, spec)
        _, visited = evaluate.play(trained.act, env, first_seed=CALIBRATION_SEED, episodes=CALIBRATION_EPISODES)
        observations = np.concatenate(visited)
    return convert(
        network,
        spec,
        recipe,
        observations,
        name=f"{run.algorithm}-{env}",
        episode_returns=episode_returns,
        first_seed=EVALUATION_SEED,
        training=training,
    )


def read_observations(path: str | Path) -> npt.NDArray[Any]:
    """Observations that `numpy.save` wrote, (n, *observation.shape).

    Raises:
      UserError: the file cannot be read, or holds something other than an array of numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"Cannot read observations from {path}: {error}. Write them with numpy.save.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise UserError(f"{path} holds something other than one array of numbers. Write it with numpy.save.")
    return array
