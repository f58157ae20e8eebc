"""`tfqrl evaluate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from edge.errors import UsageError
from edge.files import check_writable, write_atomically
from edge.records import to_json
from tfqrl.options import EVALUATION_SEED, Margin, check_episodes, import_tensorflow, optional, parse

MAX_SEED = 2**53 - 1


@dataclasses.dataclass(frozen=True)
class EvaluateCommand:
    """Play episodes with one policy, or the same episodes with two, and say whether the two are equivalent.

    A policy is the folder of a run, or a .tflite file of any recipe. Two are equivalent if two one-sided paired t-tests
    at 5 % show the difference of their mean returns to lie within the margin. Exit code: 0 if they are (or there is
    only one), 1 if that was not shown or cannot be done, 2 if the command is wrong. See docs/converting.md.

    Example: tfqrl evaluate runs/cheetah cheetah.tflite --episodes 100 --margin 2% --json evaluation.json

    Attributes:
      a: the first policy; differences are those from it.
      b: the second policy.
      episodes: episodes that each plays.
      margin: largest difference of the mean returns that counts as none: a percentage of that of A, or a return.
      env: the environment (default: the one that the policies were trained in).
      env_module: Python module to import first, which registers your own environment with Gymnasium.
      seed: seed of the first episode; the others count on from it. By default they are those of `tfqrl convert`.
      json: write everything to this file, the return of each episode too.
    """

    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")]
    b: Annotated[tyro.conf.Positional[Path | None], optional("[B]")] = None
    episodes: int = 100
    margin: Annotated[str, tyro.conf.arg(metavar="MARGIN")] = "2%"
    env: Annotated[str | None, optional("ENV")] = None
    env_module: Annotated[str | None, optional("MODULE")] = None
    seed: int = EVALUATION_SEED
    json: Annotated[Path | None, optional("FILE.json")] = None


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(EvaluateCommand, "tfqrl evaluate", words)
    check_episodes(command.episodes)
    margin = Margin.parse(command.margin)
    if not 0 <= command.seed <= MAX_SEED:
        raise UsageError(f"--seed must lie in 0..2^53 - 1; it was given {command.seed}.")
    if command.json is not None:
        check_writable(command.json)
    import_tensorflow()
    from tfqrl import envs
    from tfqrl.paired_evaluation import evaluate_policies, evaluation_text

    if command.env_module is not None:
        envs.import_module(command.env_module)
    found = evaluate_policies(
        [path for path in (command.a, command.b) if path is not None],
        env=command.env,
        episodes=command.episodes,
        first_seed=command.seed,
        margin=margin,
        command=("tfqrl", "evaluate", *words),
    )
    if command.json is not None:
        write_atomically(command.json, to_json(found).encode())
    print(evaluation_text(found))
    return 0 if found.pair is None or found.pair.verdict == "equivalent" else 1
