"""`tfqrl actorq`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from edge.errors import UsageError
from edge.files import write_atomically
from edge.meters import find_meter
from edge.meters.sampler import Sampler
from edge.records import from_plain, to_json
from tfqrl import zoo
from tfqrl.options import import_tensorflow, optional, parse, value_of
from tfqrl.train_command import DISTRIBUTION, TrainCommand, check_unchanged, prepared

TEXT = """Train a policy with many actors, which run it quantised, and a learner in float32 (ActorQ).

ALGORITHM is a2c, ppo, dqn, ddpg, td3, sac or d4pg. What it gives is a run like any other. Where the time went is
printed at the end and written to RUN/actorq.json. An actor that dies, hangs or sends NaN is replaced; a learner that
dies goes on from its checkpoint.

Example: tfqrl actorq {algorithm} --env {env} --actors 4 --seed 0 --out runs/actorq

Example: tfqrl actorq {algorithm} --out runs/actorq --resume

Example: tfqrl actorq {algorithm} --env {env} --actors 64 --ray auto --out /shared/actorq"""

Config = TypeVar("Config")
Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorQCommand(TrainCommand[Config], Generic[Config, Options]):
    """See TEXT.

    Attributes:
      distribution: how the training is distributed.
      ray: address of a Ray cluster (auto: the one that this machine belongs to); --out must be a folder that its nodes
        share.
      cpu_watts: assumed power of a busy core, for the estimate of energy where this machine has no meter.
      grid_kg_per_kwh: carbon dioxide per energy, for the estimate of emissions: by default the world's electricity in
        2023 (Ember, Global Electricity Review 2024).
    """

    distribution: Options
    ray: Annotated[str | None, optional("ADDRESS")] = None
    cpu_watts: float = 10.0
    grid_kg_per_kwh: float = 0.48


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    if not words or (words[0].startswith("-") and not {"-h", "--help"} & set(words)):
        raise UsageError(f"Name an algorithm: tfqrl actorq {{{','.join(zoo.algorithms())}}} --env ENV --out RUN.")
    import_tensorflow()
    from tfqrl import agents
    from tfqrl.actorq import asynchronous, report, synchronous
    from tfqrl.actorq.options import Distribution, check
    from tfqrl.training.config import OnPolicyConfig, above, are_numbers, at_least

    name, words = ("d4pg", words) if words[0].startswith("-") else (words[0], words[1:])
    agents.check_trainable(name)
    algorithm, program = agents.get(name), f"tfqrl actorq {name}"
    text = TEXT.format(algorithm=name, env=next(iter(zoo.environments(name)), "dmc:walker-stand"))

    def parsed(default: TrainCommand[Any] | None) -> Any:
        if value_of(words, "--compress") is not None:
            raise UsageError(
                "--compress is for `tfqrl train`; actors compute in 8 bits here anyway. Train without it, then: "
                f"tfqrl train {name} --init-from RUN --compress METHOD."
            )
        command_type: Any = ActorQCommand[algorithm.config, Distribution]
        distribution = Distribution()
        if default is not None:
            if default.resume and default.out is not None:
                plain = json.loads((default.out / DISTRIBUTION).read_text())
                distribution = from_plain(Distribution, plain, DISTRIBUTION)
            default = ActorQCommand(default.config, default.out, default.resume, distribution=distribution)
        command = parse(command_type, program, words, default, algorithm.config, Distribution, description=text)
        if command.resume:
            check_unchanged(distribution, command.distribution, ("patience_s",))
        check(command.config, command.distribution)
        if command.config.init_from is not None and not command.resume:
            # The learner may run elsewhere.
            init_from = str(Path(command.config.init_from).resolve())
            command = dataclasses.replace(command, config=dataclasses.replace(command.config, init_from=init_from))
        are_numbers(command)
        above(command, 0, "cpu_watts")
        at_least(command, 0, "grid_kg_per_kwh")
        return command

    run, command = prepared(name, words, program, parsed)
    if run is None:
        return 0
    write_atomically(run.path / DISTRIBUTION, to_json(command.distribution).encode())
    train = synchronous.train if issubclass(algorithm.config, OnPolicyConfig) else asynchronous.train
    # A meter here sees nothing of a cluster's other machines.
    meter = find_meter("auto") if command.ray is None else None
    measures = meter is not None and meter.measured
    with Sampler(meter) if measures else contextlib.nullcontext() as sampler:
        before_j = None
        if measures:
            with contextlib.suppress(OSError):
                before_j = sampler.energy_j()
        training = train(run, command.distribution, command.ray)
        energy = report.energy_used(
            sampler, before_j, training, cpu_watts=command.cpu_watts, grid_kg_per_kwh=command.grid_kg_per_kwh
        )
    made = report.Report.of(run, command.distribution, training, energy)
    write_atomically(run.path / "actorq.json", to_json(made).encode())
    print(report.text(made))
    print(f"Trained: {run.path}. Convert it with: tfqrl convert {run.path} --recipe int8 --out policy.tflite")
    return 0
