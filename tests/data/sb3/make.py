"""Make the models of Stable-Baselines3 beside this file again: `python tests/data/sb3/make.py`, where it is installed.

Each is trained a little, so that it is not the network that it began as, and saved by Stable-Baselines3 with what it
predicts. For size, what is no part of acting is then left out of the file (optimisers), critics are set to zero, and of
the weights for frames only the largest are kept; the last layer is then scaled so that actions vary with what is seen.

`train` is also what `make sb3` trains its own by.
"""

import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

HERE = Path(__file__).parent
OBSERVATIONS = 1000
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
# Height, width and channels differ, so that none can be taken for another.
FRAMES = spaces.Box(0, 255, (36, 44, 2), np.uint8)
BOUNDED = spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 7.0], np.float32))
NARROW = spaces.Box(np.array([-0.5, -0.2], np.float32), np.array([0.3, 0.6], np.float32))
WIDE = spaces.Box(np.array([-100.0, 0.0], np.float32), np.array([300.0, 5.0], np.float32))
# How one writes "unbounded" for Stable-Baselines3, which asks for finite bounds.
FREE = spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32)
FLAT = {"net_arch": [8], "ortho_init": False}
APART = {"share_features_extractor": False}
CHOICE = spaces.Discrete(4)


class Follow(gymnasium.Env):
    """The reward is how near the action is to what the observation says; episodes are of 20 steps."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if isinstance(self.action_space, spaces.Discrete):
            reward = float(action == int(abs(self.signal[0]) * 2) % 4)
        else:
            low, high = np.maximum(self.action_space.low, -2), np.minimum(self.action_space.high, 2)
            reward = -float(np.square((action - low) / (high - low) - 0.5 - 0.3 * self.signal[:2]).sum())
        return self._observe(), reward, False, self.steps >= 20, {}

    def _observe(self) -> Any:
        observation = observe(self.observation_space, 1, self.np_random)[0]
        self.signal = np.asarray(observation, np.float32).ravel()[:3]
        self.signal = self.signal / 128 - 1 if observation.dtype == np.uint8 else self.signal
        return observation


def observe(space: spaces.Space, n: int, rng: Any) -> np.ndarray:
    """`n` observations, (n, *shape); `rng` is of either kind of numpy's."""
    if space.dtype == np.uint8:
        integers = rng.randint if isinstance(rng, np.random.RandomState) else rng.integers
        # Patches: in noise, one frame would be like another to a convolution.
        patches = integers(0, 256, (n, 3, 4, space.shape[2])).astype(np.uint8)
        return patches.repeat(12, axis=1).repeat(11, axis=2)
    return rng.normal(0.0, 1.0, (n, *space.shape)).astype(np.float32)


def observations(space: spaces.Space) -> np.ndarray:
    """What is predicted for. RandomState's numbers are the same in every version of numpy."""
    return observe(space, OBSERVATIONS, np.random.RandomState(0))


def _model(
    algorithm: str,
    policy: str,
    observation: spaces.Space,
    action: spaces.Space,
    normalize: bool = False,
    **options: Any,
) -> Callable[[], BaseAlgorithm]:
    def train() -> BaseAlgorithm:
        # These networks are small, and threads that wait for each other are slower than one.
        torch.set_num_threads(1)
        env: Any = DummyVecEnv([lambda: Follow(observation, action)])
        if normalize:
            env = VecNormalize(env, clip_obs=1.5, epsilon=0.01)
        policy_kwargs = {"net_arch": [16, 16], **options.pop("policy_kwargs", {})}
        if policy == "CnnPolicy":
            policy_kwargs["features_extractor_kwargs"] = {"features_dim": 16}
        on_policy = algorithm in ("PPO", "A2C")
        options.update({"n_steps": 64} if on_policy else {"learning_starts": 50, "buffer_size": 1000, "batch_size": 32})
        kind = getattr(stable_baselines3, algorithm)
        rate = 0.0001 if observation is FRAMES else 0.01
        model = kind(policy, env, seed=0, learning_rate=rate, policy_kwargs=policy_kwargs, device="cpu", **options)
        model.learn(256 if policy == "CnnPolicy" else 1024)
        return model

    return train


