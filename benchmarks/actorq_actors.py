"""What an actor of ActorQ does in a second, by the precision of its policy, beside PyTorch actors, in one run.

    python benchmarks/actorq_actors.py --json results/actorq_actors.json

Each contender is an actor (`tfqrl.actorq.actor.Actor`) with an environment of its own, in this process, on one thread:
it makes 30 steps, takes a policy with other weights, and so on; nothing is sent. Whether a policy is written over the
old one ("in place") or built anew is what `tfqrl.actorq.publisher` finds to be faster. `torch` are actors as the
paper's were: the same loop around an eager `torch.nn.Sequential`, in float32 or by `quantize_dynamic`, whose weights
come as a pickled state_dict. They take turns, block by block.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import provenance
import torch
from spread import quartiles

from edge.artifact import ActionSpec, PolicySpec
from edge.conditions import Conditions
from edge.report import table
from tfqrl.actorq.actor import SPANS, Actor
from tfqrl.actorq.messages import Assignment, Push
from tfqrl.actorq.options import RECIPES
from tfqrl.actorq.publisher import Publisher
from tfqrl.actorq.stopwatch import Stopwatch
from tfqrl.envs import spec_of
from tfqrl.exploration import AddedNoise
from tfqrl.networks import mlp

TASKS = ("dmc:cartpole-balance", "dmc:walker-stand", "dmc:cheetah-run")
NETWORKS = ((256, 256), (512, 512, 512), (2048, 2048, 2048))
PUSH_EVERY, MESSAGES = 30, 10
PACKAGES = ("tfqrl", "ai-edge-litert", "torch", "dm-control", "mujoco", "numpy")


class Pushed:
    """A link that has nothing but policies.

    Attributes:
      payloads: bytes of some, which take turns.
      in_place: they may be written over each other.
    """

    def __init__(self, payloads: list[Any], spec: PolicySpec, in_place: bool) -> None:
        self.payloads, self._spec, self.in_place, self._pushes = payloads, spec, in_place, 0

    def push(self) -> Push:
        """The next one."""
        self._pushes += 1
        return Push(
            self.payloads[self._pushes % len(self.payloads)], self._spec, self._pushes, AddedNoise(0.1), self.in_place
        )

    def pull(self, push: Push) -> Any:
        """Out of what stands for the object store, which is memory that processes share."""
        return push.flatbuffer


class TorchPolicy:
    """A network for `tfqrl.exploration`."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def __call__(self, observation: Any) -> Any:
        """Outputs for (batch, ...) observations."""
        with torch.no_grad():
            return self._model(torch.from_numpy(observation)).numpy()


class TorchActor(Actor):
    """The same with an eager PyTorch policy."""

    def __init__(self, assignment: Assignment, model: torch.nn.Module, **options: Any) -> None:
        super().__init__(assignment, **options)
        self._model, self._policy = model, TorchPolicy(model)

    def _take(self, link: Any, push: Push) -> None:
        payload = link.pull(push)
        self._watch.lap("pull")
        self._model.load_state_dict(torch.load(io.BytesIO(payload.tobytes()), weights_only=False))
        self._policy.explorer, self._policy.updates = push.explorer, push.updates
        self._watch.lap("load")


def torch_model(sizes: tuple[int, ...], seed: int, *, quantized: bool) -> torch.nn.Module:
    """A policy of these widths, inputs and outputs included."""
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1], torch.nn.Tanh()).eval()
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8) if quantized else model


