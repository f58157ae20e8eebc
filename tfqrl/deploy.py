"""Bringing a policy to a device: what `tfqrl deploy` does. docs/deploy.md describes the folders and the service.

Each step first looks whether it is done already. Nothing that runs or is current there is touched until what takes its
place is whole and has reproduced its golden pairs on the device itself.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import shlex
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import UseAppendAction, arg

from edge import artifact, cli, signature
from edge.bench import BenchReport
from edge.errors import UnknownNameError, UsageError
from edge.files import check_writable, write_atomically
from edge.records import from_plain
from tfqrl import service, wheel
from tfqrl.device import Device, DeviceError
from tfqrl.options import optional
from tfqrl.scripts import BENCH, COPY, INSTALL, PROBE, RESTART, ROLLBACK, SERVICE

OLDEST_PYTHON = (3, 10)
# From here on lgpio has no wheels, and comes from the distribution (see setup.py).
PYTHON_WITHOUT_LGPIO = (3, 13)

# Where the plant is not known, one that many have.
EXAMPLE = "--plant serial --port /dev/ttyACM0 --failsafe zero"


@dataclass(frozen=True)
class Options:
    """What is wanted beyond having the policy there.

    Attributes:
      bench: measure latency, memory and energy there, and fetch the report.
      json: file for that report (default: POLICY.bench.json).
      service: run the policy from now on as a systemd service; needs root there (sudo without password).
      run_options: options of `tfqrl-edge run` for the service, the plant among them.
      extras: an extra of tfqrl to install there, such as serial.
      trust: public keys; the policy must be signed by one of them, and the device asks for that from then on.
    """

    bench: bool = False
    json: Annotated[Path | None, optional("FILE.json")] = None
    service: bool = False
    run_options: Annotated[str | None, optional('"OPTIONS"')] = None
    extras: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="EXTRA")] = ()
    trust: Annotated[UseAppendAction[tuple[Path, ...]], arg(metavar="KEY.pub")] = ()


def deploy(policy: Path, device: Device, options: Options, say: Callable[[str], None] = print) -> None:
    """Bring a policy to a device, or see that it is there; `say` is given a line for each step.

    Raises:
      ArtifactError: the file is not a policy, or not signed by whom it should be.
      DeviceError: the device cannot be reached, lacks something, or refuses the policy.
      UsageError: options that cannot be.
    """
    if options.run_options is not None and not options.service:
        raise UsageError("--run-options are what the service runs with: add --service.")
    words = _words(options.run_options or "") if options.service else None
    report = options.json or policy.with_suffix(".bench.json")
    if options.bench:
        check_writable(report)
    data = artifact.contents(policy, trust=options.trust or None)
    manifest = artifact.from_bytes(data, str(policy)).manifest
    name = slug(manifest.name)
    facts = _probe(device, name)
    if words is None and facts["unit"]:
        # The service that is there goes on with its options; its command is another once policies have to be signed.
        if not facts["options"]:
            raise DeviceError(
                f"{device.host} has a tfqrl-{name}.service of which it is not known how it was made: add --service."
            )
        words = _words(facts["options"])
    _install(device, facts, options, say)

    files = {"policy.tflite": data}
    if options.trust:
        files["trusted.pub"] = signature.public_pem(options.trust)
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()
    verified, *_, version, state, signed = device.run(COPY, name, digest, data=_tar(files)).splitlines()
    say(verified)
    say(f"{name} {version} is {'current' if state == 'switched' else 'already there'}.")

    if options.bench:
        say("Measuring there, which takes minutes where there is a meter of power ...")
        text = device.run(BENCH, name)
        try:
            from_plain(BenchReport, json.loads(text), "report")
        except (ValueError, UnknownNameError) as error:
            raise DeviceError(f"{device.host} sent a report that this tfqrl cannot read: {error}") from error
        write_atomically(report, text.encode())
        say(f"Measured there: {report}.")
    path = f"{facts['home']}/.local/share/tfqrl"
    current = f"{path}/policies/{name}/current"
    command = [f"{path}/venv/bin/tfqrl-edge", "run", f"{current}/policy.tflite"]
    if signed == "signed":
        command += ["--trust", f"{current}/trusted.pub", "--require-signature"]
    if words is None:
        # -t, or Ctrl-C would end ssh here and leave the loop running there.
        say(f"Run it with: ssh -t {device.host} {shlex.quote(shlex.join([*command, *shlex.split(EXAMPLE)]))}")
        return
    given = _parsed(words)
    rate_hz = given.rate or manifest.spec.control_rate_hz
    break_off_s = 0.0
    if given.max_block and given.stop_after and rate_hz:
        break_off_s = given.max_block + 2 * given.stop_after / rate_hz
    unit = service.unit(
        name,
        command,
        words,
        user=facts["user"],
        groups=facts["groups"].split(),
        rate_hz=rate_hz,
        break_off_s=break_off_s,
        edgetpu=given.device.startswith("edgetpu"),
    )
    _say_started(device.run(SERVICE, name, "yes" if options.service else "no", data=unit.encode()), name, say)


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
    verified, *_, version, _, _ = device.run(ROLLBACK, name).splitlines()
    say(verified)
    say(f"{name} {version} is current again.")
    _say_started(device.run(RESTART, name), name, say)


def slug(name: str) -> str:
    """A policy's name in letters that folders and systemd units may have; no two names have the same."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64]
    if plain == name:
        return name
    return f"{plain[:55] or 'policy'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _words(run_options: str) -> list[str]:
    """Options of the service as words, once `tfqrl-edge run` would take them."""
    try:
        words = shlex.split(run_options)
    except ValueError as error:
        raise UsageError(f"--run-options cannot be read: {error}; they were given as {run_options!r}.") from error
    _parsed(words)
    if not any(word.partition("=")[0] == "--plant" for word in words):
        raise UsageError(f'A service has to know its plant: --service --run-options "{EXAMPLE}".')
    return words


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return cli.parser().parse_args(["run", "policy.tflite", *words])
    except SystemExit as end:
        reason = said.getvalue().strip().rpartition("error: ")[2] if end.code else "there is a --help in them"
        raise UsageError(f"--run-options cannot be those of `tfqrl-edge run`: {reason}.") from None


