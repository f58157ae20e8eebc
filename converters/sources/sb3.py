"""Policies of Stable-Baselines3: what `model.save` wrote, read without it, without PyTorch, and without running code.

The file is a ZIP archive: JSON in `data`, tensors in `policy.pth`. What is no JSON is pickled in it; of that only the
policy's class and the two spaces are looked at, by `converters.sources.pickles`.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.sources import ForeignPolicy, ImportPolicyError, pickles, pth, sb3_layers, sb3_spec, shown
from converters.sources.archive import MAX_BYTES, Archive, contents
from converters.sources.layers import Activation, Layer, build
from edge.artifact import PolicySpec

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
            convolutions = [
                sb3_layers.convolution(tensors, f"{prefix}cnn.{2 * i}.", i) for i in range(len(sb3_layers.NATURE))
            ]
            dense = [sb3_layers.dense(tensors, f"{prefix}linear.0.", "relu")]
        dense += sb3_layers.hidden(
            tensors, kind.hidden, _ACTIVATIONS.get(settings.get("activation_fn", ""), kind.activation)
        )
        dense.append(
            sb3_layers.dense(tensors, kind.output, "linear") if kind.output else sb3_layers.linear(dense.pop())
        )
    except (KeyError, StopIteration, IndexError, ValueError) as error:
        raise ImportPolicyError(f"{path} lacks weights of its {policy}: {error}. {_SUPPORTED}") from error
    if strangers := [name for name in tensors if not name.startswith(kind.others)]:
        raise ImportPolicyError(
            f"{path} has weights of a kind that is not supported: {shown(strangers[0])}. {_SUPPORTED}"
        )

    if planes is not None:
        planes = sb3_layers.after_convolutions(convolutions, planes, path)
        dense[0] = sb3_layers.channels_last(dense[0], planes, path)
    sb3_layers.check_sizes(dense, math.prod(planes or observation.shape), action, path)
    if not action.discrete:
        squashed = kind.squashed or settings.get("squash_output") is True
        dense[-1] = sb3_layers.squashed(dense[-1], action, path) if squashed else sb3_layers.scaled(dense[-1], action)

    flatten = [Layer("flatten")] if len(observation.shape) != 1 else []
    layers = [*(w.layer for w in convolutions), *flatten, *(w.layer for w in dense)]
    network = build(observation.shape, layers)
    network.set_weights([array for w in (*convolutions, *dense) for array in (w.kernel, w.bias)])
    normalizer = None if vecnormalize is None else sb3_spec.normalizer(vecnormalize, observation)
    timesteps = data.get("num_timesteps")
    origin = {
        "format": "sb3",
        "algorithm": _algorithm(policy, data),
        "policy": policy.split(".")[-1],
        "stable_baselines3": _version(archive),
        "timesteps": timesteps if isinstance(timesteps, int) else None,
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
        raise ImportPolicyError(f"{path} has a policy of the class {shown(name, 120)}. {_SUPPORTED}")
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
                f"{path} has a policy with {shown(name)}={shown(str(value), 120)}: not supported. Of activations "
                "ReLU and Tanh are, of extractors FlattenExtractor and NatureCNN; frames must be divided by 255."
            )
    return settings


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
    return shown(archive.read("_stable_baselines3_version", 100).decode(errors="replace").strip())
