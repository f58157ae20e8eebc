"""Policies of Stable-Baselines3: what `model.save` wrote, read without it, without PyTorch, and without running code.

The file is a ZIP archive: JSON in `data`, tensors in `policy.pth`. What is no JSON is pickled in it; of that only the
policy's class and the two spaces are looked at, by `converters.sources.pickles`.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.sources import ForeignPolicy, ImportPolicyError, pickles, pth, sb3_spec
from converters.sources.archive import MAX_BYTES, Archive, contents
from converters.sources.layers import Activation, Layer, build
from edge.artifact import ActionSpec, FloatArray, PolicySpec

MAX_DATA_BYTES = 16 * 2**20


@dataclass(frozen=True)
class _Kind:
    """Where a class of policies keeps what it acts by, as prefixes of the names of tensors.

    Attributes:
      features: of the convolutions; the first that is there.
      hidden: of the layers after them.
      output: of the last layer; None if that is the last of `hidden`.
      others: of tensors that are not needed for acting.
      activation: of the hidden layers, if nothing else was said.
      squashed: whether actions always go through tanh.
    """

    features: tuple[str, ...]
    hidden: str
    output: str | None
    others: tuple[str, ...]
    activation: Activation
    squashed: bool


_ACTOR_CRITIC = _Kind(
    ("pi_features_extractor.", "features_extractor."),
    "mlp_extractor.policy_net.",
    "action_net.",
    ("mlp_extractor.value_net.", "value_net.", "vf_features_extractor.", "features_extractor.", "log_std"),
    "tanh",
    False,
)
_DQN = _Kind(("q_net.features_extractor.",), "q_net.q_net.", None, ("q_net_target.",), "relu", False)
_CRITICS = ("actor_target.", "critic.", "critic_target.")
_TD3 = _Kind(("actor.features_extractor.",), "actor.mu.", None, _CRITICS, "relu", True)
_SAC = _Kind(
    ("actor.features_extractor.",), "actor.latent_pi.", "actor.mu.", (*_CRITICS, "actor.log_std"), "relu", True
)
_POLICIES = {
    "common.policies.ActorCriticPolicy": _ACTOR_CRITIC,
    "common.policies.ActorCriticCnnPolicy": _ACTOR_CRITIC,
    "dqn.policies.DQNPolicy": _DQN,
    "dqn.policies.CnnPolicy": _DQN,
    "td3.policies.TD3Policy": _TD3,
    "td3.policies.CnnPolicy": _TD3,
    "sac.policies.SACPolicy": _SAC,
    "sac.policies.CnnPolicy": _SAC,
}
_SUPPORTED = "Supported are PPO, A2C, DQN, DDPG, TD3 and SAC with MlpPolicy or CnnPolicy."

# Settings of policies that do not change what is acted, or whose effect is read from the tensors.
_HARMLESS = {
    "net_arch", "ortho_init", "use_sde", "log_std_init", "full_std", "use_expln", "features_extractor_kwargs",
    "share_features_extractor", "optimizer_class", "optimizer_kwargs", "n_critics", "clip_mean",
}  # fmt: skip
_EXTRACTORS = {
    "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>": False,
    "<class 'stable_baselines3.common.torch_layers.NatureCNN'>": True,
}
_ACTIVATIONS: dict[str, Activation] = {
    "<class 'torch.nn.modules.activation.ReLU'>": "relu",
    "<class 'torch.nn.modules.activation.Tanh'>": "tanh",
}

# The Nature CNN (Mnih et al. 2015): filters, kernel and stride of its convolutions, which the file does not say.
_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


@dataclass(frozen=True)
class _Weighted:
    """A layer with its weights, float32 in Keras' layout."""

    layer: Layer
    kernel: FloatArray
    bias: FloatArray


