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

USAGE = """usage: tfqrl import {sb3,onnx} FILE --out RUN ...

Make a run of a policy that was trained elsewhere: it converts and deploys like one that was trained here. Files are
read without running anything that is in them, and without what wrote them being installed. See docs/import.md.

  tfqrl import sb3 MODEL.zip --out RUN         a model of Stable-Baselines3
  tfqrl import onnx POLICY.onnx --out RUN      a feed-forward graph

examples:
  tfqrl import sb3 model.zip --out runs/robot
  tfqrl import sb3 model.zip --vecnormalize stats.pkl --env HalfCheetah-v5 --out runs/cheetah
  tfqrl import onnx policy.onnx --obs 17 --act 6 --low -1 --high 1 --out runs/arm

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
      env_module: Python module to import first, which registers your own environment with Gymnasium.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.zip")]
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    vecnormalize: Annotated[Path | None, tyro.conf.arg(metavar="STATS.pkl")] = None
    env: Annotated[str | None, tyro.conf.arg(metavar="ENV")] = None
    env_module: Annotated[str | None, tyro.conf.arg(metavar="MODULE")] = None


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class OnnxCommand:
    """Make a run of a feed-forward ONNX graph, from one observation to one action. See docs/import.md.

    The file does not say what the policy reads and gives: name its environment, or say it.

    Example: tfqrl import onnx policy.onnx --env HalfCheetah-v5 --out runs/cheetah

    Example: tfqrl import onnx policy.onnx --obs 17 --act 6 --low -1 --high 1 --rate 50 --out runs/arm

    Example: tfqrl import onnx values.onnx --obs 84 84 4 --frames --act 6 --discrete --out runs/pong

    Attributes:
      model: the file.
      out: folder of the run.
      env: the environment that it is for, instead of the options that follow; gives observations and returns to
        `tfqrl convert`.
      env_module: Python module to import first, which registers your own environment with Gymnasium.
      obs: shape of an observation; of frames height, width and channels, whatever order the graph has.
      act: elements of an action, or choices.
      low: lower bound of an action, one for all elements or one for each.
      high: upper bound.
      discrete: the action is the index of a choice: of the largest output, if the graph does not say.
      frames: observations are bytes, 0 to 255.
      rate: control steps per second that it was trained for.
      output: the graph's output to take, where it has several.
      unit_actions: the graph gives actions in -1 to 1, which are to be scaled to the bounds.
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="POLICY.onnx")]
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    env: Annotated[str | None, tyro.conf.arg(metavar="ENV")] = None
    env_module: Annotated[str | None, tyro.conf.arg(metavar="MODULE")] = None
    obs: Annotated[tuple[int, ...], tyro.conf.arg(metavar="SIZE ...")] = ()
    act: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    low: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X ...")] = (-1.0,)
    high: Annotated[tuple[float, ...], tyro.conf.arg(metavar="X ...")] = (1.0,)
    discrete: bool = False
    frames: bool = False
    rate: Annotated[float | None, tyro.conf.arg(metavar="HZ")] = None
    output: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    unit_actions: bool = False


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    sources = {"sb3": _sb3, "onnx": _onnx}
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

    return _keep(sb3.load(command.model, command.vecnormalize), command.out, command.env, command.env_module)


def _onnx(words: list[str]) -> int:
    command = parse(OnnxCommand, "tfqrl import onnx", words)
    said = dataclasses.replace(command, env=None, env_module=None, output=None, unit_actions=False)
    if command.env is not None and said != OnnxCommand(command.model, command.out):
        raise UsageError("--env says what the policy reads and gives; leave out --obs, --act and what belongs to them.")
    if command.env is None and (not command.obs or command.act is None):
        raise UsageError("Say what the policy reads and gives: --obs SIZE ... and --act N, or --env ENV.")
    check_writable(command.out / "config.json")
    import_tensorflow()
    from converters.sources import onnx
    from converters.sources.spec import policy_spec
    from tfqrl import envs

    if command.env is not None:
        spec = envs.spec_of(command.env, command.env_module)
    else:
        spec = policy_spec(
            command.obs,
            command.act,
            low=command.low,
            high=command.high,
            discrete=command.discrete,
            frames=command.frames,
            control_rate_hz=command.rate,
        )
    foreign = onnx.load(command.model, spec, output=command.output, unit_actions=command.unit_actions)
    return _keep(foreign, command.out, command.env, command.env_module)


def _keep(foreign: ForeignPolicy, out: Path, env: str | None, env_module: str | None) -> int:
    """Make the run of a policy that was read, and say what it is."""
    from tfqrl import envs
    from tfqrl.agents import imported

    run = imported.create_run(out, foreign, env, env_module)
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
        f"  observation  {envs.text(spec.observation)}\n"
        f"  normaliser   {normalized}\n"
        f"  action       {envs.text(spec.action)}\n"
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
