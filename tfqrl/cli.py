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

from edge import artifact, signature
from edge.errors import UnknownNameError, UsageError, UserError
from edge.files import check_writable, write_atomically
from tfqrl import convert_command, evaluate_command, import_command
from tfqrl.deploy import Options, deploy, rollback
from tfqrl.device import Device
from tfqrl.options import import_tensorflow, optional, parse
from tfqrl.signals import Interrupted, StopRequest

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


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class DeployCommand:
    """Bring a policy to a device by ssh: install tfqrl there if need be, copy, verify, and make it current.

    Doing it again changes nothing that is as it should be. See docs/deploy.md.

    Example: tfqrl deploy policy.tflite pi@raspberrypi --bench

    Example: tfqrl deploy policy.tflite pi@raspberrypi --extras serial --service --run-options
    "--plant serial --port /dev/ttyACM0 --failsafe zero"

    Attributes:
      policy: the policy file.
      host: the device as ssh takes it.
      config: what is wanted beyond having the policy there.
      rollback: only make the version before the current one current again.
      ssh: the ssh command, with options if need be, such as "ssh -p 2222".
    """

    policy: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="POLICY.tflite")]
    host: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="HOST")]
    config: Options = dataclasses.field(default_factory=Options)
    rollback: bool = False
    ssh: Annotated[str, tyro.conf.arg(metavar="COMMAND")] = "ssh"


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class SignCommand:
    """Sign a policy file, in place of any signature that it has. Devices check it with `tfqrl-edge verify --trust`.

    Example: tfqrl sign policy.tflite --key ~/keys/maker

    Attributes:
      policy: the policy file.
      key: the private key.
      out: the file to write (default: the policy file itself).
      force: replace another file.
    """

    policy: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="POLICY.tflite")]
    key: Annotated[Path, tyro.conf.arg(metavar="KEY")]
    out: Annotated[Path | None, optional("POLICY.tflite")] = None
    force: bool = False


@dataclasses.dataclass(frozen=True)
class SignKeyCommand:
    """Make a pair of Ed25519 keys: KEY signs and stays secret, KEY.pub goes to the devices.

    Example: tfqrl sign-key ~/keys/maker

    Attributes:
      key: file of the private key; nothing is replaced.
    """

    key: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="KEY")]


@dataclasses.dataclass(frozen=True)
class DemoCommand:
    """Train, convert, verify, run in real time and measure, on one small task, with a report.

    Attributes:
      out: folder for the run, the policies and report.html; what is there is replaced.
      seed: seed of the training.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("demo")
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class HilServeCommand:
    """Simulate an environment for a policy that runs on another computer, one at a time, until Ctrl-C.

    Each action steps the simulation once, so that returns are those of `tfqrl-edge run --plant gym`; with --realtime it
    steps at its own rate. The other end: tfqrl-edge run POLICY --plant hil --connect tcp://HOST:PORT.

    Example: tfqrl hil-serve --env InvertedDoublePendulum-v5 --bind tcp://192.168.1.20:5757

    Attributes:
      env: the environment.
      bind: where to listen; only this computer can connect by default, and port * leaves the choice to the system.
      keys: folder of keys, from `tfqrl hil-keys`. Each public key in it (NAME.key) is let in.
      seed: of the first episode of each client.
      realtime: step at the environment's own rate, with the newest action.
      rate: steps per second, with --realtime (default: the environment's own).
      json: write a report to this file at the end.
    """

    env: Annotated[str, tyro.conf.arg(metavar="ENV")]
    bind: Annotated[str, tyro.conf.arg(metavar="tcp://HOST:PORT")] = "tcp://127.0.0.1:5757"
    keys: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("hil-keys")
    seed: int = 0
    realtime: bool = False
    rate: Annotated[float | None, optional("HZ")] = None
    json: Annotated[Path | None, optional("FILE.json")] = None


@dataclasses.dataclass(frozen=True)
class HilKeysCommand:
    """Make CURVE key pairs for a server of hardware in the loop and its client.

    Example: tfqrl hil-keys hil-keys

    Attributes:
      folder: where to put them.
      force: replace those that are there; devices that have them are then no longer let in.
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="[FOLDER]")] = Path("hil-keys")
    force: bool = False


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
        "deploy": _deploy,
        "sign": _sign,
        "sign-key": _sign_key,
        "demo": _demo,
        "hil-serve": _hil_serve,
        "hil-keys": _hil_keys,
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
        envs.make_for_training(config.env).close()
        run = Run.create(path, name, config)
    else:
        _check_unchanged(default.config, config, ("steps", "target_return"))
        run = saved.reconfigured(config)
    algorithm.train(run)
    print(f"Trained: {run.path}. Convert it with: tfqrl convert {run.path} --recipe int8 --out policy.tflite")
    return 0