def load(path: str | Path, vecnormalize: str | Path | None = None) -> ForeignPolicy:
    """The policy that a model acts by when it is deterministic.

    Args:
      path: what `model.save` wrote.
      vecnormalize: what `VecNormalize.save` wrote, if the model was trained with it.

    Raises:
      ImportPolicyError: a file is damaged or hostile, or the policy is of a kind that is not supported.
    """
    archive = Archive(contents(path, MAX_BYTES), str(path))
    data = _json(archive.read("data", MAX_DATA_BYTES), path)
    policy = _class_name(data, path)
    kind = _POLICIES[policy]
    settings = _settings(data, path)
    observation, planes = sb3_spec.observation(_unpickled(data, "observation_space", path), path)
    action = sb3_spec.action(_unpickled(data, "action_space", path), path)
    cnn = _EXTRACTORS.get(settings.get("features_extractor_class", ""), "Cnn" in policy)
    if cnn and planes is None:
        raise ImportPolicyError(f"{path} has a CNN for something other than frames of bytes from 0 to 255.")

    tensors = pth.tensors(archive.read("policy.pth"), f"policy.pth of {path}")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ImportPolicyError(f"{path} has weights with NaN or infinity in them.")
    if f"{kind.output}0.weight" in tensors:
        raise ImportPolicyError(
            f"{path} clips its actions before they are squashed (gSDE with clip_mean): not supported."
        )
    try:
        convolutions, dense = [], []
        if cnn:
            prefix = next(prefix for prefix in kind.features if f"{prefix}cnn.0.weight" in tensors)
            convolutions = [_convolution(tensors, f"{prefix}cnn.{2 * i}.", i) for i in range(len(_NATURE))]
            dense = [_dense(tensors, f"{prefix}linear.0.", "relu")]
        dense += _hidden(tensors, kind.hidden, _ACTIVATIONS.get(settings.get("activation_fn", ""), kind.activation))
        dense.append(_dense(tensors, kind.output, "linear") if kind.output else _linear(dense.pop()))
    except (KeyError, StopIteration, IndexError, ValueError) as error:
        raise ImportPolicyError(f"{path} lacks weights of its {policy}: {error}. {_SUPPORTED}") from error
    if strangers := [name for name in tensors if not name.startswith(kind.others)]:
        raise ImportPolicyError(f"{path} has weights of a kind that is not supported: {strangers[0]}. {_SUPPORTED}")

    if planes is not None:
        planes = _planes(convolutions, planes, path)
        dense[0] = _channels_last(dense[0], planes, path)
    _check_sizes(dense, math.prod(planes or observation.shape), action, path)
    if not action.discrete:
        squashed = kind.squashed or settings.get("squash_output") is True
        dense[-1] = _squashed(dense[-1], action, path) if squashed else _scaled(dense[-1], action)

    flatten = [Layer("flatten")] if len(observation.shape) != 1 else []
    layers = [*(w.layer for w in convolutions), *flatten, *(w.layer for w in dense)]
    network = build(observation.shape, layers)
    network.set_weights([array for w in (*convolutions, *dense) for array in (w.kernel, w.bias)])
    normalizer = None if vecnormalize is None else sb3_spec.normalizer(vecnormalize, observation)
    origin = {
        "format": "sb3",
        "algorithm": _algorithm(policy, data),
        "policy": policy.split(".")[-1],
        "stable_baselines3": _version(archive),
        "timesteps": data.get("num_timesteps"),
        "vecnormalize": vecnormalize is not None,
    }
    return ForeignPolicy(network, PolicySpec(observation, action, None, normalizer), origin)


