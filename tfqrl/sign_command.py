"""`tfqrl sign` and `tfqrl sign-key`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from edge import artifact, signature
from edge.errors import UsageError
from edge.files import write_atomically
from tfqrl.options import optional, parse


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


def sign(words: list[str]) -> int:
    """Run `tfqrl sign`; returns the exit code."""
    command = parse(SignCommand, "tfqrl sign", words)
    out = command.out or command.policy
    if out.exists() and not command.force and not out.samefile(command.policy):
        raise UsageError(f"{out} exists already. Give another --out, or --force to replace it.")
    data = artifact.contents(command.policy)
    artifact.from_bytes(data, str(command.policy))
    write_atomically(out, signature.sign(data, command.key, str(command.policy)))
    print(f"Signed: {out}.")
    return 0


def sign_key(words: list[str]) -> int:
    """Run `tfqrl sign-key`; returns the exit code."""
    command = parse(SignKeyCommand, "tfqrl sign-key", words)
    public = signature.make_key(command.key)
    print(f"Made {command.key}, which signs and must stay secret, and {public}, which devices trust.")
    return 0
