"""Where the time of a rollout goes, and what the choices in `tfqrl/envs.py` and `tfqrl/networks/host.py` are worth.

    python benchmarks/rollout.py --json results/rollout.json

Steps 16 copies of HalfCheetah-v5, four ways of stepping times three ways of acting (a 64-64 policy; "none" repeats
one action). The ways take turns, block by block; the figure is the median of microseconds per environment step.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gymnasium
import numpy as np
import tensorflow as tf

from edge.conditions import Conditions
from edge.interpreter import Runtime
from edge.report import table
from tfqrl.envs import VectorEnv
from tfqrl.networks import HostNetwork, mlp

ENV, COPIES = "HalfCheetah-v5", 16
BLOCKS, STEPS = 25, 60

Array = np.ndarray[Any, np.dtype[np.float32]]


def steppers() -> dict[str, Callable[[Array], Array]]:
    """Ways of stepping, each from actions to observations."""
    reference = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(ENV)] * COPIES)
    reference.reset(seed=0)
    found: dict[str, Callable[[Array], Array]] = {
        "gymnasium SyncVectorEnv": lambda actions: reference.step(actions)[0].astype(np.float32)
    }
    for threads in (1, 2, 4):
        env = VectorEnv(ENV, COPIES, seed=0, threads=threads)
        env.reset()
        found[f"VectorEnv, {threads} thread(s)"] = lambda actions, env=env: env.step(actions).observation
    return found


def actors() -> dict[str, Callable[[Array], Array]]:
    """Ways of acting, each from observations to actions."""
    network = mlp(17, (64, 64), 6)
    compiled = tf.function(network, jit_compile=True).get_concrete_function(tf.TensorSpec((COPIES, 17)))
    constant = np.random.default_rng(0).uniform(-1, 1, (COPIES, 6)).astype(np.float32)
    return {
        "none": lambda observations: constant,
        "numpy": HostNetwork(network),
        "TensorFlow": lambda observations: compiled(tf.constant(observations)).numpy(),
    }


def main() -> None:
    """Measure every pair, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    ways, acts = steppers(), actors()
    observations = np.zeros((COPIES, 17), np.float32)
    for act in acts.values():
        act(observations)
    times: dict[tuple[str, str], list[float]] = {(way, act): [] for way in ways for act in acts}
    for _ in range(BLOCKS):
        for (way, act), found in times.items():
            began_s = time.perf_counter()
            for _ in range(STEPS):
                observations = ways[way](acts[act](observations))
            found.append((time.perf_counter() - began_s) / STEPS / COPIES * 1e6)
    rows = [{"stepping": way, "acting": act, "step_us": float(np.median(found))} for (way, act), found in times.items()]
    cells = [[str(row["stepping"]), str(row["acting"]), f"{row['step_us']:.1f}"] for row in rows]
    print(table(("stepping", "acting", "us per step"), cells))
    if options.json:
        result = {
            "command": "python benchmarks/rollout.py",
            "blocks": BLOCKS,
            "steps": STEPS,
            "rows": rows,
            "machine": vars(Conditions.now(Runtime("none", "", 0))) | {"runtime": None},
        }
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