def _json(content: bytes, path: str | Path) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ImportPolicyError(f"The data of {path} are not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise ImportPolicyError(f"The data of {path} are not what Stable-Baselines3 saves.")
    return data


def _unpickled(data: dict[str, Any], name: str, path: str | Path) -> Any:
    try:
        pickled = base64.b64decode(data[name][":serialized:"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise ImportPolicyError(f"{path} has no {name} as Stable-Baselines3 saves one. {_SUPPORTED}") from error
    return pickles.load(pickled, f"{name} of {path}")


def _class_name(data: dict[str, Any], path: str | Path) -> str:
    name = pickles.class_name(_unpickled(data, "policy_class", path)).removeprefix("stable_baselines3.")
    if name not in _POLICIES:
        raise ImportPolicyError(f"{path} has a policy of the class {name[:120]}. {_SUPPORTED}")
    return name


def _settings(data: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """The policy's settings. Classes are there as text, and as a pickle that is left alone."""
    settings = data.get("policy_kwargs")
    if not isinstance(settings, dict):
        raise ImportPolicyError(f"{path} has no settings of a policy. {_SUPPORTED}")
    settings = {name: value for name, value in settings.items() if not name.startswith(":")}
    for name, value in settings.items():
        allowed: Any = {
            "activation_fn": _ACTIVATIONS,
            "features_extractor_class": _EXTRACTORS,
            "normalize_images": (True,),
            "squash_output": (True, False),
        }.get(name)
        if name not in _HARMLESS and (allowed is None or not any(value == known for known in allowed)):
            raise ImportPolicyError(
                f"{path} has a policy with {name[:80]}={str(value)[:120]}: not supported. Of activations ReLU and Tanh "
                "are, of feature extractors FlattenExtractor and NatureCNN; frames must be divided by 255."
            )
    return settings


def _take(tensors: dict[str, FloatArray], prefix: str, dimensions: int) -> tuple[FloatArray, FloatArray]:
    kernel, bias = tensors.pop(f"{prefix}weight"), tensors.pop(f"{prefix}bias")
    if kernel.ndim != dimensions or bias.shape != kernel.shape[:1]:
        raise ValueError(f"{prefix}weight has the shape {kernel.shape}")
    return kernel, bias


def _convolution(tensors: dict[str, FloatArray], prefix: str, i: int) -> _Weighted:
    filters, size, stride = _NATURE[i]
    kernel, bias = _take(tensors, prefix, 4)
    if (kernel.shape[0], *kernel.shape[2:]) != (filters, size, size):
        raise ValueError(f"{prefix}weight has the shape {kernel.shape}")
    layer = Layer("conv2d", filters, "relu", kernel=(size, size), strides=(stride, stride))
    return _Weighted(layer, kernel.transpose(2, 3, 1, 0), bias)


def _dense(tensors: dict[str, FloatArray], prefix: str, activation: Activation) -> _Weighted:
    kernel, bias = _take(tensors, prefix, 2)
    return _Weighted(Layer("dense", len(bias), activation), kernel.T, bias)


def _hidden(tensors: dict[str, FloatArray], prefix: str, activation: Activation) -> list[_Weighted]:
    # The activations between them are counted too.
    found: list[_Weighted] = []
    while f"{prefix}{2 * len(found)}.weight" in tensors:
        found.append(_dense(tensors, f"{prefix}{2 * len(found)}.", activation))
    return found


def _linear(weighted: _Weighted, activation: Activation = "linear") -> _Weighted:
    return replace(weighted, layer=replace(weighted.layer, activation=activation))


def _planes(convolutions: list[_Weighted], planes: tuple[int, int, int], path: str | Path) -> tuple[int, int, int]:
    """The (channels, height, width) that convolutions without padding make of frames."""
    channels, height, width = planes
    for weighted in convolutions:
        size, _, inputs, filters = weighted.kernel.shape
        stride = weighted.layer.strides[0]
        if inputs != channels or min(height, width) < size:
            raise ImportPolicyError(f"{path} has a convolution that does not fit {channels}x{height}x{width} values.")
        channels, height, width = filters, (height - size) // stride + 1, (width - size) // stride + 1
    return channels, height, width


def _channels_last(weighted: _Weighted, planes: tuple[int, int, int], path: str | Path) -> _Weighted:
    """A dense layer for what Keras flattens, (height, width, channels), from one for what PyTorch flattens."""
    if len(weighted.kernel) != math.prod(planes):
        raise ImportPolicyError(f"{path} has {len(weighted.kernel)} weights for each of {math.prod(planes)} features.")
    kernel = weighted.kernel.reshape(*planes, -1).transpose(1, 2, 0, 3)
    return replace(weighted, kernel=kernel.reshape(weighted.kernel.shape))


def _check_sizes(dense: list[_Weighted], inputs: int, action: ActionSpec, path: str | Path) -> None:
    outputs = action.n if action.n is not None else math.prod(action.shape)
    widths = [inputs, *(len(weighted.bias) for weighted in dense)]
    if [len(weighted.kernel) for weighted in dense] != widths[:-1] or widths[-1] != outputs:
        raise ImportPolicyError(
            f"The layers of {path} do not fit each other: from {inputs} inputs by {[w.kernel.shape for w in dense]} "
            f"to {outputs} outputs."
        )


def _squashed(weighted: _Weighted, action: ActionSpec, path: str | Path) -> _Weighted:
    if None in action.low:
        raise ImportPolicyError(f"{path} squashes actions between bounds, and has an action without.")
    return _linear(weighted, "tanh")


def _scaled(weighted: _Weighted, action: ActionSpec) -> _Weighted:
    """The layer with outputs in [-1, 1], from one with outputs in the environment's units that are then clipped."""
    bounds = [(-1.0, 1.0) if a is None or b is None else (a, b) for a, b in zip(action.low, action.high)]
    low, high = np.array(bounds).T
    half_range, middle = (high - low) / 2, (high + low) / 2
    kernel, bias = weighted.kernel / half_range, (weighted.bias - middle) / half_range
    return replace(weighted, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))


def _algorithm(policy: str, data: dict[str, Any]) -> str:
    package = policy.split(".")[0]
    if package == "common":
        return "PPO" if "clip_range" in data else "A2C"
    # DDPG is saved as TD3 with neither smoothing nor delay.
    if package == "td3" and data.get("policy_delay") == 1 and data.get("target_noise_clip") == 0:
        return "DDPG"
    return package.upper()


def _version(archive: Archive) -> str | None:
    if "_stable_baselines3_version" not in archive.names:
        return None
    return archive.read("_stable_baselines3_version", 100).decode(errors="replace").strip()
