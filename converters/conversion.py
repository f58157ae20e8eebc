"""The conversion of one policy, from Keras network to proven artefact."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters import calibration, recipe, tflite
from converters.compare import Act, Array, compare_actions, compare_returns, half_range
from converters.export import DeployedPolicy
from converters.normalise import normalised
from converters.quantise import quantise
from converters.recipe import Recipe
from converters.shrink import cut_grid, shrink, summary
from converters.weights import Grid
from edge import artifact
from edge.artifact import Artifact, Golden, Manifest, PolicySpec
from edge.errors import UnknownNameError, UserError
from edge.policy import Policy

GOLDEN_PAIRS = 32

# Beyond as many an average says no more; frames are slower to look at.
COMPARED_OBSERVATIONS = 5_000
MAX_FRAMES = 1_000

# For 16-bit activations there is only one set of kernels here to compare; tflite-runtime 2.14 was found up to 0.06 %
# of an action's range away.
INT16_TOLERANCE = 0.002

# Two sets of kernels that differ by more, as a fraction of an action's range, do not compute the same network.
KERNELS_AGREE = 0.25

# Float kernels of different runtimes sum in different orders; this fraction of an action's magnitude covers it.
FLOAT_TOLERANCE = 1e-5

# What a conversion depends on, for the manifest.
VERSIONS_OF = ("tfqrl", "tensorflow", "tf-keras", "ai-edge-litert", "numpy")


class ConversionError(UserError):
    """A policy that cannot be converted, or whose conversion cannot be trusted."""


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
    chosen: Recipe | str,
    observations: npt.ArrayLike,
    *,
    name: str = "policy",
    grids: Mapping[str, Grid] | None = None,
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
      chosen: a recipe, or the name of one of `RECIPES`.
      observations: (n, *observation.shape), as the policy itself visits them; at least 100. It is calibrated on the
        first half and compared on the second, so give them in order, episode by episode.
      name: what to call the policy.
      grids: the kernels, by layer name, of layers that were trained on a grid; they are written exactly.
      logits: let a discrete policy's graph end with the logits, rather than the index of the largest.
      episode_returns: plays episodes seeded first_seed, first_seed + 1, ... and gives their returns; with it the
        comparison is made in closed loop too.
      float_returns: what `episode_returns` gives for the float policy, if that is known; no recipe changes it.
      first_seed: see `episode_returns`.
      margin: see `edge.artifact.Returns`.
      training: where the policy came from, for the manifest.

    Raises:
      UnknownNameError: no such recipe, or no such layer.
      ExportError: the network does not fit the spec.
      CalibrationError: the observations will not do.
      UnsupportedOperationError, GridError: see `converters.quantise`.
    """
    chosen = recipe.get(chosen) if isinstance(chosen, str) else chosen
    grids = dict(grids or {})
    _check_network(network, grids)
    visited = calibration.check_observations(observations, spec.observation)
    calibrated_on, compared_on = np.array_split(visited, 2)
    most = MAX_FRAMES if spec.observation.frames else len(visited)
    calibrated_on = spread(calibrated_on, min(most, chosen.calibration_observations))
    compared_on = spread(compared_on, min(most, COMPARED_OBSERVATIONS))
    original = DeployedPolicy(network, spec, logits=logits)

    notes: tuple[str, ...] = ()
    network, shrunk = shrink(network)
    if shrunk:
        notes = (summary(shrunk),)
        grids |= {layer.layer: cut_grid(grids[layer.layer], layer) for layer in shrunk if layer.layer in grids}
    if chosen.weight_bits == 16 and grids:
        notes += ("16-bit floats do not hold the grid that the weights were trained on.",)
    if chosen.weight_bits < 32:
        network, spec, more = normalised(network, spec, calibrated_on, fixed=grids)
        notes += more
    policy = DeployedPolicy(network, spec, logits=logits)
    flatbuffer, more = _flatbuffer(policy, chosen, calibrated_on, grids)

    converted_act = _batched(Policy(flatbuffer, spec, name=name))
    plain_act = _batched(Policy(flatbuffer, spec, name=name, plain_kernels=True))

    returns = None
    if episode_returns is not None:
        if float_returns is None:
            float_returns = episode_returns(original.act)
        returns = compare_returns(float_returns, episode_returns(converted_act), first_seed, margin)
    actions, plain_actions = converted_act(compared_on), plain_act(compared_on)
    tolerance = _golden_tolerance(flatbuffer, chosen, spec, actions, plain_actions)
    golden, left_out = _golden(original, compared_on, converted_act, plain_act, tolerance)
    if left_out:
        more += (f"{left_out} golden pairs were left out: there choices are unclear, or kernels disagree.",)
    manifest = Manifest(
        schema_version=artifact.SCHEMA_VERSION,
        name=name,
        flatbuffer_sha256=artifact.sha256(flatbuffer),
        flatbuffer_bytes=len(flatbuffer),
        spec=spec,
        recipe=chosen.plain(),
        layers=tflite.layers(flatbuffer),
        golden_tolerance=tolerance,
        comparison=compare_actions(original.act(compared_on), actions, spec.action, returns),
        training=dict(training or {}),
        versions={package: version(package) for package in VERSIONS_OF},
        compressed_bytes=len(zlib.compress(flatbuffer, 9)),
        notes=(*notes, *more),
    )
    return Conversion(Artifact(manifest, flatbuffer, golden))