def contenders(task: str, hidden: tuple[int, ...], folder: Path) -> dict[str, tuple[Actor, Pushed]]:
    """By name, an actor and what it is pushed."""
    spec = spec_of(task)
    inputs, outputs = spec.observation.shape[0], spec.action.shape[0]
    unbounded = (None,) * outputs
    acting = PolicySpec(spec.observation, ActionSpec((outputs,), unbounded, unbounded), None, None)

    def assignment(name: str) -> Assignment:
        return Assignment(0, 1, task, None, 0, False, str(folder / f"{name}-{task}-{len(hidden)}"))

    options = {"successor": 0, "gamma": 0.99, "n_step": 5, "push_every": PUSH_EVERY}
    found: dict[str, tuple[Actor, Pushed]] = {}
    for precision in RECIPES:
        networks = [
            mlp(inputs, hidden, outputs, activation="relu", output_activation="tanh", seed=seed) for seed in range(2)
        ]
        publisher = Publisher(networks[0], spec.observation, None, precision, acts=PUSH_EVERY, put=np.copy)
        watch, explorer = Stopwatch("quantise", "push"), AddedNoise(0.1)
        payloads = [
            publisher.publish(network.get_weights(), None, updates=0, explorer=explorer, watch=watch).flatbuffer
            for network in networks
        ]
        found[precision] = Actor(assignment(precision), **options), Pushed(payloads, acting, publisher.in_place)
    for name, quantized in (("torch float32", False), ("torch int8", True)):
        payloads = []
        for seed in range(2):
            file = io.BytesIO()
            torch.save(torch_model((inputs, *hidden, outputs), seed, quantized=quantized).state_dict(), file)
            payloads.append(np.frombuffer(file.getvalue(), np.uint8))
        model = torch_model((inputs, *hidden, outputs), 0, quantized=quantized)
        found[name] = TorchActor(assignment(name), model, **options), Pushed(payloads, acting, False)
    for actor, link in found.values():
        actor._observation, actor._watch, actor._life = actor._env.reset().copy(), Stopwatch(*SPANS), 0
        actor._take(link, link.push())
    return found


def measured(task: str, hidden: tuple[int, ...], rounds: int, folder: Path) -> dict[str, Any]:
    """The rows of one task and network."""
    actors = contenders(task, hidden, folder)
    rates: dict[str, list[float]] = {name: [] for name in actors}
    for turn in range(rounds + 1):
        for name, (actor, link) in actors.items():
            if turn == 1:  # the first round was to warm up
                actor._watch = Stopwatch(*SPANS)
            actor._watch.lap("wait")
            began_s = time.perf_counter()
            for _ in range(MESSAGES):
                actor._collect(random=False)
                actor._take(link, link.push())
            rates[name].append(MESSAGES * PUSH_EVERY / (time.perf_counter() - began_s))
    rows = []
    for name, (actor, link) in actors.items():
        spans = {span: seconds for span, seconds in actor._watch.spans.items() if span not in ("wait", "insert")}
        steps = rounds * MESSAGES * PUSH_EVERY
        rows.append(
            {
                "actor": name,
                "push_bytes": len(link.payloads[0]),
                "in_place": link.in_place,
                "steps_per_s": quartiles(rates[name][1:]),
                "us_per_step": {span: seconds / steps * 1e6 for span, seconds in spans.items()},
            }
        )
        actor._env.close()
    ratios = {}
    for over in ("float32", "torch float32", "torch int8"):
        ratios[over] = quartiles(np.array(rates["int8"][1:]) / np.array(rates[over][1:]))
    return {"task": task, "hidden": list(hidden), "actors": rows, "int8_over": ratios}


def main() -> None:
    """Measure, print the tables, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="blocks of 300 steps of each, in turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # PyTorch's, about the successor of quantize_dynamic
    torch.set_num_threads(1)
    conditions = Conditions.now()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            for hidden in NETWORKS:
                results.append(result := measured(task, hidden, arguments.rounds, Path(folder)))
                print(f"\n{task}, {'-'.join(map(str, hidden))}")
                print(text(result))
    if arguments.json is not None:
        record = {
            "command": f"python benchmarks/actorq_actors.py --rounds {arguments.rounds}",
            "commit": provenance.commit(),
            "push_every": PUSH_EVERY,
            "conditions": vars(conditions),
            "versions": {package: version(package) for package in PACKAGES},
            "results": results,
        }
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def text(result: dict[str, Any]) -> str:
    """A table of one task and network."""
    spans = list(result["actors"][0]["us_per_step"])
    header = ["actor", "steps/s", "p25..p75", *(f"{span} us" for span in spans), "pull + load"]
    rows = []
    for row in result["actors"]:
        rate, us = row["steps_per_s"], row["us_per_step"]
        share = (us["pull"] + us["load"]) / sum(us.values())
        rows.append(
            [
                row["actor"] + ", in place" * row["in_place"],
                f"{rate['median']:.0f}",
                f"{rate['p25']:.0f}..{rate['p75']:.0f}",
                *(f"{us[span]:.1f}" for span in spans),
                f"{share:.1%}",
            ]
        )
    over = ", ".join(f"{ratio['median']:.2f} of {name}" for name, ratio in result["int8_over"].items())
    return f"{table(header, rows)}\nint8 makes {over}"


if __name__ == "__main__":
    main()
