"""`tfqrl convert`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from edge.errors import UnknownNameError, UsageError, UserError
from edge.files import check_writable, write_atomically
from edge.records import to_json
from tfqrl.options import Margin, check_episodes, import_tensorflow, optional, parse

if TYPE_CHECKING:
    from converters.recipe import Recipe

ALL = "all"


class RejectedError(UserError):
    """A conversion that broke the tolerance of its recipe."""


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclasses.dataclass(frozen=True)
class ConvertCommand:
    """Convert a trained policy to a TFLite file and compare it with the original.

    A conversion that costs more than its recipe tolerates is kept as POLICY.tflite.rejected; the command then says what
    broke and what may cure it, and exits with 1. See docs/converting.md.

    --recipe all makes a file of every recipe in the folder --out, RECIPE.tflite or RECIPE.tflite.rejected, and one
    table of them, which is also in the folder's comparison.json. It exits with 0 when the table is complete, rejected
    recipes and all, if any could be made.

    Example: tfqrl convert runs/cheetah --recipe int8 --out cheetah.tflite

    Example: tfqrl convert runs/cheetah --recipe int8 --calibration mse --float-layers output --out cheetah.tflite

    Example: tfqrl convert runs/cheetah --recipe all --episodes 100 --out cheetah/

    Example: tfqrl convert runs/cheetah --recipe int8-full --target edgetpu --out cheetah.tflite

    Attributes:
      run: folder of the run.
      out: the policy file to write; with --recipe all, the folder.
      recipe: how to convert: float32, float16, dynamic-int8, int8, int8-full, int16x8, int4, int2 or all.
      target: what it is to run on. With edgetpu, Coral's, it is checked, and compiled if edgetpu_compiler is installed.
      weight_scales: per-tensor: one scale a layer; per-channel: one an output (default: the recipe's own).
      calibration: how activation ranges are taken from observations (default: min-max).
      calibration_observations: calibrate on this many observations at most (default: 10000).
      float_layers: names of layers that stay in float (default: none).
      logits: let a discrete policy give its logits instead of a choice.
      observations: a .npy file, (n, *observation shape), episode by episode, to calibrate and compare on instead of
        playing; returns are then not compared.
      env: the environment to play in (default: the one that it was trained in).
      episodes: paired episodes on which the returns are compared.
      margin: largest difference of the mean returns that counts as none: a percentage of the float policy's, or a
        return.
      json: write the comparison to this file (with --recipe all: instead of the folder's comparison.json).
      force: replace policies that are there; reports and rejected policies are replaced anyway.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    out: Annotated[Path, tyro.conf.arg(metavar="POLICY.tflite")]
    recipe: Annotated[str, tyro.conf.arg(metavar="RECIPE")] = "int8"
    target: Literal["cpu", "edgetpu"] = "cpu"
    weight_scales: Annotated[Literal["per-tensor", "per-channel"] | None, optional("{per-tensor,per-channel}")] = None
    calibration: Annotated[Literal["min-max", "percentile", "mse"] | None, optional("{min-max,percentile,mse}")] = None
    calibration_observations: Annotated[int | None, optional("N")] = None
    float_layers: Annotated[tuple[str, ...], optional("NAME ...")] = ()
    logits: bool = False
    observations: Annotated[Path | None, optional("FILE.npy")] = None
    env: Annotated[str | None, optional("ENV")] = None
    episodes: int = 20
    margin: Annotated[str, tyro.conf.arg(metavar="MARGIN")] = "2%"
    json: Annotated[Path | None, optional("FILE.json")] = None
    force: bool = False


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ConvertCommand, "tfqrl convert", words)
    check_episodes(command.episodes)
    margin = Margin.parse(command.margin)
    import_tensorflow()

    from edge import report
    from tfqrl import edgetpu_target
    from tfqrl.convert import original, save
    from tfqrl.recipe_table import RecipeTable, convert_all, row, table_text
    from tfqrl.runs import Run

    recipes = chosen_recipes(command)
    if command.target == "edgetpu":
        edgetpu_target.check_command(command.recipe, command.weight_scales, command.out, force=command.force)
    run = Run.open(command.run)
    outputs = [command.out]
    if command.recipe == ALL:
        if command.out.exists() and not command.out.is_dir():
            raise UsageError(f"{command.out} is a file; --recipe all needs a folder for --out.")
        outputs = [command.out / f"{recipe.name}.tflite" for recipe in recipes]
    for output in outputs:
        if output.exists() and not command.force:
            raise UsageError(f"{output} exists already. Give another --out, or --force to replace it.")
    check_writable(outputs[0])
    json = command.out / "comparison.json" if command.recipe == ALL and command.json is None else command.json
    if json is not None:
        check_writable(json)

    policy = original(
        run,
        episodes=command.episodes,
        margin=margin,
        env=command.env,
        observations=command.observations,
        logits=command.logits,
        float_layers=command.float_layers,
    )
    if command.recipe == ALL:
        rows, rejection = convert_all(policy, recipes, command.out), None
    else:
        (recipe,) = recipes
        conversion = policy.to(recipe)
        path, rejection = save(conversion, recipe, command.out, force=command.force)
        rows = [row(conversion, recipe, path, rejection)]
        print(report.info_text(conversion.artifact, path.stat().st_size))
    found = RecipeTable.of(rows, ("tfqrl", "convert", *words))
    if json is not None:
        write_atomically(json, to_json(found).encode())
    if command.recipe == ALL:
        print(table_text(found))
        if all(made.file is None for made in rows):
            raise UserError("No recipe could be made of this policy. The table says why.")
    if command.target == "edgetpu" and rejection is None:
        print()
        edgetpu_target.compile_for_edgetpu(conversion.artifact, command.out, force=command.force)
    if rejection is not None:
        raise RejectedError(f"{rejection} The file is kept as {path}.")
    return 0


def chosen_recipes(command: ConvertCommand) -> list[Recipe]:
    """The recipe that was asked for, with the options that were; or all of them, with the options that each has.

    Raises:
      UnknownNameError: there is no such recipe.
      UsageError: it does not have such an option.
    """
    from converters import recipe as recipes

    if command.recipe == ALL:
        return [_adapted(recipe, command) for recipe in recipes.RECIPES.values()]
    known = recipes.RECIPES | recipes.TRAINED_RECIPES
    if command.recipe not in known:
        raise UnknownNameError("recipe", command.recipe, (ALL, *known))
    recipe = known[command.recipe]
    for option in _options(command):
        able = [name for name, other in known.items() if _has(other, option)]
        if recipe.name not in able:
            name = "weight_scales" if option == "per_channel" else option
            raise UsageError(
                f"The recipe {recipe.name} has no --{name.replace('_', '-')}; that is for {', '.join(able)}."
            )
    return [_adapted(recipe, command)]


def _options(command: ConvertCommand) -> dict[str, Any]:
    given = {
        "per_channel": None if command.weight_scales is None else command.weight_scales == "per-channel",
        "calibration": command.calibration,
        "calibration_observations": command.calibration_observations,
        "float_layers": command.float_layers or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _has(recipe: Recipe, option: str) -> bool:
    if option == "per_channel":
        return recipe.weight_bits <= 8
    if option == "float_layers":
        return recipe.weight_bits <= 8 and not recipe.integer_io
    return recipe.calibrated


def _adapted(recipe: Recipe, command: ConvertCommand) -> Recipe:
    fitting = {name: value for name, value in _options(command).items() if _has(recipe, name)}
    return dataclasses.replace(recipe, **fitting)