MODELS: dict[str, Callable[[], BaseAlgorithm]] = {
    "ppo": _model("PPO", "MlpPolicy", VECTOR, BOUNDED),
    "a2c": _model("A2C", "MlpPolicy", VECTOR, BOUNDED),
    "dqn": _model("DQN", "MlpPolicy", VECTOR, CHOICE),
    "ddpg": _model("DDPG", "MlpPolicy", VECTOR, BOUNDED),
    "td3": _model("TD3", "MlpPolicy", VECTOR, WIDE),
    "sac": _model("SAC", "MlpPolicy", VECTOR, BOUNDED),
    "ppo-discrete": _model("PPO", "MlpPolicy", VECTOR, CHOICE, policy_kwargs={"activation_fn": nn.ReLU}),
    "ppo-unbounded": _model("PPO", "MlpPolicy", VECTOR, FREE, policy_kwargs={"net_arch": []}),
    "ppo-normalized": _model("PPO", "MlpPolicy", VECTOR, BOUNDED, normalize=True),
    "ppo-squashed": _model("PPO", "MlpPolicy", VECTOR, BOUNDED, use_sde=True, policy_kwargs={"squash_output": True}),
    "ppo-frames-mlp": _model("PPO", "MlpPolicy", FRAMES, NARROW, policy_kwargs={"activation_fn": nn.ReLU, **FLAT}),
    "ppo-cnn": _model(
        "PPO", "CnnPolicy", FRAMES, NARROW, policy_kwargs={"share_features_extractor": False, "ortho_init": False}
    ),
    "a2c-cnn": _model("A2C", "CnnPolicy", FRAMES, NARROW, policy_kwargs={"ortho_init": False}),
    "dqn-cnn": _model("DQN", "CnnPolicy", FRAMES, CHOICE),
    "sac-cnn": _model("SAC", "CnnPolicy", FRAMES, NARROW),
}


def predictions(model: BaseAlgorithm) -> tuple[np.ndarray, np.ndarray]:
    """What the environment would give, and what the model then does, deterministically."""
    env = model.get_env()
    assert env is not None
    plain = env.get_attr("observation_space")[0]
    seen = given = observations(plain)
    if isinstance(env, VecNormalize):
        seen = env.normalize_obs(given)
    if seen.dtype == np.uint8:
        seen = seen.transpose(0, 3, 1, 2)
    return given, model.predict(seen, deterministic=True)[0]


def save(name: str, model: BaseAlgorithm, folder: Path) -> None:
    """What a user would save: NAME.zip and, with VecNormalize, NAME.pkl."""
    model.save(folder / f"{name}.zip")
    env = model.get_env()
    if isinstance(env, VecNormalize):
        env.save(str(folder / f"{name}.pkl"))


def varies(actions: np.ndarray, space: spaces.Space) -> bool:
    """Whether the actions depend on what was seen, clearly."""
    if isinstance(space, spaces.Discrete):
        return len(np.unique(actions)) > 1
    return bool((actions.std(axis=0) > 0.02 * np.minimum(space.high - space.low, 1.0)).any())


def main(names: list[str]) -> None:
    for name in names or MODELS:
        model = MODELS[name]()
        if model.observation_space.dtype == np.uint8:
            _lighten(model.policy)
            spread(model)
        save(name, model, HERE)
        _repack(HERE / f"{name}.zip")
        actions = predictions(model)[1]
        assert varies(actions, model.action_space), f"{name} does the same whatever it sees: nothing to test with"
        np.save(HERE / f"{name}.npy", actions)


def _lighten(policy: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if name.startswith(("critic", "actor_target", "q_net_target", "vf_features", "value_net")):
                parameter.zero_()
            elif parameter.numel() > 2000:
                parameter[parameter.abs() < parameter.abs().flatten().quantile(0.9)] = 0
                # Or the layers after it would see little else than their biases.
                parameter *= 4


def spread(model: BaseAlgorithm) -> None:
    """Scale the last layer, so that actions vary with what is seen and are sometimes clipped."""
    policy: Any = model.policy
    if hasattr(policy, "action_net"):
        last = policy.action_net
    else:
        last = policy.q_net.q_net[-1] if hasattr(policy, "q_net") else policy.actor.mu
    outputs = []
    hook = last.register_forward_hook(lambda module, given, output: outputs.append(output))
    predictions(model)
    hook.remove()
    space = model.action_space
    middle, deviation = 0.0, 1.0
    if isinstance(space, spaces.Box) and not policy.squash_output:
        middle, deviation = torch.tensor((space.high + space.low) / 2), torch.tensor((space.high - space.low) / 3)
    with torch.no_grad():
        scale = deviation / outputs[0].std(dim=0)
        last.bias.copy_((last.bias - outputs[0].mean(dim=0)) * scale + middle)
        last.weight.mul_(scale[:, None])


def _repack(path: Path) -> None:
    with zipfile.ZipFile(path) as saved:
        members = {name: saved.read(name) for name in saved.namelist() if "optimizer" not in name}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, content in members.items():
            file.writestr(name, content)
    path.write_bytes(packed.getvalue())


if __name__ == "__main__":
    main(sys.argv[1:])