def _check_network(network: keras.Model, grids: Mapping[str, Grid]) -> None:
    layers = [layer for layer in network.layers if layer.weights]
    for name in grids:
        if name not in {layer.name for layer in layers}:
            raise UnknownNameError("layer with weights", name, [layer.name for layer in layers])
    for layer in layers:
        if not all(np.isfinite(values).all() for values in layer.get_weights()):
            raise ConversionError(f"The weights of the layer {layer.name} have NaN or infinity in them.")


def _flatbuffer(
    policy: DeployedPolicy, chosen: Recipe, observations: Array, grids: Mapping[str, Grid]
) -> tuple[bytes, tuple[str, ...]]:
    """The policy as the recipe wants it, and notes."""
    frames = policy.spec.observation.frames
    if chosen.integer_io:
        # What is done to observations and actions is then the host's: `edge.quantise`.
        observations = np.asarray(policy.normalize(observations))
        policy = DeployedPolicy(policy.network, _bare(policy.spec), logits=policy.logits)
    flatbuffer = tflite.to_float32(policy)
    if chosen.weight_bits == 32:
        return flatbuffer, ()
    ranges = {}
    if chosen.calibrated:
        ranges = calibration.activation_ranges(flatbuffer, observations, chosen.calibration)
        if frames:
            # All 256 levels, so that a byte of a frame and a step of an integer are the same.
            ranges |= tflite.frame_ranges(flatbuffer)
    return quantise(flatbuffer, chosen, ranges, grids)


def _bare(spec: PolicySpec) -> PolicySpec:
    """The spec of the network alone, between normalised observations and actions in [-1, 1]."""
    observation = dataclasses.replace(spec.observation, dtype="float32")
    action, n = spec.action, len(spec.action.low)
    bounded = n > 0 and None not in (*action.low, *action.high)
    # Where only some are bounded, the host alone clips.
    low, high = ((-1.0,) * n, (1.0,) * n) if bounded else ((None,) * n, (None,) * n)
    return PolicySpec(observation, dataclasses.replace(action, low=low, high=high), spec.control_rate_hz, None)


def _batched(policy: Policy) -> Act:
    return lambda batch: np.stack([np.asarray(policy.act(observation)) for observation in batch])


