"""A training with stable-baselines3 for benchmarks/reference_runs.py, which calls it: TD3, SAC or A2C.

    python benchmarks/sb3_training.py td3 --env HalfCheetah-v5 --steps 300000 --seed 10 --out FOLDER

The settings are those that `tfqrl train` would take, and the final policy plays the same episodes. What FOLDER has is
gone on with: every 20,000 steps the model and its replay buffer are saved there, but for A2C, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from reference_runs import EPISODES, FIRST_SEED, thinned
from stable_baselines3 import A2C, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from edge.files import write_atomically
from edge.records import from_plain, to_json
from tfqrl import agents, evaluate, zoo

SAVE_EVERY = 20_000
VERSIONS_OF = ("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")
CLASSES = {"td3": TD3, "sac": SAC, "a2c": A2C}


def settings(algorithm: str, config: Any) -> dict[str, Any]:
    """The arguments of stable-baselines3 that mean what `config` says."""
    network = {
        "net_arch": list(config.hidden),
        "activation_fn": {"relu": nn.ReLU, "tanh": nn.Tanh}[config.activation],
    }
    if algorithm == "a2c":
        assert not config.normalize_reward
        assert config.anneal_learning_rate
        network["log_std_init"] = config.initial_log_std
        return {
            "learning_rate": lambda left: config.learning_rate * left,
            "n_steps": config.rollout_steps,
            "gamma": config.gamma,
            "gae_lambda": config.gae_lambda,
            "ent_coef": config.entropy_weight,
            "vf_coef": config.value_weight,
            "max_grad_norm": config.max_gradient_norm,
            "policy_kwargs": network,
        }
    assert config.n_step == config.num_envs == 1
    assert not config.normalize_observation
    assert config.policy_learning_rate == config.critic_learning_rate
    # Updates are made one by one: there is nothing to gain from several in a call.
    given: dict[str, Any] = {
        "learning_rate": config.policy_learning_rate,
        "buffer_size": config.replay_size,
        "learning_starts": config.learning_starts,
        "batch_size": config.batch_size,
        "tau": config.tau,
        "gamma": config.gamma,
        "train_freq": config.update_every,
        "gradient_steps": 1,
        "policy_kwargs": network,
    }
    if algorithm == "sac":
        assert config.temperature_learning_rate == config.policy_learning_rate
        assert config.target_entropy is None
        return given | {"ent_coef": f"auto_{config.initial_temperature:g}"}
    actions = gymnasium.make(config.env).action_space.shape
    return given | {
        "action_noise": NormalActionNoise(np.zeros(actions), np.full(actions, config.exploration_noise)),
        "policy_delay": config.policy_delay,
        "target_policy_noise": config.target_noise,
        "target_noise_clip": config.target_noise_clip,
    }


class Curve(BaseCallback):
    """Notes the mean return of the last 100 episodes, a thousand times in a training."""

    def __init__(self, every: int, curve: list[tuple[int, float]]) -> None:
        super().__init__()
        self.every, self.curve = every, curve

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0 and self.model.ep_info_buffer:
            self.curve.append((self.num_timesteps, float(np.mean([e["r"] for e in self.model.ep_info_buffer]))))
        return True


def save(folder: Path, model: BaseAlgorithm, notes: dict[str, Any]) -> None:
    """Keep all of it in a folder of its own, and then forget the one before."""
    new = folder / "saving"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    model.save(new / "model.zip")
    if isinstance(model, OffPolicyAlgorithm):
        model.save_replay_buffer(new / "replay.pkl")
    if isinstance(normalizer := model.get_env(), VecNormalize):
        normalizer.save(new / "normalizer.pkl")
    (new / "notes.json").write_text(json.dumps(notes))
    before = list(folder.glob("at-*"))
    os.replace(new, folder / f"at-{model.num_timesteps:09d}")
    for old in before:
        shutil.rmtree(old)


def main() -> None:
    """Train, evaluate, and write FOLDER/result.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=CLASSES)
    parser.add_argument("--env", required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    plain = {**zoo.tuned(options.algorithm, options.env), "env": options.env, "steps": options.steps}
    config = from_plain(agents.get(options.algorithm).config, {**plain, "seed": options.seed}, "zoo")
    options.out.mkdir(parents=True, exist_ok=True)
    env: VecEnv = make_vec_env(options.env, config.num_envs, seed=options.seed)
    saved = sorted(options.out.glob("at-*"))
    if config.normalize_observation:
        env = VecNormalize.load(saved[-1] / "normalizer.pkl", env) if saved else VecNormalize(env, norm_reward=False)
    given = settings(options.algorithm, config)
    notes: dict[str, Any] = {"wall_s": 0.0, "curve": []}
    if saved:
        model = CLASSES[options.algorithm].load(saved[-1] / "model.zip", env=env, device="cpu")
        if isinstance(model, OffPolicyAlgorithm):
            model.load_replay_buffer(saved[-1] / "replay.pkl")
        notes = json.loads((saved[-1] / "notes.json").read_text())
    else:
        model = CLASSES[options.algorithm]("MlpPolicy", env, seed=options.seed, device="cpu", **given)
    curve = Curve(max(1, config.steps // 1000), notes["curve"])
    # The step size of A2C falls over one call of `learn`.
    part = SAVE_EVERY if isinstance(model, OffPolicyAlgorithm) else config.steps
    while model.num_timesteps < config.steps:
        began_s = time.perf_counter()
        model.learn(min(part, config.steps - model.num_timesteps), callback=curve, reset_num_timesteps=False)
        notes["wall_s"] += time.perf_counter() - began_s
        save(options.out, model, notes)

    def act(observations: np.ndarray) -> np.ndarray:
        if isinstance(env, VecNormalize):
            observations = env.normalize_obs(observations)
        return model.predict(observations, deterministic=True)[0]

    played = evaluate.play(act, options.env, first_seed=FIRST_SEED, episodes=EPISODES, keep_observations=False)
    result = {
        "returns": played.returns.tolist(),
        "curve": thinned(notes["curve"]),
        "evaluations": [],
        "wall_s": notes["wall_s"],
        "steps_per_s": config.steps / notes["wall_s"],
        "config": {key: value for key, value in given.items() if isinstance(value, (int, float, str))}
        | {
            "net_arch": list(config.hidden),
            "activation": config.activation,
            "normalize_observation": config.normalize_observation,
        },
        "versions": {package: version(package) for package in VERSIONS_OF},
    }
    write_atomically(options.out / "result.json", to_json(result).encode())


if __name__ == "__main__":
    main()
