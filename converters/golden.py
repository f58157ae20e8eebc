"""Golden pairs: observations with the actions that any runtime has to give, and how far off it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from converters import tflite
from converters.compare import Act, Array
from converters.export import DeployedPolicy
from converters.recipe import Recipe
from edge.artifact import Golden, PolicySpec
from edge.errors import UserError

GOLDEN_PAIRS = 32

# The part of all actions on which two sets of kernels have to agree in any case.
MOST = 0.9

# For 16-bit activations there is only one set of kernels here to compare; tflite-runtime 2.14's are several of their
# small steps away.
INT16_TOLERANCE = 0.002

# Two sets of kernels that differ by more, as a fraction of an action's range, do not compute the same network.
KERNELS_AGREE = 0.25

# Float kernels of different runtimes sum in different orders; this fraction of an action's magnitude covers it.
FLOAT_TOLERANCE = 1e-5


class KernelsDisagreeError(UserError):
    """A model that the interpreter's own kernels do not agree on, so that no pair could prove it."""


def golden_pairs(
    policy: DeployedPolicy, visited: Array, act: Act, plain_act: Act, tolerance: tuple[float, ...]
) -> tuple[Golden, int]:
    """Pairs spread over what the policy visited, and cases at the edges; and how many of them were left out.

    Args:
      policy: the float policy.
      visited: (n, *observation.shape), observations that it visited.
      act: the converted policy.
      plain_act: the converted policy with the kernels that every runtime has.
      tolerance: what `golden_tolerance` gave.

    Raises:
      KernelsDisagreeError: the two agree on none.
    """
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
        raise KernelsDisagreeError(
            "The kernels here agree on no golden pair: there is nothing that could prove the policy."
        )
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


def golden_tolerance(
    flatbuffer: bytes, chosen: Recipe, spec: PolicySpec, actions: Array, plain_actions: Array
) -> tuple[float, ...]:
    """How far another runtime's action may lie from a golden one, per action element.

    Kernels round differently, and a step's difference in a hidden layer can be several at the output. So two sets of
    kernels are compared here, and another runtime is allowed twice their largest difference; at least one step of the
    output grid (of an integer policy) and float rounding.

    Args:
      flatbuffer: the converted model.
      chosen: its recipe.
      spec: what it reads and gives.
      actions: (n, *action.shape), what it did.
      plain_actions: the same with the kernels that every runtime has.

    Raises:
      KernelsDisagreeError: they differ by so much that one of them must be wrong.
    """
    if spec.action.discrete:
        return (0.0,)
    magnitude = np.maximum(np.abs(actions).reshape(len(actions), -1).max(axis=0), 1.0)
    differences = np.abs(actions - plain_actions).reshape(len(actions), -1)
    _, half_range, _ = spec.action.scaling
    scale = np.maximum(half_range, magnitude)
    step = (tflite.output_step(flatbuffer) or 0.0) * half_range
    allowed = np.maximum(KERNELS_AGREE * scale, step * (1 + FLOAT_TOLERANCE))
    difference = differences.max(axis=0)
    if (difference > allowed).any():
        # Between activations of a few bits a step is far, and where one falls otherwise the action is another: the
        # pairs are then those on which kernels agree.
        difference = np.quantile(differences, MOST, axis=0)
    if not (difference <= allowed).all():
        raise KernelsDisagreeError(
            f"Two sets of kernels of the interpreter differ on this model by up to {differences.max():.3g}: one of "
            "them computes something else. Convert with another recipe, or leave the layers in question in float."
        )
    if chosen.activations == "int16":
        step = INT16_TOLERANCE * scale
    return tuple(float(value) for value in np.maximum(step, 2 * difference) + FLOAT_TOLERANCE * magnitude)


def spread(values: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """`n` of the values (all, if they are fewer), evenly spaced from the first to the last."""
    return values[np.linspace(0, len(values) - 1, min(n, len(values))).astype(int)]
