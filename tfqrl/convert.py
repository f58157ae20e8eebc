"""From a run to a policy file: what `tfqrl convert` does."""

from __future__ import annotations

import numpy as np

from converters.compare import Act, Array
from converters.conversion import Conversion, convert
from converters.export import DeployedPolicy
from tfqrl import agents, evaluate
from tfqrl.runs import Run

# Far from the seeds that one would train with: the episodes that prove a policy are not those that it learned on.
CALIBRATION_SEED = 1_000_000
EVALUATION_SEED = 2_000_000
CALIBRATION_EPISODES = 10


def convert_run(run: Run, recipe: str, *, episodes: int) -> Conversion:
    """Convert the policy of a run, calibrated on observations that it visits itself.

    The returns of both policies are compared on `episodes` paired episodes.

    Raises:
      RunError: the run has no checkpoint.
      UserError: whatever `converters.convert` refuses.
    """
    network, spec = agents.load_policy(run)
    env = agents.config_of(run).env

    def episode_returns(act: Act) -> Array:
        return evaluate.play(act, env, first_seed=EVALUATION_SEED, episodes=episodes)[0]

    trained = DeployedPolicy(network, spec)
    _, visited = evaluate.play(trained.act, env, first_seed=CALIBRATION_SEED, episodes=CALIBRATION_EPISODES)
    return convert(
        network,
        spec,
        recipe,
        np.concatenate(visited),
        name=f"{run.algorithm}-{env}",
        episode_returns=episode_returns,
        first_seed=EVALUATION_SEED,
        training={"algorithm": run.algorithm, **run.config},
    )
