"""`tfqrl zoo`."""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path
from typing import Annotated

import tyro

from edge.errors import UnknownNameError
from edge.files import check_writable, write_atomically
from edge.records import to_json
from tfqrl import zoo
from tfqrl.options import optional, parse

WIDTH = 76


@dataclasses.dataclass(frozen=True)
class ZooCommand:
    """Show the tuned configurations: what differs from an algorithm's defaults in an environment.

    `tfqrl train` takes them as its defaults. Where each value comes from is said in the files, tfqrl/zoo/*.yaml.

    Example: tfqrl zoo ppo

    Example: tfqrl zoo --env HalfCheetah-v5 --json zoo.json

    Attributes:
      algorithm: only this one.
      env: only this environment.
      json: write what is shown to this file.
    """

    algorithm: Annotated[tyro.conf.Positional[str | None], optional("[ALGORITHM]")] = None
    env: Annotated[str | None, optional("ENV")] = None
    json: Annotated[Path | None, optional("FILE.json")] = None


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(ZooCommand, "tfqrl zoo", words)
    algorithms = zoo.algorithms() if command.algorithm is None else [command.algorithm]
    entries = [
        {"algorithm": algorithm, "env": env, "config": overrides}
        for algorithm in algorithms
        for env, overrides in zoo.environments(algorithm).items()
    ]
    if command.env is not None:
        known = {entry["env"] for entry in entries}
        if command.env not in known:
            where = "" if command.algorithm is None else f" for {command.algorithm}"
            raise UnknownNameError(f"environment in the zoo{where}", command.env, known)
        entries = [entry for entry in entries if entry["env"] == command.env]
    if command.json is not None:
        check_writable(command.json)
        write_atomically(command.json, to_json(entries).encode())
    print(_table([(entry["algorithm"], entry["env"], zoo.text(entry["config"])) for entry in entries]))
    return 0


def _table(rows: list[tuple[str, str, str]]) -> str:
    """Columns to the left, the last one folded; `edge.report.table` is for numbers."""
    header = ("algorithm", "environment", "differs from the defaults")
    first, second = (max(len(row[i]) for row in (header, *rows)) for i in range(2))
    lines = []
    for algorithm, env, text in (header, *rows):
        for i, part in enumerate(textwrap.wrap(text, WIDTH, break_on_hyphens=False)):
            lines.append(f"{'' if i else algorithm:{first}}  {'' if i else env:{second}}  {part}")
    return "\n".join(lines)
