"""PPO on HalfCheetah-v5 with 16 environments: this project against stable-baselines3, the same settings, one run.

    python benchmarks/ppo_vs_sb3.py --seeds 10 11 12 --steps 1000000 --json results/ppo_vs_sb3.json

Each training has a process of its own; the two alternate seed by seed, so that the machine's moods hit both. What is
compared: environment steps per second, over the whole training (compilation included) and without the first two
rollouts; the learning curve (mean return of the last 100 training episodes); and the return of the final policy, its
most likely action, over 20 episodes that both are given with the same seeds. Both normalise observations and rewards
(VecNormalize there) and let the step size fall linearly to zero.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import provenance

from edge.conditions import Conditions
from edge.report import table
from tfqrl import evaluate
from tfqrl.agents.ppo import PPOConfig

ENV = "HalfCheetah-v5"
EPISODES, FIRST_SEED = 20, 3_000_000
LIBRARIES = ("tfqrl", "stable-baselines3")


def train_tfqrl(config: PPOConfig) -> dict[str, Any]:
    """One training here."""
    from converters.export import DeployedPolicy
    from tfqrl import agents
    from tfqrl.agents import ppo
    from tfqrl.runs import Run

    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", "ppo", config)
        began_s = time.perf_counter()
        ppo.train(run)
        took_s = time.perf_counter() - began_s
        times = [(record["elapsed_s"], record["steps"]) for record in run.metrics()]
        curve = [(record["steps"], record["return"]) for record in run.metrics() if "return" in record]
        policy = DeployedPolicy(*agents.load_policy(run))
        returns = evaluate.play(policy.act, ENV, first_seed=FIRST_SEED, episodes=EPISODES).returns
    return _result(took_s, times, curve, returns)


def train_sb3(config: PPOConfig) -> dict[str, Any]:
    """The same training in stable-baselines3."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    class Curve(BaseCallback):
        """Notes time and return at the end of each rollout."""

        def __init__(self) -> None:
            super().__init__()
            self.times: list[tuple[float, int]] = []
            self.curve: list[tuple[int, float]] = []

        def _on_rollout_end(self) -> None:
            self.times.append((time.perf_counter(), self.num_timesteps))
            if self.model.ep_info_buffer:
                self.curve.append((self.num_timesteps, float(np.mean([e["r"] for e in self.model.ep_info_buffer]))))

        def _on_step(self) -> bool:
            return True

    env = VecNormalize(make_vec_env(ENV, config.num_envs, seed=config.seed), gamma=config.gamma)
    assert config.activation == "tanh"
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=config.rollout_steps,
        batch_size=config.batch_size,
        n_epochs=config.epochs,
        learning_rate=lambda left: config.learning_rate * left,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        ent_coef=config.entropy_weight,
        vf_coef=config.value_weight,
        max_grad_norm=config.max_gradient_norm,
        policy_kwargs={"net_arch": list(config.hidden), "activation_fn": torch.nn.Tanh},
        seed=config.seed,
        device="cpu",
    )
    notes = Curve()
    began_s = time.perf_counter()
    model.learn(config.steps, callback=notes)
    took_s = time.perf_counter() - began_s
    env.training = False

    def act(observations: np.ndarray) -> np.ndarray:
        actions, _ = model.predict(env.normalize_obs(observations), deterministic=True)
        return actions

    returns = evaluate.play(act, ENV, first_seed=FIRST_SEED, episodes=EPISODES).returns
    return _result(took_s, notes.times, notes.curve, returns)


def _result(took_s: float, times: list[Any], curve: list[Any], returns: np.ndarray) -> dict[str, Any]:
    (first_s, first_steps), (last_s, last_steps) = times[2], times[-1]
    return {
        "steps_per_s": last_steps / took_s,
        "steady_steps_per_s": (last_steps - first_steps) / (last_s - first_s),
        "curve": [(int(steps), round(value, 1)) for steps, value in curve][:: max(1, len(curve) // 100)],
        "returns": [round(float(value), 1) for value in returns],
    }


def main() -> None:
    """Alternate the trainings and summarise, or be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--only", choices=LIBRARIES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        config = PPOConfig(env=ENV, steps=options.steps, seed=options.seeds[0])
        trained = train_tfqrl(config) if options.only == "tfqrl" else train_sb3(config)
        options.json.write_text(json.dumps(trained))
        return

    measured_at = provenance.commit()
    trainings: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "one.json"
        for seed in options.seeds:
            for library in LIBRARIES:
                words = ["--only", library, "--seeds", str(seed), "--steps", str(options.steps), "--json", str(out)]
                subprocess.run([sys.executable, __file__, *words], check=True, stderr=subprocess.DEVNULL)
                trainings.append({"library": library, "seed": seed, **json.loads(out.read_text())})
                last = trainings[-1]
                mean = statistics.mean(last["returns"])
                print(f"{library} seed {seed}: {last['steps_per_s']:.0f} steps/s, return {mean:.0f}", flush=True)

    def median(library: str, key: str) -> float:
        return statistics.median(t[key] for t in trainings if t["library"] == library)

    def returns(library: str) -> list[float]:
        return [statistics.mean(t["returns"]) for t in trainings if t["library"] == library]

    rows = []
    for library in LIBRARIES:
        found = returns(library)
        rows.append(
            [
                library,
                f"{median(library, 'steps_per_s'):.0f}",
                f"{median(library, 'steady_steps_per_s'):.0f}",
                f"{statistics.mean(found):.0f}",
                f"{min(found):.0f} .. {max(found):.0f}",
            ]
        )
    print(table(("library", "steps/s", "without start", "return", "by seed"), rows))
    ratios = {
        key: median("tfqrl", key) / median("stable-baselines3", key) for key in ("steps_per_s", "steady_steps_per_s")
    }
    print(", ".join(f"{key} ratio {value:.2f}" for key, value in ratios.items()))
    if options.json:
        packages = ("tfqrl", "tensorflow", "stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")
        result = {
            "commit": measured_at,
            "command": f"python benchmarks/ppo_vs_sb3.py --seeds {' '.join(map(str, options.seeds))} "
            f"--steps {options.steps}",
            "ratios": ratios,
            "trainings": trainings,
            "versions": {package: version(package) for package in packages},
            "machine": vars(Conditions.now()),
        }
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
