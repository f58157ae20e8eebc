"""Bringing a policy to a device: what `tfqrl deploy` does. docs/deploy.md describes the folders and the service.

Each step first looks whether it is done already. Nothing that runs or is current there is touched until what takes its
place is whole and has reproduced its golden pairs on the device itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge import artifact, signature
from edge.bench import BenchReport
from edge.errors import UnknownNameError, UsageError
from edge.files import check_writable, write_atomically
from edge.records import from_plain
from tfqrl import service, wheel
from tfqrl.device import Device, DeviceError
from tfqrl.scripts import BENCH, COPY, INSTALL, PROBE, RESTART, ROLLBACK, SERVICE

OLDEST_PYTHON = (3, 10)


@dataclass(frozen=True)
class Options:
    """What is wanted beyond having the policy there.

    Attributes:
      bench: measure latency, memory and energy there, and fetch the report.
      out: file for that report (default: POLICY.bench.json).
      service: run the policy from now on as a systemd service; needs root there (sudo without password).
      run_options: options of `tfqrl-edge run` for the service.
      extras: extras of tfqrl to install there, such as serial.
      trust: public keys; the policy must be signed by one of them, and the device asks for that from then on.
    """

    bench: bool = False
    out: Path | None = None
    service: bool = False
    run_options: str = ""
    extras: tuple[str, ...] = ()
    trust: tuple[Path, ...] = ()


def deploy(policy: Path, device: Device, options: Options, say: Callable[[str], None] = print) -> None:
    """Bring a policy to a device, or see that it is there; `say` is given a line for each step.

    Raises:
      ArtifactError: the file is not a policy, or not signed by whom it should be.
      DeviceError: the device cannot be reached, lacks something, or refuses the policy.
      UsageError: options that cannot be.
    """
    words = _words(options.run_options)
    if words and not options.service:
        raise UsageError("--run-options are what the service runs with: add --service.")
    out = options.out or policy.with_suffix(".bench.json")
    if options.bench:
        check_writable(out)
    manifest = artifact.read(policy, trust=options.trust or None).manifest
    data = policy.read_bytes()
    name, version = slug(manifest.name), hashlib.sha256(data).hexdigest()[:12]
    facts = _probe(device)
    _install(device, facts, options, say)

    files = {"policy.tflite": data}
    if options.trust:
        files["trusted.pub"] = signature.public_pem(options.trust)
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()
    verified, *_, state, signed = device.run(COPY, name, version, digest, data=_tar(files)).splitlines()
    say(verified)
    say(f"{name} {version} is {'current' if state == 'switched' else 'already there'}.")

    if options.bench:
        say("Measuring there, which takes minutes where there is a meter of power ...")
        report = device.run(BENCH, name)
        try:
            from_plain(BenchReport, json.loads(report), "report")
        except (ValueError, UnknownNameError) as error:
            raise DeviceError(f"{device.host} sent a report that this tfqrl cannot read: {error}") from error
        write_atomically(out, report.encode())
        say(f"Measured there: {out}.")
    path = f"{facts['home']}/.local/share/tfqrl"
    command = [f"{path}/venv/bin/tfqrl-edge", "run", f"{path}/policies/{name}/current/policy.tflite"]
    if signed == "signed":
        command += ["--trust", f"{path}/policies/{name}/trusted.pub", "--require-signature"]
    if options.service:
        text = service.unit(
            name,
            [*command, *words],
            user=facts["user"],
            groups=facts["groups"].split(),
            rate_hz=manifest.spec.control_rate_hz,
        )
        say(f"tfqrl-{name}.service is {device.run(SERVICE, name, data=text.encode()).strip()}.")
    else:
        _restart(device, name, say)
        # -t, or Ctrl-C would end ssh here and leave the loop running there.
        say(f"Run it with: ssh -t {device.host} {shlex.quote(shlex.join(command))}")


def rollback(policy: Path, device: Device, say: Callable[[str], None] = print) -> None:
    """Make the version before the current one current again; twice is back where it was.

    Args:
      policy: any version of the policy; it is read for its name.
      device: where.
      say: is given a line for each step.

    Raises:
      DeviceError: there is no version before, or it is refused.
    """
    name = slug(artifact.read(policy).manifest.name)
    verified, *_, version = device.run(ROLLBACK, name).splitlines()
    say(verified)
    say(f"{name} {version} is current again.")
    _restart(device, name, say)


def slug(name: str) -> str:
    """A policy's name in letters that folders and systemd units may have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64] or "policy"


def _words(run_options: str) -> list[str]:
    try:
        return shlex.split(run_options)
    except ValueError as error:
        raise UsageError(f"--run-options cannot be read: {error}; they were given as {run_options!r}.") from error


def _probe(device: Device) -> dict[str, str]:
    """What the device is and has, by name; `groups` with spaces between them."""
    facts = {"groups": ""}
    for line in device.run(PROBE).splitlines():
        key, _, value = line.partition(" ")
        if key == "group":
            facts["groups"] += f"{value} "
        else:
            facts[key] = value
    if facts["system"] != "Linux":
        raise DeviceError(f"{device.host} runs {facts['system']}; policies are deployed to Linux.")
    if not facts["python"]:
        raise DeviceError(f"{device.host} has no python3. Install it there: sudo apt install python3 python3-venv.")
    if _numbers(facts["python"]) < OLDEST_PYTHON:
        raise DeviceError(
            f"{device.host} has Python {facts['python']}; tfqrl needs 3.10 or newer. Install a newer system there."
        )
    if not facts["venv"]:
        raise DeviceError(
            f"Python on {device.host} has no venv module. Install it there: sudo apt install python3-venv."
        )
    return facts


def _install(device: Device, facts: dict[str, str], options: Options, say: Callable[[str], None]) -> None:
    """Install tfqrl if it is missing there, older, or lacks extras."""
    here = wheel.build()
    identity = f"{here.version}-{here.sha256[:12]}"
    installed = facts["installed"]
    for extra in options.extras:
        if extra not in here.extras:
            raise UnknownNameError("extra", extra, here.extras)
    present = set(filter(None, facts["extras"].split(",")))
    extras = present | set(options.extras) | ({"sign"} if options.trust else set())
    newer = bool(installed) and _numbers(installed.rpartition("-")[0]) > _numbers(here.version)
    if (newer or installed == identity) and extras == present:
        say(f"tfqrl {installed} is already there{', newer than here' if newer else ''}.")
        return
    say(f"Installing tfqrl {installed if newer else identity}{f' with {sorted(extras)}' if extras else ''} ...")
    device.run(
        INSTALL, installed if newer else identity, ",".join(sorted(extras)), here.name, here.sha256, data=here.data
    )


def _restart(device: Device, name: str, say: Callable[[str], None]) -> None:
    if state := device.run(RESTART, name).strip():
        say(f"tfqrl-{name}.service was restarted and is {state}.")


def _tar(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