def _deploy(words: list[str]) -> int:
    # Options as the value of an option: joined to it, or each would be taken for one of this command.
    if "--run-options" in words[:-1]:
        at = words.index("--run-options")
        words = [*words[:at], f"--run-options={words[at + 1]}", *words[at + 2 :]]
    command = parse(DeployCommand, "tfqrl deploy", words, None, Options)
    device = Device(command.host, command.ssh)
    if not command.rollback:
        deploy(command.policy, device, command.config)
    elif command.config == Options():
        rollback(command.policy, device)
    else:
        raise UsageError(
            "--rollback goes alone, besides --ssh: it deploys nothing, and bench and service are as before."
        )
    return 0


def _sign(words: list[str]) -> int:
    command = parse(SignCommand, "tfqrl sign", words)
    out = command.out or command.policy
    if out.exists() and not command.force and not out.samefile(command.policy):
        raise UsageError(f"{out} exists already. Give another --out, or --force to replace it.")
    data = artifact.contents(command.policy)
    artifact.from_bytes(data, str(command.policy))
    write_atomically(out, signature.sign(data, command.key, str(command.policy)))
    print(f"Signed: {out}.")
    return 0


def _sign_key(words: list[str]) -> int:
    command = parse(SignKeyCommand, "tfqrl sign-key", words)
    public = signature.make_key(command.key)
    print(f"Made {command.key}, which signs and must stay secret, and {public}, which devices trust.")
    return 0


def _demo(words: list[str]) -> int:
    command = parse(DemoCommand, "tfqrl demo", words)
    from tfqrl.demo import demo

    return demo(command.out, command.seed)


def _hil_serve(words: list[str]) -> int:
    command = parse(HilServeCommand, "tfqrl hil-serve", words)
    from tfqrl.hil import serve

    if command.rate is not None and not command.realtime:
        raise UsageError("--rate is for --realtime; else each action steps the simulation once.")
    if command.json is not None:
        check_writable(command.json)
    with StopRequest() as stop:
        serve(
            command.env,
            bind=command.bind,
            keys=command.keys,
            seed=command.seed,
            realtime=command.realtime,
            rate_hz=command.rate,
            json=command.json,
            stop=lambda: stop.requested,
        )
    return 128 + (stop.signal_number or 0)


def _hil_keys(words: list[str]) -> int:
    command = parse(HilKeysCommand, "tfqrl hil-keys", words)
    from tfqrl.hil_keys import make_keys

    folder = command.folder
    files = make_keys(folder, force=command.force)
    print(
        f"Made {', '.join(map(str, files))}.\n"
        "Here, `tfqrl hil-serve` needs server.key_secret and client.key. The device needs the two others; copy them by "
        "a way that nobody else reads:\n"
        f"  ssh DEVICE mkdir -p -m 700 hil-keys\n"
        f"  scp -p {folder}/server.key {folder}/client.key_secret DEVICE:hil-keys/\n"
        f"then remove {folder}/client.key_secret here, unless the policy runs here too."
    )
    return 0


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
