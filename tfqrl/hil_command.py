"""`tfqrl hil-serve` and `tfqrl hil-keys`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from edge.errors import UsageError
from edge.files import check_writable
from tfqrl.options import optional, parse
from tfqrl.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class HilServeCommand:
    """Simulate an environment for a policy that runs on another computer, one at a time, until Ctrl-C.

    Each action steps the simulation once, so that returns are those of `tfqrl-edge run --plant gym`; with --realtime it
    steps at its own rate. The other end: tfqrl-edge run POLICY --plant hil --connect tcp://HOST:PORT.

    Example: tfqrl hil-serve --env InvertedDoublePendulum-v5 --bind tcp://192.168.1.20:5757

    Attributes:
      env: the environment.
      env_module: Python module to import first, which registers your own environment with Gymnasium.
      bind: where to listen; only this computer can connect by default, and port * leaves the choice to the system.
      keys: folder of keys, from `tfqrl hil-keys`. Each public key in it (NAME.key) is let in.
      seed: of the first episode of each client.
      realtime: step at the environment's own rate, with the newest action.
      rate: steps per second, with --realtime (default: the environment's own).
      json: write a report to this file at the end.
    """

    env: Annotated[str, tyro.conf.arg(metavar="ENV")]
    env_module: Annotated[str | None, optional("MODULE")] = None
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


def serve(words: list[str]) -> int:
    """Run `tfqrl hil-serve`; returns the exit code."""
    command = parse(HilServeCommand, "tfqrl hil-serve", words)
    from tfqrl import envs, hil

    if command.env_module is not None:
        envs.import_module(command.env_module)
    if command.rate is not None and not command.realtime:
        raise UsageError("--rate is for --realtime; else each action steps the simulation once.")
    if command.json is not None:
        check_writable(command.json)
    with StopRequest() as stop:
        hil.serve(
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


def keys(words: list[str]) -> int:
    """Run `tfqrl hil-keys`; returns the exit code."""
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