def _golden(
    policy: DeployedPolicy, visited: Array, act: Act, plain_act: Act, tolerance: tuple[float, ...]
) -> tuple[Golden, int]:
    """Pairs spread over what the policy visited, and cases at the edges; and how many of them were left out."""
    margin = np.inf
    if policy.spec.action.discrete:
        # Where two choices are nearly equal, kernels that round differently may rightly differ: keep to the clear half.
        margins = _margins(policy, visited)
        margin = float(np.median(margins))
        visited = visited[margins >= margin]
    candidates = np.concatenate([spread(visited, GOLDEN_PAIRS), edge_cases(policy.spec, visited)])
    actions, plain_actions = act(candidates), plain_act(candidates)
    # A pair on which the kernels here disagree would prove nothing elsewhere.
    if policy.spec.action.discrete:
        kept = (actions == plain_actions) & (_margins(policy, candidates) >= margin)
    else:
        difference = np.abs(actions - plain_actions).reshape(len(actions), -1)
        kept = (difference <= np.array(tolerance)).all(axis=1)
    if not kept.any():
        raise ConversionError("The kernels here agree on no golden pair: there is nothing that could prove the policy.")
    actions = actions[kept].astype(np.int64 if policy.spec.action.discrete else np.float32)
    return Golden(candidates[kept], actions), int((~kept).sum())


def _margins(policy: DeployedPolicy, observations: Array) -> npt.NDArray[np.float32]:
    """By how much the best choice is better than the second."""
    logits = np.sort(np.asarray(policy.network(policy.normalize(observations))), axis=-1)
    if logits.shape[-1] == 1:
        return np.ones(len(logits), np.float32)
    return np.asarray(logits[:, -1] - logits[:, -2])


def edge_cases(spec: PolicySpec, visited: Array) -> Array:
    """Observations at the edges: zeros, the bounds (a million, where there are none), the extremes of those visited."""
    observation = spec.observation
    if observation.dtype == "uint8":
        return np.stack([np.full(observation.shape, level, np.uint8) for level in (0, 255)])
    low, high = (
        np.array([otherwise if bound is None else bound for bound in bounds], np.float32).reshape(observation.shape)
        for bounds, otherwise in ((observation.low, -1e6), (observation.high, 1e6))
    )
    cases = np.stack([np.zeros_like(low), visited.min(axis=0), visited.max(axis=0), low, high])
    return np.clip(cases, low, high).astype(np.float32)


def _golden_tolerance(
    flatbuffer: bytes, chosen: Recipe, spec: PolicySpec, actions: Array, plain_actions: Array
) -> tuple[float, ...]:
    """How far another runtime's action may lie from a golden one, per action element.

    Kernels round differently, and a step's difference in a hidden layer can be several at the output. So two sets of
    kernels are compared here, and another runtime is allowed twice their largest difference; at least one step of the
    output grid (of an integer policy) and float rounding.

    Raises:
      ConversionError: they differ by so much that one of them must be wrong.
    """
    if spec.action.discrete:
        return (0.0,)
    magnitude = np.maximum(np.abs(actions).reshape(len(actions), -1).max(axis=0), 1.0)
    difference = np.abs(actions - plain_actions).reshape(len(actions), -1).max(axis=0)
    half_ranges = half_range(spec.action)
    scale = np.maximum(half_ranges, magnitude)
    if not (difference <= KERNELS_AGREE * scale).all():
        raise ConversionError(
            f"Two sets of kernels of the interpreter differ on this model by up to {difference.max():.3g}: one of them "
            "computes something else. Convert with another recipe, or leave the layers in question in float."
        )
    step = (tflite.output_step(flatbuffer) or 0.0) * half_ranges
    if chosen.activations == "int16":
        step = INT16_TOLERANCE * scale
    return tuple(float(value) for value in np.maximum(step, 2 * difference) + FLOAT_TOLERANCE * magnitude)


def spread(values: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """`n` of the values (all, if they are fewer), evenly spaced from the first to the last."""
    return values[np.linspace(0, len(values) - 1, min(n, len(values))).astype(int)]
