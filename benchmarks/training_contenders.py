"""The trainings that training_speed.py compares: what is trained, and how each library is told to.

Settings have the names of this project's configurations; `_peer` says what the others call them.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

THREADS = 2

# Nobody trains for so long here; schedules are laid out over it.
STEPS = 1_000_000
GATED = "Gated-v0"


@dataclass(frozen=True)
class Contender:
    """A library, and how its settings differ from those of the work."""

    name: str
    library: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What is trained.

    Attributes:
      name: of its rows.
      algorithm: this project's name of it.
      env: where.
      settings: those that all contenders share.
      warm_steps: environment steps before the first block: random ones, and enough updates for all to be compiled.
      steps: environment steps of a block.
      cycle: steps after which every contender has made the same number of updates; divides a block.
      contenders: who trains.
      wanted: by how much this project should be faster than a contender, by its name.
    """

    name: str
    algorithm: str
    env: str
    settings: dict[str, Any]
    warm_steps: int
    steps: int
    cycle: int
    contenders: tuple[Contender, ...]
    wanted: dict[str, float]

    def block_steps(self, steps: int | None) -> int:
        """Steps of a block: at least `steps`, or its own number."""
        return -(-(steps or self.steps) // self.cycle) * self.cycle


TFQRL = Contender("tfqrl", "tfqrl")
TFQRL_1 = Contender("tfqrl, 1 update a call", "tfqrl", {"updates_per_call": 1})
TFQRL_BF16 = Contender("tfqrl, bfloat16", "tfqrl", {"precision": "bfloat16"})
SB3 = Contender("stable-baselines3", "stable_baselines3", {"updates_per_call": 1})
SBX = Contender("SBX", "sbx", {"updates_per_call": 1})
# SBX scans the updates of a call too, but by default there is one.
SBX_32 = Contender("SBX, 32 updates a call", "sbx", {"updates_per_call": 32})

OFF_POLICY = {
    "hidden": (256, 256),
    "batch_size": 256,
    "replay_size": 100_000,
    "learning_starts": 1000,
    "update_every": 1,
    "gamma": 0.99,
    "policy_learning_rate": 3e-4,
    "critic_learning_rate": 3e-4,
    "tau": 0.005,
}
NOISE = {"exploration_noise": 0.1}
DELAY = {"policy_delay": 2, "target_noise": 0.2, "target_noise_clip": 0.5}
PPO = {
    "num_envs": 16,
    "rollout_steps": 128,
    "batch_size": 64,
    "epochs": 10,
    "hidden": (64, 64),
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "entropy_weight": 0.0,
    "value_weight": 0.5,
    "max_gradient_norm": 0.5,
}
# Exploration is over when learning starts: until then, actions are random and cost no network.
DQN = {"learning_starts": 1000, "gamma": 0.99, "epsilon_fraction": 1000 / STEPS, "epsilon_last": 0.05, "double": False}
# As in rl-baselines3-zoo, but for exploration and Pong's replay, which is small enough for all to fit into memory.
CARTPOLE = {
    **DQN,
    "hidden": (256, 256),
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "replay_size": 100_000,
    "update_every": 2,
    "target_update_every": 5,
}
PONG = {
    **DQN,
    "learning_rate": 1e-4,
    "batch_size": 32,
    "replay_size": 10_000,
    "update_every": 4,
    "target_update_every": 250,
}
ZOO_128 = {"updates_per_call": 128}

PEERS = {"SBX": 1.3, SBX_32.name: 1.3, "stable-baselines3": 2.0}
VECTORS = (TFQRL, TFQRL_1, SBX, SBX_32, SB3)
CHEETAH = "HalfCheetah-v5"
WORKS = (
    Work("SAC", "sac", CHEETAH, OFF_POLICY, 1280, 512, 32, (TFQRL, TFQRL_1, TFQRL_BF16, SBX, SBX_32, SB3), PEERS),
    Work("TD3", "td3", CHEETAH, OFF_POLICY | NOISE | DELAY, 1280, 512, 32, VECTORS, PEERS),
    Work("DDPG", "ddpg", CHEETAH, OFF_POLICY | NOISE, 1280, 512, 32, VECTORS, PEERS),
    Work(
        "PPO",
        "ppo",
        CHEETAH,
        PPO,
        4096,
        4096,
        2048,
        (TFQRL, Contender("SBX", "sbx"), Contender("stable-baselines3", "stable_baselines3")),
        {"SBX": 2.0, "stable-baselines3": 2.5},
    ),
    Work(
        "DQN CartPole-v1",
        "dqn",
        "CartPole-v1",
        CARTPOLE,
        2048,
        2048,
        256,
        (
            TFQRL,
            TFQRL_1,
            Contender("SBX", "sbx", ZOO_128),
            Contender("stable-baselines3", "stable_baselines3", ZOO_128),
        ),
        {"stable-baselines3": 1.5},
    ),
    Work(
        "DQN Pong",
        "dqn",
        "ale:Pong-v5",
        PONG,
        1280,
        512,
        128,
        (TFQRL, TFQRL_1, TFQRL_BF16, SBX, SB3),
        {"stable-baselines3": 1.5},
    ),
)


def use_threads() -> None:
    """Let this process have THREADS cores; to be called before a library looks how many there are.

    XLA, in TensorFlow and JAX, makes as many threads as it may use cores, and has no other setting that works.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(THREADS)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


class GatedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment before whose every step something else happens."""

    def __init__(self, env: gymnasium.Env[Any, Any], before_step: Callable[[], None]) -> None:
        super().__init__(env)
        self._before_step = before_step

    def step(self, action: Any) -> Any:
        """A step, after what comes before it."""
        self._before_step()
        return self.env.step(action)


class Turns:
    """Lets a training wait for its turn before each block of steps, counted over all copies of its environment."""

    def __init__(self, connection: Connection, warm_steps: int, block_steps: int) -> None:
        self._connection, self._warm_steps, self._block_steps = connection, warm_steps, block_steps
        # `next` of a count is one operation for all threads.
        self._steps = itertools.count()
        self._began_s = 0.0

    def __call__(self) -> None:
        """To be called before each step."""
        block, step = divmod(next(self._steps) - self._warm_steps, self._block_steps)
        if block >= 0 and step == 0:
            # The first message only says that the training is warm.
            self._connection.send(time.perf_counter() - self._began_s)
            self._connection.recv()
            self._began_s = time.perf_counter()


def compete(work: Work, contender: Contender, block_steps: int, connection: Connection) -> None:
    """Train, in this process, by turns that `connection` gives; reports the seconds of each, or an error's text."""
    try:
        use_threads()
        turns = Turns(connection, work.warm_steps, block_steps)
        settings = {**work.settings, **contender.settings}
        if contender.library == "tfqrl":
            train_tfqrl(work, settings, turns)
        else:
            train_peer(contender.library, work, settings, turns)
    except BaseException:
        connection.send(f"{work.name}: {contender.name}\n{traceback.format_exc()}")


def train_tfqrl(work: Work, settings: dict[str, Any], before_step: Callable[[], None]) -> None:
    """A training here."""
    import tensorflow as tf

    from tfqrl import agents
    from tfqrl.compress import COMPRESSORS
    from tfqrl.envs import make
    from tfqrl.runs import Run

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    gymnasium.register(GATED, lambda: GatedEnv(make(work.env), before_step), disable_env_checker=True)
    algorithm = agents.get(work.algorithm)
    assert algorithm.train is not None
    if "compress" in settings:
        method, options = settings["compress"]
        settings["compress"] = COMPRESSORS[method](**options)
    config = algorithm.config(env=GATED, steps=STEPS, checkpoint_period_s=3600, **settings)
    with tempfile.TemporaryDirectory() as folder:
        algorithm.train(Run.create(Path(folder) / "run", work.algorithm, config))


def train_peer(library: str, work: Work, settings: dict[str, Any], before_step: Callable[[], None]) -> None:
    """The same training in stable-baselines3, or in SBX, which has the same interface."""
    import importlib

    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    from tfqrl.envs import make

    torch.set_num_threads(THREADS)
    env = make_vec_env(lambda: GatedEnv(make(work.env), before_step), settings.get("num_envs", 1), seed=0)
    if work.algorithm == "ppo":
        env = VecNormalize(env, gamma=settings["gamma"])
    algorithm = getattr(importlib.import_module(library), work.algorithm.upper())
    frames = len(env.observation_space.shape) == 3
    model = algorithm("CnnPolicy" if frames else "MlpPolicy", env, device="cpu", **_peer(library, work, settings))
    model.learn(STEPS)


def _peer(library: str, work: Work, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as stable-baselines3 and SBX call them."""
    shared = {
        "batch_size": settings["batch_size"],
        "gamma": settings["gamma"],
        "seed": 0,
        # Where the observations are frames, the network is the Nature CNN.
        "policy_kwargs": {"net_arch": list(settings["hidden"])} if "hidden" in settings else {},
    }
    if work.algorithm == "ppo":
        return shared | {
            "n_steps": settings["rollout_steps"],
            "n_epochs": settings["epochs"],
            "learning_rate": lambda left: settings["learning_rate"] * left,
            "gae_lambda": settings["gae_lambda"],
            "clip_range": settings["clip_range"],
            "ent_coef": settings["entropy_weight"],
            "vf_coef": settings["value_weight"],
            "max_grad_norm": settings["max_gradient_norm"],
        }
    shared |= {
        "buffer_size": settings["replay_size"],
        "learning_starts": settings["learning_starts"],
        "train_freq": settings["update_every"] * settings["updates_per_call"],
        "gradient_steps": settings["updates_per_call"],
    }
    if work.algorithm == "dqn":
        return shared | {
            "learning_rate": settings["learning_rate"],
            # In environment steps there, in updates here.
            "target_update_interval": settings["target_update_every"] * settings["update_every"],
            "exploration_fraction": settings["epsilon_fraction"],
            "exploration_final_eps": settings["epsilon_last"],
        }
    shared |= {"learning_rate": settings["policy_learning_rate"], "tau": settings["tau"]}
    if library == "sbx":
        shared["qf_learning_rate"] = settings["critic_learning_rate"]
    if "exploration_noise" in settings:
        from stable_baselines3.common.noise import NormalActionNoise

        actions = gymnasium.make(work.env).action_space.shape
        shared["action_noise"] = NormalActionNoise(np.zeros(actions), np.full(actions, settings["exploration_noise"]))
    if "policy_delay" in settings:
        shared["policy_delay"] = settings["policy_delay"]
        shared["target_policy_noise"] = settings["target_noise"]
        shared["target_noise_clip"] = settings["target_noise_clip"]
    return shared
