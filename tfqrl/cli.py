"""`tfqrl`: train policies and convert them.

TensorFlow is imported only by the commands that need it, so that `--help` and a mistyped command need not wait for it.
"""

from __future__ import annotations

import dataclasses
import itertools
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from edge.errors import UnknownNameError, UsageError, UserError
from tfqrl import convert_command, deploy_command, evaluate_command, hil_command, import_command, sign_command
from tfqrl.options import import_tensorflow, optional, parse
from tfqrl.signals import Interrupted

USAGE = """usage: tfqrl {train,import,convert,evaluate,deploy,sign,sign-key,demo,hil-serve,hil-keys} ...

Train control policies with deep reinforcement learning and convert them for small computers.

  tfqrl train ALGORITHM --env ENV --out RUN    train a policy; ALGORITHM is ppo
  tfqrl import sb3 MODEL.zip --out RUN         make a run of a policy that was trained elsewhere
  tfqrl convert RUN --out POLICY.tflite        convert it and compare it with the original
  tfqrl evaluate A [B]                         play the same episodes with two policies: are they equivalent?
  tfqrl deploy POLICY.tflite HOST              bring it to a device by ssh and verify it there
  tfqrl sign POLICY.tflite --key KEY           sign it, for devices that ask for that
  tfqrl sign-key KEY                           make a pair of keys: KEY and KEY.pub
  tfqrl demo                                   all of it on one small task, with a report
  tfqrl hil-serve --env ENV                    simulate for a policy that runs on another computer
  tfqrl hil-keys                               make the keys by which the two know each other

examples:
  tfqrl train ppo --env InvertedDoublePendulum-v5 --steps 500000 --seed 0 --out runs/pendulum
  tfqrl train ppo --out runs/pendulum --resume
  tfqrl import sb3 model.zip --vecnormalize stats.pkl --out runs/robot
  tfqrl convert runs/pendulum --recipe int8 --out policy.tflite
  tfqrl convert runs/pendulum --recipe all --out recipes/
  tfqrl evaluate runs/pendulum policy.tflite --episodes 100 --margin 2%
  tfqrl deploy policy.tflite pi@raspberrypi --bench
  tfqrl hil-serve --env InvertedDoublePendulum-v5 --bind tcp://192.168.1.20:5757

Each command has its own --help. Converted policies are run by `tfqrl-edge`."""

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class TrainCommand(Generic[Config]):
    """Train a policy into a run folder, from which it can be resumed and converted.

    Example: tfqrl train ppo --env HalfCheetah-v5 --steps 1000000 --seed 0 --out runs/cheetah

    Attributes:
      config: the algorithm's own options.
      out: folder of the run (default: runs/ALGORITHM-ENV-SEED).
      resume: go on from the run's last checkpoint, with the run's own options; --steps may be raised.
    """

    config: Config
    out: Annotated[Path | None, optional("RUN")] = None
    resume: bool = False


@dataclasses.dataclass(frozen=True)
class DemoCommand:
    """Train, convert, verify, run in real time and measure, on one small task, with a report.

    Attributes:
      out: folder for the run, the policies and report.html; what is there is replaced.
      seed: seed of the training.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("demo")
    seed: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: it cannot be done. 2: the command is wrong. 130: Ctrl-C. 143: SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "train": _train,
        "convert": convert_command.main,
        "evaluate": evaluate_command.main,
        "import": import_command.main,
        "deploy": deploy_command.main,
        "sign": sign_command.sign,
        "sign-key": sign_command.sign_key,
        "demo": _demo,
        "hil-serve": hil_command.serve,
        "hil-keys": hil_command.keys,
    }
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    try:
        if words[0] not in commands:
            raise UnknownNameError("command", words[0], commands)
        return commands[words[0]](words[1:])
    except UserError as error:
        print(f"tfqrl: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as interruption:
        print(f"tfqrl: {interruption}; the checkpoint is saved, go on with --resume.", file=sys.stderr)
        return 128 + interruption.signal_number
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _train(words: list[str]) -> int:
    import_tensorflow()
    from tfqrl import agents, envs
    from tfqrl.runs import Run

    if not words or words[0].startswith("-"):
        raise UsageError(f"Name an algorithm: tfqrl train {{{','.join(agents.TRAINABLE)}}} --env ENV --out RUN.")
    name, words = words[0], words[1:]
    agents.check_trainable(name)
    algorithm = agents.get(name)
    command_type: Any = TrainCommand[algorithm.config]  # type: ignore[name-defined]
    default = None
    if "--resume" in words:
        saved = _saved_run(words, name)
        default = TrainCommand(agents.config_of(saved), saved.path, True)
    command = parse(command_type, f"tfqrl train {name}", words, default, algorithm.config)
    config = command.config
    if default is None:
        path = command.out or Path("runs") / f"{name}-{config.env}-{config.seed}"
        envs.make(config.env).close()
        run = Run.create(path, name, config)
    else:
        _check_unchanged(default.config, config, ("steps", "target_return"))
        run = saved.reconfigured(config)
    algorithm.train(run)
    print(f"Trained: {run.path}. Convert it with: tfqrl convert {run.path} --recipe int8 --out policy.tflite")
    return 0


def _demo(words: list[str]) -> int:
    command = parse(DemoCommand, "tfqrl demo", words)
    from tfqrl.demo import demo

    return demo(command.out, command.seed)


def _saved_run(words: list[str], algorithm: str) -> Any:
    from tfqrl import agents
    from tfqrl.runs import Run

    out = [b for a, b in itertools.pairwise(words) if a == "--out"] + [w[6:] for w in words if w.startswith("--out=")]
    if not out:
        raise UsageError("--resume needs the run's folder: --out RUN.")
    run = Run.open(out[-1])
    agents.check_trainable(run.algorithm)
    if run.algorithm != algorithm:
        raise UsageError(f"{run.path} is a run of {run.algorithm}: resume it with `tfqrl train {run.algorithm}`.")
    return run


def _check_unchanged(saved: Any, given: Any, free: Sequence[str]) -> None:
    for field in dataclasses.fields(saved):
        before, now = getattr(saved, field.name), getattr(given, field.name)
        if field.name not in free and before != now:
            raise UsageError(
                f"The run was trained with {field.name} {before}; --resume keeps a run's options, so it cannot become "
                f"{now}. Only {' and '.join(free)} may change. Begin a new run with another --out."
            )
