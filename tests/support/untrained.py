"""Runs whose training was nothing but a seed, for what comes after training."""

from pathlib import Path

from tfqrl import envs
from tfqrl.agents.ppo import PPOConfig
from tfqrl.networks import mlp
from tfqrl.runs import Run


def make_run(path: Path, env: str) -> str:
    """A run with random networks that do something, and no normaliser."""
    config = PPOConfig(env=env, hidden=(16, 16), normalize_observation=False)
    made = envs.make(env)
    spec = envs.policy_spec(made, None)
    made.close()
    outputs = spec.action.n or spec.action.shape[0]
    network = mlp(spec.observation.shape[0], config.hidden, outputs, output_gain=1.0, seed=1)
    run = Run.create(path, "ppo", config)
    run.save_checkpoint({f"policy/{i}": variable.numpy() for i, variable in enumerate(network.variables)})
    return str(path)
