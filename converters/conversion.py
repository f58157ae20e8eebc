"""The conversion of one policy, from Keras network to proven artefact."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tf_keras as keras

from converters import calibration, recipe, tflite
from converters.centre import centred
from converters.compare import Act, Array, compare_actions, compare_returns
from converters.export import DeployedPolicy, ExportError
from converters.golden import golden_pairs, golden_tolerance, spread
from converters.normalise import normalised
from converters.quantise import Trained, activation_scale, quantise
from converters.recipe import Recipe
from converters.refit import read_by_last_layer, refitted
from converters.shrink import cut_grid, shrink, summary
from converters.stripping import computed, strip
from converters.weights import Grid, Steps
from edge import artifact
from edge.artifact import Artifact, FloatArray, Manifest, Normalizer, PolicySpec
from edge.errors import UnknownNameError
from edge.policy import Policy

# Beyond as many an average says no more; frames are slower to look at.
COMPARED_OBSERVATIONS = 5_000
MAX_FRAMES = 1_000

# What a conversion depends on, for the manifest.
VERSIONS_OF = ("tfqrl", "tensorflow", "tf-keras", "ai-edge-litert", "numpy")


class Conversion:
    """A converted policy with its proof.

    Attributes:
      artifact: what is written to the policy file.
      returns: of the episodes that the converted policy played, (episodes,); None if it played none.
    """

    def __init__(self, result: Artifact, returns: Array | None = None) -> None:
        """Wrap what `convert` made."""
        self.artifact = result
        self.returns = returns

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
      grids: the kernels, by layer name, of layers that were trained on a grid; they are written exactly, but
        for what choices have in common (`converters.centre`).
      logits: let a discrete policy's graph end with the logits, rather than the index of the largest.
      episode_returns: plays episodes seeded first_seed, first_seed + 1, ... and gives their returns; with it the
        comparison is made in closed loop too.
      float_returns: what `episode_returns` gives for the float policy, if that is known; no recipe changes it.
      first_seed: see `episode_returns`.
      margin: see `edge.artifact.Returns`.
      training: where the policy came from, for the manifest.

    Raises:
      UnknownNameError: no such recipe, or no such layer.
      ExportError: the network does not fit the spec, or has weights that are not finite.
      CalibrationError: the observations will not do.
      UnsupportedOperationError, GridError: see `converters.quantise`.
      KernelsDisagreeError: see `converters.golden`.
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
    as_trained = network
    network, trained = strip(network)
    if trained is not None:
        grids |= trained.kernels
    if spec.action.discrete:
        *before, last = [layer.name for layer in network.layers if layer.weights]
        if chosen.calibrated and not chosen.integer_io and before and last not in chosen.float_layers:
            # They may differ by far less than 8 bits of a value can tell, and a few outputs cost next to nothing.
            chosen = dataclasses.replace(chosen, float_layers=(*chosen.float_layers, last))
            notes += (f"The values of choices (layer {last}) are computed in float.",)
        elif not logits and chosen.weight_bits < 32 and last not in chosen.float_layers:
            network, grids, more = centred(network, grids, np.asarray(original.normalize(calibrated_on)))
            notes += more
    if trained is not None:
        trained = _with_output_grid(trained, as_trained, network.layers[-1], original.normalize(calibrated_on))
        spec = _clipped(spec, trained.observation)
        if logits and computed(as_trained)[-1].streams is not None:
            notes += ("The logits of a dueling network that was trained on grids are the advantages alone.",)
    # 4-bit layers that read an odd number of values are stored at 8 (`converters.layers`).
    network, shrunk = shrink(
        network,
        {} if trained is None else trained.outputs,
        even=chosen.weight_bits < 8 and chosen.activations == "int8",
    )
    if shrunk:
        notes += (summary(shrunk),)
        grids |= {layer.layer: cut_grid(grids[layer.layer], layer) for layer in shrunk if layer.layer in grids}
    if chosen.weight_bits == 16 and grids:
        notes += ("16-bit floats do not hold the grid that the weights were trained on.",)
    if chosen.weight_bits < 32:
        network, spec, more = normalised(network, spec, calibrated_on, fixed=grids)
        notes += more
    policy = DeployedPolicy(network, spec, logits=logits)
    flatbuffer, more = _flatbuffer(policy, chosen, calibrated_on, grids, trained)
    last = network.layers[-1]
    if spec.action.discrete and chosen.calibrated and last.name in chosen.float_layers and last.name not in grids:
        read = read_by_last_layer(flatbuffer, calibrated_on)
        fitted = refitted(network, read, np.asarray(network(policy.normalize(calibrated_on))))
        if fitted is not None:
            policy = DeployedPolicy(fitted, spec, logits=logits)
            flatbuffer, more = _flatbuffer(policy, chosen, calibrated_on, grids, trained)
            more += (f"The layer {last.name} was fitted anew to what the integers before it give.",)

    converted_act = _batched(Policy(flatbuffer, spec, name=name))
    plain_act = _batched(Policy(flatbuffer, spec, name=name, plain_kernels=True))

    returns = converted_returns = None
    if episode_returns is not None:
        if float_returns is None:
            float_returns = episode_returns(original.act)
        converted_returns = episode_returns(converted_act)
        returns = compare_returns(float_returns, converted_returns, first_seed, margin)
    actions, plain_actions = converted_act(compared_on), plain_act(compared_on)
    tolerance = golden_tolerance(flatbuffer, chosen, spec, actions, plain_actions)
    golden, left_out = golden_pairs(original, compared_on, converted_act, plain_act, tolerance)
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
    return Conversion(Artifact(manifest, flatbuffer, golden), converted_returns)


def _check_network(network: keras.Model, grids: Mapping[str, Grid]) -> None:
    layers = [layer for layer in network.layers if layer.weights]
    for name in grids:
        if name not in {layer.name for layer in layers}:
            raise UnknownNameError("layer with weights", name, [layer.name for layer in layers])
    for layer in layers:
        if not all(np.isfinite(values).all() for values in layer.get_weights()):
            raise ExportError(f"The weights of the layer {layer.name} have NaN or infinity in them.")


def _clipped(spec: PolicySpec, trained: Steps) -> PolicySpec:
    """With the bounds of the grid that vectors were trained on, which may end before the integers do."""
    if spec.observation.frames:
        return spec
    limit, size = trained.scale * trained.high, math.prod(spec.observation.shape)
    normalizer = spec.normalizer or Normalizer((0.0,) * size, (1.0,) * size, None)
    clip = limit if normalizer.clip is None else min(limit, normalizer.clip)
    return dataclasses.replace(spec, normalizer=dataclasses.replace(normalizer, clip=clip))


def _with_output_grid(
    trained: Trained, network: keras.Sequential, output: keras.layers.Layer, observations: FloatArray
) -> Trained:
    """With the grid that the output layer needs for these observations, if the network was trained without one."""
    *_, last = trained.outputs
    if trained.outputs[last]:
        return trained
    hidden = keras.Model(network.inputs, network.layers[-1].input)
    values = np.asarray(output(hidden(observations)))
    scale = activation_scale(float(values.min()), float(values.max()), 8)
    steps = Steps(scale.scale, -128 - scale.zero_point, 127 - scale.zero_point)
    return dataclasses.replace(trained, outputs={**trained.outputs, last: (steps,)})


def _flatbuffer(
    policy: DeployedPolicy,
    chosen: Recipe,
    observations: Array,
    grids: Mapping[str, Grid],
    trained: Trained | None,
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
        ranges = calibration.activation_ranges(
            flatbuffer, observations, chosen.calibration, 16 if chosen.activations == "int16" else 8
        )
        if frames:
            # All 256 levels, so that a byte of a frame and a step of an integer are the same.
            ranges |= tflite.frame_ranges(flatbuffer)
    return quantise(flatbuffer, chosen, ranges, grids, trained)


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
