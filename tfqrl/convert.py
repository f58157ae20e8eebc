"""From a run to policy files: what `tfqrl convert` does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

from converters.calibration import check_observations
from converters.compare import Act, Array, rejection
from converters.conversion import Conversion, convert
from converters.export import DeployedPolicy
from converters.recipe import Recipe
from edge.artifact import PolicySpec
from edge.errors import UnknownNameError, UsageError, UserError
from tfqrl import agents, candidates, evaluate
from tfqrl.options import CALIBRATION_SEED, EVALUATION_SEED, Margin
from tfqrl.progress import progress_bar
from tfqrl.runs import Run

# Ten episodes, or as many more tens as it takes where they are short.
CALIBRATION_EPISODES = 10
CALIBRATION_OBSERVATIONS = 1000


@dataclass(frozen=True)
class Original:
    """The policy of a run, with what all of its conversions share and which is therefore made once.

    Attributes:
      network, spec: the policy.
      name: what to call it.
      training: where it came from, for the manifest.
      observations: what it met in episodes of its own, or what it was given, (n, *observation.shape).
      env: where returns are compared; None for nowhere.
      float_returns: its returns there, (episodes,).
      margin: differences of the mean return that count as none.
      logits: whether its conversions are to give logits instead of a choice.
    """

    network: keras.Model
    spec: PolicySpec
    name: str
    training: dict[str, Any]
    observations: Array
    env: str | None = None
    float_returns: Array | None = None
    margin: float | None = None
    logits: bool = False

    def to(self, recipe: Recipe) -> Conversion:
        """Convert it.

        Raises:
          UserError: whatever `converters.convert` refuses.
        """

        def episode_returns(act: Act) -> Array:
            assert self.env is not None
            assert self.float_returns is not None
            episodes = len(self.float_returns)
            with progress_bar(f"{episodes} episodes of {self.env} with {recipe.name}") as progress:
                return _returns(act, self.env, episodes, progress)

        return convert(
            self.network,
            self.spec,
            recipe,
            self.observations,
            name=self.name,
            logits=self.logits,
            episode_returns=None if self.env is None else episode_returns,
            float_returns=self.float_returns,
            first_seed=EVALUATION_SEED,
            margin=self.margin,
            training=self.training,
        )


def original(
    run: Run,
    *,
    episodes: int,
    margin: Margin,
    env: str | None,
    observations: Path | None,
    logits: bool = False,
    float_layers: Sequence[str] = (),
) -> Original:
    """Load the policy of a run, let it play the episodes that its conversions need, and no more than once.

    What would be wrong with each of its conversions is refused here, before anything is played.

    Args:
      run: the run.
      episodes: episodes on which returns are compared.
      margin: differences of the mean return that count as none.
      env: where to play; None for where it was trained.
      observations: a file of observations to use; then nothing is played.
      logits: whether the conversions are to give logits.
      float_layers: layers that they are to keep in float.

    Raises:
      RunError: the run has no checkpoint.
      UserError: the observations cannot be read or will not do, or the environment cannot be played.
      ExportError: logits of a policy that has none.
      UnknownNameError: no such layer.
    """
    network, spec = agents.load_policy(run)
    DeployedPolicy(network, spec, logits=logits)
    layers = [layer.name for layer in network.layers if layer.weights]
    for name in float_layers:
        if name not in layers:
            raise UnknownNameError("layer with weights", name, layers)
    policy = DeployedPolicy(network, spec)
    candidate = candidates.of_run(run, policy)
    shared = network, spec, candidate.name, {"algorithm": run.algorithm, **run.config}
    if observations is not None:
        return Original(*shared, check_observations(read_observations(observations), spec.observation), logits=logits)
    if env is None and candidate.env is None:
        raise UsageError(
            f"{run.path} names no environment in which the policy could be calibrated. Name one with --env ENV, or "
            "give observations that it has met with --observations FILE.npy."
        )
    env = candidates.common_env([candidate], env)
    visited: list[Array] = []
    with progress_bar(f"episodes of {env} to calibrate") as progress:
        while sum(map(len, visited)) < CALIBRATION_OBSERVATIONS:
            seed = CALIBRATION_SEED + len(visited)
            visited += evaluate.play(
                policy.act, env, first_seed=seed, episodes=CALIBRATION_EPISODES, progress=progress
            ).observations
    with progress_bar(f"{episodes} episodes of {env} with {run.path}") as progress:
        returns = _returns(policy.act, env, episodes, progress)
    return Original(*shared, np.concatenate(visited), env, returns, margin.beside(float(returns.mean())), logits)


def _returns(act: Act, env: str, episodes: int, progress: Callable[[float], None]) -> Array:
    return evaluate.play(
        act, env, first_seed=EVALUATION_SEED, episodes=episodes, keep_observations=False, progress=progress
    ).returns


def read_observations(path: Path) -> Array:
    """The array in a .npy file, of real numbers; nothing in it is executed.

    Raises:
      UserError: it is not one.
    """
    try:
        # Mapped, so that a header cannot claim more than the file holds.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is not a .npy file of numbers ({error}). Save it with numpy.save.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise UserError(f"{path} must hold one array of real numbers; save it with numpy.save.")
    return array


def save(conversion: Conversion, recipe: Recipe, path: Path, *, force: bool) -> tuple[Path, str | None]:
    """Write a conversion to `path` or, if it breaks the tolerance of its recipe, to `path`.rejected.

    A policy that was at `path` stays there if its replacement is rejected.

    Returns:
      Where it is, and the sentences that say why it was rejected; None if it was not.

    Raises:
      OutputError: it cannot be written, or `path` exists and `force` is false.
    """
    rejected = path.with_name(path.name + ".rejected")
    sentence = rejection(conversion.comparison, recipe)
    if sentence is not None:
        conversion.save(rejected, force=True)
        return rejected, sentence
    conversion.save(path, force=force)
    with contextlib.suppress(OSError):
        rejected.unlink()
    return path, None
