"""What the parts of a training reach by themselves: the floors beside the figures of training_speed.py.

Each function runs in a process of its own, with the threads that a training has, and returns values round by round.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from training_contenders import CHEETAH, GATED, OFF_POLICY, STEPS, GatedEnv

Rounds = dict[str, list[float]]

# What a product's shape is in an update with 256 units and batches of 256.
WIDTH = 256
UPDATES, PRODUCTS = 32, 500
ENV_STEPS = 2048
PARTS_STEPS = 1024


def sac_update_flop(observation: int, actions: int, hidden: tuple[int, int], batch: int) -> int:
    """Floating-point operations of the matrix products in one update of SAC, counted from their shapes.

    What is done element by element (activations, Adam, target networks; some 1 % of the products) is left out, as are
    products that an implementation makes and nobody needs, so that the operations per second are rather too few.
    """

    def product(rows: int, inner: int, columns: int) -> int:
        return 2 * rows * inner * columns

    def layers(inputs: int, outputs: int) -> int:
        """One product for each layer: a forward pass, or all gradients of weights, or all gradients of inputs."""
        sizes = (inputs, *hidden, outputs)
        return sum(product(batch, inner, columns) for inner, columns in itertools.pairwise(sizes))

    policy, critic = layers(observation, 2 * actions), layers(observation + actions, 1)
    first = hidden[0]
    # Target: actions of the policy in the next states, and their values by two target critics.
    target = policy + 2 * critic
    # Critics: forward, gradients of weights and of inputs, of which the first layer's are not needed.
    critics = 2 * (3 * critic - product(batch, observation + actions, first))
    # Policy: forward; both critics forward, and back to their inputs, of which only the actions' gradients are needed;
    # then gradients of the policy's weights and inputs, without the first layer's inputs.
    through_critics = 2 * (2 * critic - product(batch, observation, first))
    own = 3 * policy - product(batch, observation, first)
    return target + critics + through_critics + own


def arithmetic(rounds: int) -> Rounds:
    """Operations per second of matrix products in a compiled loop, and of SAC's update; and the latter's time."""
    import tensorflow as tf

    from tfqrl.agents.sac import SAC, SACConfig
    from tfqrl.envs import spec_of
    from tfqrl.replay import Transitions

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    @tf.function(jit_compile=True)
    def products(x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return tf.while_loop(lambda i, _: i < PRODUCTS, lambda i, x: (i + 1, tf.matmul(x, weights)), (0, x))[1]

    x, weights = tf.constant(normal(WIDTH, WIDTH)), tf.constant(normal(WIDTH, WIDTH) / np.sqrt(np.float32(WIDTH)))
    spec = spec_of(CHEETAH, None)
    observation, actions = spec.observation.shape[0], spec.action.shape[0]
    rows, hidden = OFF_POLICY["batch_size"], OFF_POLICY["hidden"]
    batch = Transitions(
        observation=normal(UPDATES, rows, observation),
        action=np.tanh(normal(UPDATES, rows, actions)),
        reward=normal(UPDATES, rows),
        next_observation=normal(UPDATES, rows, observation),
        discount=np.full((UPDATES, rows), 0.99, np.float32),
    )

    def update(precision: str) -> Callable[[], Any]:
        agent = SAC(SACConfig(env=CHEETAH, precision=precision, **OFF_POLICY), spec)
        return lambda: agent.update(batch)["critic_loss"].numpy()

    works = {
        "product": lambda: products(x, weights).numpy(),
        "update": update("float32"),
        "update, bfloat16": update("bfloat16"),
    }
    for work in works.values():  # compiles
        work()
    flop = sac_update_flop(observation, actions, hidden, rows)
    found: Rounds = {}
    for _ in range(rounds):
        took_s = {name: _seconds(work, 3) for name, work in works.items()}
        product_gflops = 2 * WIDTH**3 * PRODUCTS / took_s["product"] / 1e9
        update_gflops = flop * UPDATES / took_s["update"] / 1e9
        _note(found, "bare matrix product, GFLOP/s", product_gflops)
        _note(found, "SAC update, GFLOP/s", update_gflops)
        _note(found, "SAC update / product", update_gflops / product_gflops)
        _note(found, "SAC update, ms", took_s["update"] / UPDATES * 1e3)
        _note(found, "SAC update in bfloat16, ms", took_s["update, bfloat16"] / UPDATES * 1e3)
    return found


def stepping(rounds: int) -> Rounds:
    """Steps per second of environments that random actions are given to, drawn before."""
    from tfqrl.envs import make, make_vector

    rng = np.random.default_rng(0)

    def alone(name: str) -> Callable[[], None]:
        env = make(name)
        env.action_space.seed(0)
        actions = [env.action_space.sample() for _ in range(ENV_STEPS)]
        env.reset(seed=0)

        def steps() -> None:
            for action in actions:
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    env.reset()

        return steps

    def together(name: str, copies: int) -> Callable[[], None]:
        env = make_vector(name, copies, seed=0)
        env.reset()
        actions = rng.uniform(-1, 1, (ENV_STEPS // copies, copies, *env.spec.action.shape)).astype(np.float32)

        def steps() -> None:
            for action in actions:
                env.step(action)

        return steps

    works = {
        CHEETAH: alone(CHEETAH),
        f"{CHEETAH}, 16 copies": together(CHEETAH, 16),
        "CartPole-v1": alone("CartPole-v1"),
        "ale:Pong-v5": alone("ale:Pong-v5"),
    }
    found: Rounds = {}
    for turn in range(rounds + 1):
        for name, work in works.items():
            took_s = _seconds(work, 1)
            if turn:  # the first is for warming up
                _note(found, name, ENV_STEPS / took_s)
    return found


def sac_step_us(rounds: int) -> Rounds:
    """Where the time of a step goes in a training with SAC, one update a step: microseconds of each part."""
    import gymnasium

    from tfqrl import agents
    from tfqrl.agents.sac import SAC, SACConfig
    from tfqrl.envs import VectorEnv, make
    from tfqrl.replay import NStep, UniformReplay
    from tfqrl.runs import Run
    from tfqrl.training.session import Session

    spent_s: dict[str, float] = {}

    def count(owner: type[Any], name: str, part: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any) -> Any:
            began_s = time.perf_counter()
            result = original(*args)
            spent_s[part] = spent_s.get(part, 0.0) + time.perf_counter() - began_s
            return result

        setattr(owner, name, counted)

    count(SAC, "explore", "acting")
    count(VectorEnv, "step", "stepping")
    count(NStep, "add", "adding to the replay")
    count(UniformReplay, "extend", "adding to the replay")
    count(UniformReplay, "sample", "sampling")
    count(SAC, "update", "updates")
    count(Session, "updated", "metrics, checks, new weights to act by")

    class Done(BaseException):
        pass

    found: Rounds = {}
    warm_steps, steps, began_s = 1280, 0, 0.0

    def before_step() -> None:
        nonlocal steps, began_s
        block, step = divmod(steps - warm_steps, PARTS_STEPS)
        steps += 1
        if block < 0 or step:
            return
        if block:
            whole_s = time.perf_counter() - began_s
            for part, part_s in spent_s.items():
                _note(found, part, part_s / PARTS_STEPS * 1e6)
            _note(found, "the loop", (whole_s - sum(spent_s.values())) / PARTS_STEPS * 1e6)
            _note(found, "whole", whole_s / PARTS_STEPS * 1e6)
        if block == rounds:
            raise Done
        spent_s.clear()
        began_s = time.perf_counter()

    gymnasium.register(GATED, lambda: GatedEnv(make(CHEETAH), before_step), disable_env_checker=True)
    config = SACConfig(env=GATED, steps=STEPS, checkpoint_period_s=3600, **OFF_POLICY)
    train = agents.get("sac").train
    assert train is not None
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Done):
        train(Run.create(Path(folder) / "run", "sac", config))
    return found


def _seconds(work: Callable[[], Any], times: int) -> float:
    """How long a call takes, over `times` of them."""
    began_s = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began_s) / times


def _note(found: Rounds, name: str, value: float) -> None:
    found.setdefault(name, []).append(value)
