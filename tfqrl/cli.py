"""`tfqrl`: train policies and convert them.

TensorFlow is imported only by the commands that need it, so that `--help` and a mistyped command need not wait for it.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from edge.errors import UnknownNameError, UserError
from tfqrl import (
    actorq_command,
    convert_command,
    deploy_command,
    distill_command,
    evaluate_command,
    hil_command,
    import_command,
    inspect_command,
    sign_command,
    study_command,
    train_command,
    zoo_command,
)
from tfqrl.options import parse
from tfqrl.signals import Interrupted

USAGE = """usage: tfqrl {train,actorq,distill,zoo,import,convert,evaluate,inspect,study,
                     deploy,sign,sign-key,demo,hil-serve,hil-keys} ...

Train control policies with deep reinforcement learning and convert them for small computers.

  tfqrl train ALGORITHM --env ENV --out RUN    train a policy; ALGORITHM: a2c, ppo, dqn, ddpg, td3, sac or d4pg
  tfqrl actorq ALGORITHM --env ENV --out RUN   train it with many actors, which run it in 8 bits
  tfqrl distill TEACHER --out RUN              train a smaller or compressed policy to do what another one does
  tfqrl zoo                                    show what is tuned, for which algorithm and environment
  tfqrl import sb3 MODEL.zip --out RUN         make a run of a policy that was trained elsewhere
  tfqrl convert RUN --out POLICY.tflite        convert it and compare it with the original
  tfqrl evaluate A [B]                         play the same episodes with two policies: are they equivalent?
  tfqrl inspect RUN                            show what compression has left of its weights, layer by layer
  tfqrl study STUDY.yaml --out FOLDER          train and convert a grid of policies: what does compression cost?
  tfqrl deploy POLICY.tflite HOST              bring it to a device by ssh and verify it there
  tfqrl sign POLICY.tflite --key KEY           sign it, for devices that ask for that
  tfqrl sign-key KEY                           make a pair of keys: KEY and KEY.pub
  tfqrl demo                                   all of it on one small task, with a report
  tfqrl hil-serve --env ENV                    simulate for a policy that runs on another computer
  tfqrl hil-keys                               make the keys by which the two know each other

examples:
  tfqrl train ppo --env InvertedDoublePendulum-v5 --steps 500000 --seed 0 --out runs/pendulum
  tfqrl train ppo --out runs/pendulum --resume
  tfqrl actorq d4pg --env dmc:walker-stand --actors 4 --out runs/walker
  tfqrl distill runs/pendulum --compress qat --weight-bits 4 --activation-bits 4 --out runs/pendulum-4
  tfqrl zoo ppo
  tfqrl import sb3 model.zip --vecnormalize stats.pkl --out runs/robot
  tfqrl convert runs/pendulum --recipe int8 --out policy.tflite
  tfqrl convert runs/pendulum --recipe all --out recipes/
  tfqrl evaluate runs/pendulum policy.tflite --episodes 100 --margin 2%
  tfqrl inspect runs/pendulum-4
  tfqrl study studies/quarl-smoke.yaml --out results/quarl-smoke
  tfqrl deploy policy.tflite pi@raspberrypi --bench
  tfqrl hil-serve --env InvertedDoublePendulum-v5 --bind tcp://192.168.1.20:5757

Each command has its own --help. Converted policies are run by `tfqrl-edge`."""


@dataclasses.dataclass(frozen=True)
class DemoCommand:
    """Train, convert, verify, run in real time and measure, on one small task, with a report.

    Example: tfqrl demo --out demo

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
        "train": train_command.main,
        "actorq": actorq_command.main,
        "distill": distill_command.main,
        "zoo": zoo_command.main,
        "convert": convert_command.main,
        "evaluate": evaluate_command.main,
        "inspect": inspect_command.main,
        "study": study_command.main,
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
        print(f"tfqrl: {interruption}; the checkpoint is saved, {interruption.cure}.", file=sys.stderr)
        return 128 + interruption.signal_number
    except MemoryError as error:
        print(
            f"tfqrl: There is not enough memory ({error}). Ask for less: a smaller --replay-size, --num-envs or "
            "--batch-size.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _demo(words: list[str]) -> int:
    command = parse(DemoCommand, "tfqrl demo", words)
    from tfqrl.demo import demo

    return demo(command.out, command.seed)
