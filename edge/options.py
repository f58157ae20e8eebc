"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.errors import UsageError
from edge.meters import DEFAULT_CPU_WATTS


def add_threads_and_device(command: argparse.ArgumentParser) -> None:
    """--threads and --device of one interpreter."""
    command.add_argument("--threads", type=int, default=1, help="interpreter threads (default: %(default)s)")
    add_device(command)


def add_device(command: argparse.ArgumentParser) -> None:
    """--device."""
    text = "cpu, edgetpu, edgetpu:usb:N or edgetpu:pci:N (default: %(default)s)"
    command.add_argument("--device", default="cpu", metavar="DEVICE", help=text)


def add_meter(command: argparse.ArgumentParser) -> None:
    """What is to be known about energy."""
    command.add_argument(
        "--meter",
        default="auto",
        metavar="NAME",
        help="auto (the best that is here), none, estimate, hwmon, hwmon:CHIP (such as hwmon:ina219), rapl or pmic "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--cpu-watts",
        type=float,
        default=DEFAULT_CPU_WATTS,
        help="power per busy core to assume for the energy estimate where there is no meter (default: %(default)s)",
    )
    command.add_argument(
        "--pmic-correction",
        action="store_true",
        help="Raspberry Pi 5: correct the sum of the rails by the line that others fitted to a meter at the plug",
    )


def add_trust(command: argparse.ArgumentParser) -> None:
    """--trust and --require-signature."""
    signed = command.add_argument_group("signature", "checked before anything in the file is parsed")
    signed.add_argument(
        "--trust",
        type=Path,
        action="append",
        metavar="KEY.pub",
        help="the file must be signed by a key in this one; may be given several times",
    )
    signed.add_argument(
        "--require-signature",
        action="store_true",
        help="do nothing without a --trust: for scripts from which it must not get lost",
    )


def trust(options: argparse.Namespace) -> list[Path] | None:
    """The keys to be trusted; None if signatures are not asked for.

    Raises:
      UsageError: a signature is required, and no key is named.
    """
    if options.require_signature and not options.trust:
        raise UsageError("--require-signature needs to know whose: add --trust KEY.pub.")
    keys: list[Path] | None = options.trust
    return keys


def integers(option: str, text: str) -> list[int]:
    """Numbers separated by commas.

    Raises:
      UsageError: they are not.
    """
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} takes numbers separated by commas; it was given {text!r}.") from None
