"""Which plant a command means: the table of plants by name, and plants of the user's own."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.artifact import Manifest
from edge.errors import UnknownNameError, UsageError, UserError
from edge.plants import Plant


class ClosingError(UserError):
    """A plant that raises when it is closed: it may not be off."""


@dataclass(frozen=True)
class PlantReport:
    """What a plant can tell after a run.

    Attributes:
      seed: seed of a simulation; None for anything else.
      returns: return of each episode of a simulation that has ended; empty for anything else.
      counts: what the plant has counted, if it does.
    """

    seed: int | None = None
    returns: tuple[float, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A plant, not opened yet.

    Attributes:
      name: what a report calls it.
      plant: the plant.
      simulation: whether it has a `seed` and the `returns` of its episodes.
    """

    name: str
    plant: Any
    simulation: bool = False

    def report(self) -> PlantReport:
        """Ask the plant, after a run."""
        try:
            counts = self.plant.counts() if callable(getattr(self.plant, "counts", None)) else {}
            counts = {str(name): int(count) for name, count in counts.items()}
        except Exception:
            # Code of the user's, and of no weight beside the report.
            counts = {}
        if not self.simulation:
            return PlantReport(counts=counts)
        # A reward of NaN makes a return that JSON cannot hold.
        return PlantReport(self.plant.seed, tuple(r for r in self.plant.returns if math.isfinite(r)), counts)


@dataclass(frozen=True)
class Kind:
    """A way to get a plant from the command line.

    Attributes:
      make: from the options and the policy's manifest.
      needs: options that must be given.
      takes: options that may be given.
    """

    make: Callable[[argparse.Namespace, Manifest], Choice]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all plants. None of them has a default here, so that those of another plant are noticed."""
    group = parser.add_argument_group("plant", "what is driven")
    group.add_argument("--plant", default="gym", metavar=_names(), help="default: %(default)s")
    group.add_argument("--env", help="gym: Gymnasium environment (default: the one that the policy was trained on)")
    group.add_argument("--seed", type=int, help="gym: seed of the environment (default: 0)")
    group.add_argument("--connect", metavar="tcp://HOST:PORT", help="hil: where `tfqrl hil-serve` serves a simulation")
    group.add_argument(
        "--keys",
        type=Path,
        help="hil: folder with server.key and client.key_secret, from `tfqrl hil-keys` (default: hil-keys)",
    )
    group.add_argument("--port", help="serial: the line, such as /dev/ttyUSB0")
    group.add_argument("--baud", type=int, help="serial: bits per second (default: 115200)")
    group.add_argument("--wiring", type=Path, help="gpio: JSON file that says what is connected where")
    group.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="module:Class: an argument for it; a value that is not JSON is a string; may be repeated",
    )


def choose(options: argparse.Namespace, manifest: Manifest) -> Choice:
    """The plant that `--plant` and its options name, for the policy of `manifest`. Nothing is switched on yet.

    Raises:
      UsageError: there is no such plant, it lacks an option or is given another's, or it does not suit the policy.
      UserError: it cannot be made here.
    """
    name = options.plant
    if name not in PLANTS and ":" not in name:
        raise UnknownNameError("plant", name, [*PLANTS, "module:Class"])
    kind = PLANTS.get(name, OWN)
    for other, others in {**PLANTS, "module:Class": OWN}.items():
        for option in (*others.needs, *others.takes):
            if getattr(options, option) is not None and option not in (*kind.needs, *kind.takes):
                raise UsageError(f"--{option} is for --plant {other}; the plant here is {name}.")
    for option in kind.needs:
        if getattr(options, option) is None:
            raise UsageError(f"--plant {name} needs --{option}.")
    return kind.make(options, manifest)


@contextlib.contextmanager
def opened(choice: Choice) -> Iterator[Plant]:
    """The plant, opened; it is closed at the end.

    Raises:
      UserError: it cannot be opened.
      ClosingError: it cannot be closed.
    """
    stack = contextlib.ExitStack()
    try:
        plant = stack.enter_context(choice.plant)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{choice.name} could not be opened: {type(error).__name__}: {error}") from error
    try:
        _check_protocol(plant, f"What __enter__ of {choice.name} returns")
        yield plant
    finally:
        try:
            stack.__exit__(*sys.exc_info())
        except Exception as error:
            raise ClosingError(f"{choice.name} could not be closed: {type(error).__name__}: {error}") from error


def _gym(options: argparse.Namespace, manifest: Manifest) -> Choice:
    from edge.plants.gym import GymPlant

    env = options.env or manifest.training.get("env")
    if not isinstance(env, str):
        raise UsageError(f"{options.policy} names no environment. Give one with --env, or another plant with --plant.")
    if options.seed is not None and options.seed < 0:
        raise UsageError(f"--seed takes 0 or more; it was given {options.seed}.")
    return Choice(env, GymPlant(env, manifest.spec, seed=options.seed or 0), simulation=True)


def _hil(options: argparse.Namespace, manifest: Manifest) -> Choice:
    from edge.plants.hil import HilPlant

    keys = Path("hil-keys") if options.keys is None else options.keys
    return Choice(options.connect, HilPlant(options.connect, manifest.spec, keys=keys), simulation=True)


def _serial(options: argparse.Namespace, manifest: Manifest) -> Choice:
    from edge.plants.serial import SerialPlant

    baud = 115_200 if options.baud is None else options.baud
    if baud < 1:
        raise UsageError(f"--baud takes bits per second, such as 115200; it was given {baud}.")
    return Choice(f"serial {options.port}", SerialPlant(options.port, manifest.spec, baud=baud))


def _gpio(options: argparse.Namespace, manifest: Manifest) -> Choice:
    from edge.plants.gpio import GpioPlant
    from edge.plants.wiring import Wiring

    return Choice(f"gpio {options.wiring}", GpioPlant(Wiring.load(options.wiring), manifest.spec))


def _own(options: argparse.Namespace, manifest: Manifest) -> Choice:
    name = options.plant
    plant_class = _own_class(*name.split(":", 1))
    settings = dict(_setting(text) for text in options.set or ())
    try:
        return Choice(name, plant_class(manifest.spec, **settings))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} could not be made: {type(error).__name__}: {error}") from error


def _own_class(module_name: str, class_name: str) -> type[Any]:
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise UsageError(f"--plant takes {_names()}; it was given {module_name}:{class_name}.")
    # Last, so that a file here cannot take the place of an installed module.
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(f"There is no module {module_name}, neither in {here} nor installed.") from error
        raise UserError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [
            name for name, value in inspect.getmembers(module, inspect.isclass) if value.__module__ == module_name
        ]
        raise UnknownNameError(f"class of {getattr(module, '__file__', module_name)}", class_name, classes)
    _check_protocol(found, f"{module_name}:{class_name}")
    return found


def _check_protocol(plant: Any, name: str) -> None:
    missing = [method for method in PROTOCOL if not callable(getattr(plant, method, None))]
    if missing:
        raise UsageError(f"{name} is no plant: it lacks {', '.join(missing)}. See docs/plants.md.")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier()):
        raise UsageError(f"--set takes NAME=VALUE; it was given {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _names() -> str:
    return "|".join([*PLANTS, "module:Class"])


PROTOCOL = ("reset", "read", "write", "__enter__", "__exit__")
PLANTS = {
    "gym": Kind(_gym, takes=("env", "seed")),
    "hil": Kind(_hil, needs=("connect",), takes=("keys",)),
    "serial": Kind(_serial, needs=("port",), takes=("baud",)),
    "gpio": Kind(_gpio, needs=("wiring",)),
}
OWN = Kind(_own, takes=("set",))
