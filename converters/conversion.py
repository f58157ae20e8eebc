"""The conversion of one policy, from Keras network to proven artefact."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters import calibration, tflite
from converters.compare import Act, Array, compare_actions, compare_returns
from converters.export import DeployedPolicy
from converters.recipe import Recipe
from converters.recipe import get as get_recipe
from edge import artifact
from edge.artifact import Artifact, FloatArray, Golden, Manifest, PolicySpec
from edge.policy import Policy

GOLDEN_PAIRS = 32
CALIBRATION_OBSERVATIONS = 10_000

# Float kernels of different runtimes sum in different orders; this fraction of an action's magnitude covers it.
FLOAT_TOLERANCE = 1e-5

# What a conversion depends on, for the manifest.
VERSIONS_OF = ("tfqrl", "tensorflow", "tf-keras", "ai-edge-quantizer", "ai-edge-litert", "numpy")


class Conversion:
    """A converted policy with its proof.

    Attributes:
      artifact: what is written to the policy file.
    """

    def __init__(self, result: Artifact) -> None:
        """Wrap what `convert` made."""
        self.artifact = result

    @property
    def comparison(self) -> artifact.Comparison:
        """The converted policy beside the float one."""
        return self.artifact.manifest.comparison

    def policy(self) -> Policy:
        """The converted policy, running in this process."""
        return Policy.from_artifact(self.artifact)

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the policy file.

        Raises:
          OutputError: it cannot be written, or exists already and `force` is false.
        """
        artifact.write(path, self.artifact, force=force)


def convert(
    network: keras.Model,
    spec: PolicySpec,
    recipe: Recipe | str,
    observations: npt.ArrayLike,
    *,
    name: str = "policy",
    logits: bool = False,
    episode_returns: Callable[[Act], Array] | None = None,
    float_returns: Array | None = None,
    first_seed: int = 0,
    margin: float | None = None,
    training: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert a policy and compare the result with the original.

    Args:
      network: maps normalised observations (batch, *observation.shape) to actions in [-1, 1] or to logits.
      spec: the policy seen from outside, its normaliser included.
      recipe: one of `RECIPES`, or its name.
      observations: (n, *observation.shape), as the policy itself visits them; at least 100. It is calibrated on the
        first half and compared on the second, so give them in order, episode by episode.
      name: what to call the policy.
      logits: let a discrete policy give those instead of a choice.
      episode_returns: plays episodes seeded first_seed, first_seed + 1, ... and gives their returns; with it the
        comparison is made in closed loop too.
      float_returns: what `episode_returns` gives for the float policy, if that is known; no recipe changes it.
      first_seed: see `episode_returns`.
      margin: see `edge.artifact.Returns`.
      training: where the policy came from, for the manifest.

    Raises:
      UnknownNameError: no such recipe.
      ExportError: the network does not fit the spec.
      CalibrationError: the observations will not do.
    """
    chosen = get_recipe(recipe) if isinstance(recipe, str) else recipe
    visited = calibration.check_observations(observations, spec.observation)
    calibrated_on, compared_on = np.array_split(visited, 2)
    policy = DeployedPolicy(network, spec, logits=logits)
    flatbuffer = tflite.to_float32(policy)
    if chosen.calibrated:
        ranges = calibration.activation_ranges(flatbuffer, spread(calibrated_on, CALIBRATION_OBSERVATIONS))
        flatbuffer = tflite.quantise(flatbuffer, chosen, ranges)

    converted_act = _batched(Policy(flatbuffer, spec, name=name))
    plain_act = _batched(Policy(flatbuffer, spec, name=name, plain_kernels=True))

    returns = None
    if episode_returns is not None:
        if float_returns is None:
            float_returns = episode_returns(policy.act)
        returns = compare_returns(float_returns, episode_returns(converted_act), first_seed, margin)
    actions, plain_actions = converted_act(compared_on), plain_act(compared_on)
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name=name,
        flatbuffer_sha256=artifact.sha256(flatbuffer),
        flatbuffer_bytes=len(flatbuffer),
        spec=spec,
        recipe=chosen.plain(),
        layers=tflite.layers(flatbuffer),
        golden_tolerance=_golden_tolerance(flatbuffer, spec, actions, plain_actions),
        comparison=compare_actions(policy.act(compared_on), actions, spec.action, returns),
        training=dict(training or {}),
        versions={package: version(package) for package in VERSIONS_OF},
        compressed_bytes=len(zlib.compress(flatbuffer, 9)),
    )
    return Conversion(Artifact(manifest, flatbuffer, _golden(policy, compared_on, actions, plain_actions)))


def _batched(policy: Policy) -> Act:
    return lambda batch: np.stack([np.asarray(policy.act(observation)) for observation in batch])


def _golden(policy: DeployedPolicy, visited: FloatArray, actions: Array, plain_actions: Array) -> Golden:
    """Pairs spread over what the policy visited."""
    if not policy.spec.action.discrete:
        return Golden(spread(visited, GOLDEN_PAIRS), spread(actions.astype(np.float32), GOLDEN_PAIRS))
    # Where two choices are nearly equal, kernels that round differently may rightly differ. Keep to the clear half.
    logits = np.sort(np.asarray(policy.network(policy.normalize(visited))), axis=-1)
    margin = logits[:, -1] - logits[:, -2]
    clear = (margin >= np.median(margin)) & (actions == plain_actions)
    return Golden(spread(visited[clear], GOLDEN_PAIRS), spread(actions[clear].astype(np.int64), GOLDEN_PAIRS))


def _golden_tolerance(flatbuffer: bytes, spec: PolicySpec, actions: Array, plain_actions: Array) -> tuple[float, ...]:
    """How far another runtime's action may lie from a golden one, per action element.

    Kernels round differently, and a step's difference in a hidden layer can be several at the output. So two sets of
    kernels are compared here, and another runtime is allowed twice their largest difference; at least one step of the
    output grid (of an integer policy) and float rounding.
    """
    if spec.action.discrete:
        return (0.0,)
    magnitude = np.maximum(np.abs(actions).reshape(len(actions), -1).max(axis=0), 1.0)
    difference = np.abs(actions - plain_actions).reshape(len(actions), -1).max(axis=0)
    bounds = zip(spec.action.low, spec.action.high)
    half_range = np.array([1.0 if low is None or high is None else (high - low) / 2 for low, high in bounds])
    step = (tflite.output_step(flatbuffer) or 0.0) * half_range
    return tuple(float(value) for value in np.maximum(step, 2 * difference) + FLOAT_TOLERANCE * magnitude)


def spread(values: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """`n` of the values (all, if they are fewer), evenly spaced from the first to the last."""
    return values[np.linspace(0, len(values) - 1, min(n, len(values))).astype(int)]
