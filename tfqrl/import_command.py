"""`tfqrl import`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from edge.errors import UnknownNameError, UsageError
from edge.files import check_writable
from tfqrl.options import import_tensorflow, parse

if TYPE_CHECKING:
    from converters.sources import ForeignPolicy
    from converters.sources.layers import Layer

USAGE = """usage: tfqrl import {sb3} FILE --out RUN ...

Make a run of a policy that was trained elsewhere: it converts and deploys like one that was trained here. Files are
read without running anything that is in them, and without what wrote them being installed. See docs/import.md.

  tfqrl import sb3 MODEL.zip --out RUN         a model of Stable-Baselines3

examples:
  tfqrl import sb3 model.zip --out runs/robot
  tfqrl import sb3 model.zip --vecnormalize stats.pkl --env HalfCheetah-v5 --out runs/cheetah

Each source has its own --help."""


@dataclasses.dataclass(frozen=True)
class Sb3Command:
    """Make a run of a model that Stable-Baselines3 saved: PPO, A2C, DQN, DDPG, TD3 or SAC with MlpPolicy or CnnPolicy.

    Example: tfqrl import sb3 model.zip --vecnormalize stats.pkl --env HalfCheetah-v5 --out runs/cheetah

    Attributes:
      model: what model.save wrote.
      out: folder of the run.
      vecnormalize: what VecNormalize.save wrote, if the model was trained with that.
      env: the environment that it is for, which must have its spaces; gives the rate of control, and observations and
        returns to `tfqrl convert`.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.zip")]
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    vecnormalize: Annotated[Path | None, tyro.conf.arg(metavar="STATS.pkl")] = None
    env: Annotated[str | None, tyro.conf.arg(metavar="ENV")] = None


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    sources = {"sb3": _sb3}
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    if words[0].startswith("-"):
        raise UsageError(f"Name what is to be imported first: tfqrl import {{{','.join(sources)}}} FILE --out RUN.")
    if words[0] not in sources:
        raise UnknownNameError("source", words[0], sources)
    return sources[words[0]](words[1:])


def _sb3(words: list[str]) -> int:
    command = parse(Sb3Command, "tfqrl import sb3", words)
    check_writable(command.out / "config.json")
    import_tensorflow()
    from converters.sources import sb3

    return _keep(sb3.load(command.model, command.vecnormalize), command.out, command.env)


def _keep(foreign: ForeignPolicy, out: Path, env: str | None) -> int:
    """Make the run of a policy that was read, and say what it is."""
    from tfqrl.agents import imported

    run = imported.create_run(out, foreign, env)
    spec, normalizer = foreign.spec, foreign.spec.normalizer
    normalized = "none"
    if spec.observation.dtype == "uint8":
        normalized = "division by 255"
    elif normalizer is not None:
        normalized = f"mean and deviation{'' if normalizer.clip is None else f', clipped at {normalizer.clip:g}'}"
    observations = "" if env else " --observations OBSERVATIONS.npy"
    print(
        f"Imported: {run.path}\n"
        f"  origin       {', '.join(f'{name} {value}' for name, value in foreign.origin.items())}\n"
        f"  network      {_network_text(imported.describe(foreign.network))}\n"
        f"  observation  {imported.text(spec.observation)}\n"
        f"  normaliser   {normalized}\n"
        f"  action       {imported.text(spec.action)}\n"
        f"  environment  {env or 'not named: give --env, or observations to convert it with'}\n"
        f"Convert it with: tfqrl convert {run.path} --recipe int8 --out policy.tflite{observations}"
    )
    return 0


def _network_text(layers: Iterable[Layer]) -> str:
    return ", ".join(
        " ".join(
            [
                layer.kind if layer.kind != "activation" else "",
                str(layer.units or ""),
                "x".join(map(str, layer.kernel or ())),
                layer.activation if layer.activation != "linear" else "",
            ]
        ).strip()
        for layer in layers
    ).replace("  ", " ")