def _probe(device: Device, name: str) -> dict[str, str]:
    """What the device is and has, by name; `groups` with spaces between them."""
    facts = {"groups": ""}
    for line in device.run(PROBE, name).splitlines():
        key, _, value = line.partition(" ")
        if key == "group":
            facts["groups"] += f"{value} "
        else:
            facts.setdefault(key, value)
    if facts["system"] != "Linux":
        raise DeviceError(f"{device.host} runs {facts['system']}; policies are deployed to Linux.")
    if not facts["python"]:
        raise DeviceError(f"{device.host} has no python3. Install it there: sudo apt install python3 python3-venv.")
    if _numbers(facts["python"]) < OLDEST_PYTHON:
        raise DeviceError(
            f"{device.host} has Python {facts['python']}; tfqrl needs 3.10 or newer. Install a newer system there."
        )
    if facts["bits"] != "64":
        raise DeviceError(
            f"{device.host} has a {facts['bits']}-bit system, on which pip finds no interpreter of TFLite. Install a "
            "64-bit one there, or see what scripts/benchmark_on_device.sh does."
        )
    if not facts["venv"]:
        raise DeviceError(
            f"Python on {device.host} has no venv module. Install it there: sudo apt install python3-venv."
        )
    return facts


def _install(device: Device, facts: dict[str, str], options: Options, say: Callable[[str], None]) -> None:
    """Install tfqrl if it is missing there, older, or lacks extras; each set of extras in a venv of its own."""
    here = wheel.build()
    for extra in options.extras:
        if extra not in here.extras:
            raise UnknownNameError("extra", extra, here.extras)
    present = set(filter(None, facts["extras"].split(",")))
    extras = sorted(present | set(options.extras) | ({"sign"} if options.trust else set()))
    there = "-".join(facts["installed"].split("-")[:2])
    newer = bool(there) and _numbers(there) > _numbers(here.version)
    identity = there if newer else f"{here.version}-{here.sha256[:12]}"
    venv = "-".join([identity, *extras])
    if venv == facts["installed"]:
        say(f"tfqrl {there} is already there{', newer than here' if newer else ''}.")
        return
    system_packages = ""
    if "gpio" in extras and _numbers(facts["python"]) >= PYTHON_WITHOUT_LGPIO:
        if not facts["lgpio"]:
            raise DeviceError(
                f"Python {facts['python']} on {device.host} has no lgpio, and there is no wheel of it to install. "
                "Install the distribution's there: sudo apt install python3-lgpio."
            )
        system_packages = "--system-site-packages"
    say(f"Installing tfqrl {identity}{f' with {extras}' if extras else ''} ...")
    sent = ("", "", system_packages) if newer else (here.name, here.sha256, system_packages)
    device.run(INSTALL, venv, ",".join(extras), *sent, data=b"" if newer else here.data)


def _say_started(state: str, name: str, say: Callable[[str], None]) -> None:
    if state := state.strip():
        say(
            f"tfqrl-{name}.service is already there."
            if state == "already there"
            else f"tfqrl-{name}.service was started and is {state}."
        )


def _tar(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: 0.1.0rc1 counts as 0.1.0, and is told from it by the wheel's hash."""
    release = re.match(r"[\d.]*", version)
    assert release is not None
    return tuple(int(number) for number in release.group().split(".") if number)
