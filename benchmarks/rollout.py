"""Where the time of a rollout goes, and what the choices in `tfqrl/envs` and `tfqrl/networks/host.py` are worth.

    python benchmarks/rollout.py --json results/rollout.json

Steps 16 copies of HalfCheetah-v5, five ways of stepping times three ways of computing actions (with a 64-64 policy;
"none" computes nothing). What is computed is thrown away and the same actions drawn in advance are taken, so that the
simulations go through the same states (EnvPool's through others like them). The ways take turns, block by block, each
block from a reset; the figure is the median of microseconds per environment step.
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
import provenance
import tensorflow as tf

from edge.conditions import Conditions
from edge.report import table
from tfqrl.envs import EnvPoolVectorEnv, VectorEnv
from tfqrl.networks import HostNetwork, mlp

ENV, COPIES = "HalfCheetah-v5", 16
BLOCKS, STEPS = 25, 60

Array = np.ndarray[Any, np.dtype[np.float32]]


class Reference:
    """gymnasium's own vector environment, with the interface of ours."""

    def __init__(self) -> None:
        self._env = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make(ENV)] * COPIES)

    def reset(self) -> Array:
        """First observations."""
        return self._env.reset(seed=0)[0].astype(np.float32)

    def step(self, actions: Array) -> Array:
        """Next observations."""
        return self._env.step(actions)[0].astype(np.float32)


class Ours(VectorEnv):
    """`VectorEnv`, giving observations alone."""

    def step(self, actions: Array) -> Array:  # type: ignore[override]
        """Next observations."""
        return super().step(actions).observation


class Pool(EnvPoolVectorEnv):
    """`EnvPoolVectorEnv`, giving observations alone."""

    def step(self, actions: Array) -> Array:  # type: ignore[override]
        """Next observations."""
        return super().step(actions).observation


def actors() -> dict[str, Callable[[Array], Array]]:
    """Ways of acting, each from observations to actions."""
    network = mlp(17, (64, 64), 6)
    compiled = tf.function(network, jit_compile=True).get_concrete_function(tf.TensorSpec((COPIES, 17)))
    return {
        "none": lambda observations: observations,
        "numpy": HostNetwork(network),
        "TensorFlow": lambda observations: compiled(tf.constant(observations)).numpy(),
    }


def main() -> None:
    """Measure every pair, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    ways: dict[str, Reference | Ours | Pool] = {"gymnasium SyncVectorEnv": Reference()}
    ways |= {f"VectorEnv, {threads} thread(s)": Ours(ENV, COPIES, seed=0, threads=threads) for threads in (1, 2, 4)}
    ways["EnvPool"] = Pool(ENV, COPIES, seed=0)
    acts = actors()
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, COPIES, 6)).astype(np.float32)
    times: dict[tuple[str, str], list[float]] = {(way, act): [] for way in ways for act in acts}
    for block in range(BLOCKS + 1):
        for (way, act), found in times.items():
            env, compute = ways[way], acts[act]
            observations = env.reset()
            began_s = time.perf_counter()
            for action in actions:
                compute(observations)
                observations = env.step(action)
            if block:  # the first is for warming up
                found.append((time.perf_counter() - began_s) / STEPS / COPIES * 1e6)
    rows: list[dict[str, Any]] = []
    for (way, act), found in times.items():
        low, median, high = (float(value) for value in np.percentile(found, [25, 50, 75]))
        rows.append({"stepping": way, "acting": act, "step_us": median, "quartiles_us": [low, high]})
    cells = [
        [
            str(row["stepping"]),
            str(row["acting"]),
            f"{row['step_us']:.1f}",
            "{:.1f} .. {:.1f}".format(*row["quartiles_us"]),
        ]
        for row in rows
    ]
    print(table(("stepping", "acting", "us per step", "quartiles"), cells))
    if options.json:
        result = {
            "commit": provenance.commit(),
            "command": "python benchmarks/rollout.py",
            "blocks": BLOCKS,
            "steps": STEPS,
            "rows": rows,
            "machine": vars(Conditions.now()),
        }
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
