"""`tfqrl convert`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from edge.errors import UsageError
from edge.files import check_writable
from tfqrl.options import import_tensorflow, parse


@dataclasses.dataclass(frozen=True)
class ConvertCommand:
    """Convert a trained policy to a TFLite file and compare it with the original.

    Example: tfqrl convert runs/cheetah --recipe int8 --out cheetah.tflite

    Example: tfqrl convert runs/cheetah --recipe int8-full --target edgetpu --out cheetah.tflite

    Attributes:
      run: folder of the run.
      out: the policy file to write.
      recipe: how to convert: float32 or int8.
      target: what it is to run on. With edgetpu, Coral's, it is checked, and compiled if edgetpu_compiler is installed.
      episodes: paired episodes on which the returns are compared.
      force: replace an existing file.
    """

    run: tyro.conf.Positional[Path]
    out: Path
    recipe: str = "int8"
    target: Literal["cpu", "edgetpu"] = "cpu"
    episodes: int = 20
    force: bool = False


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ConvertCommand, "tfqrl convert", words)
    if command.episodes < 2:
        raise UsageError(f"--episodes must be at least 2 to give an interval; it was given {command.episodes}.")
    import_tensorflow()
    import converters.recipe

    converters.recipe.get(command.recipe)
    if command.out.exists() and not command.force:
        raise UsageError(f"{command.out} exists already. Give another --out, or --force to replace it.")
    check_writable(command.out)

    from edge import report
    from tfqrl import edgetpu_target
    from tfqrl.convert import convert_run
    from tfqrl.runs import Run

    if command.target == "edgetpu":
        edgetpu_target.check_command(command.recipe, command.out, force=command.force)
    conversion = convert_run(Run.open(command.run), command.recipe, episodes=command.episodes)
    conversion.save(command.out, force=command.force)
    print(report.info_text(conversion.artifact, command.out.stat().st_size))
    if command.target == "edgetpu":
        print()
        edgetpu_target.compile_for_edgetpu(conversion.artifact, command.out, force=command.force)
    return 0
