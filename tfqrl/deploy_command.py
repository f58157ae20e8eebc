"""`tfqrl deploy`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from edge.errors import UsageError
from tfqrl.deploy import Options, deploy, rollback
from tfqrl.device import Device
from tfqrl.options import parse


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


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
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
