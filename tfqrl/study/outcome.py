"""What a cell of a study gives, as it is written to its JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.artifact import Comparison
from edge.conditions import Conditions
from edge.errors import UserError
from edge.files import write_atomically
from edge.records import from_plain, to_json
from tfqrl.compress.report import LayerReport

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Policy:
    """The policy of a cell, converted by one recipe.

    Attributes:
      recipe: its name.
      sha256: of its model; None if none was made.
      file_bytes, model_bytes, compressed_bytes: of the policy file, of the model in it, of that deflated; None if none
        was made.
      comparison: of its actions with those of the policy as it was trained.
      returns: of each episode, the same ones for all policies of a task; None if it was not made.
      rejection: why `tfqrl convert` would reject it; None if it would not.
      failure: why it could not be made; None if it could.
    """

    recipe: str
    sha256: str | None = None
    file_bytes: int | None = None
    model_bytes: int | None = None
    compressed_bytes: int | None = None
    comparison: Comparison | None = None
    returns: tuple[float, ...] | None = None
    rejection: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Weights:
    """How the weights of a layer are distributed.

    Attributes:
      layer: its name.
      shape: of its kernel.
      zeros: part of the kernel that is zero.
      low, high, deviation: of the kernel.
      edges, counts: of a histogram of the kernel.
    """

    layer: str
    shape: tuple[int, ...]
    zeros: float
    low: float
    high: float
    deviation: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
      schema_version: of this layout.
      cell, task, method, seed: which one it is.
      algorithm, env: of its training.
      train: the words after `tfqrl train`, but for the seed.
      begins_with: the cell whose policy it went on from.
      config: of the training.
      origin: configuration of the training whose policy it went on from.
      versions: of the packages that it depends on.
      conditions: the machine.
      training_s: how long it was trained.
      first_seed: episodes were seeded first_seed, first_seed + 1, ...
      returns: of the policy as it was trained.
      policies: converted.
      weights: of the layers as they were trained.
      layers: what compression has left of them.
      curve: evaluations during training: steps and mean return.
      keep: which policy was to be taken: the last, or the best.
      deployed_steps: of the training, after which it was taken.
      complete: whether it is as compressed as it was to be.
      origin_sha256: of the policy that it went on from (`Run.fingerprint`); None if it went on from none, or was made
        before this was kept.
    """

    schema_version: int
    cell: str
    task: str
    method: str
    seed: int
    algorithm: str
    env: str
    train: tuple[str, ...]
    begins_with: str | None
    config: dict[str, Any]
    origin: dict[str, Any] | None
    versions: dict[str, str]
    conditions: Conditions
    training_s: float
    first_seed: int
    returns: tuple[float, ...]
    policies: tuple[Policy, ...]
    weights: tuple[Weights, ...]
    layers: tuple[LayerReport, ...]
    curve: tuple[tuple[int, float], ...]
    keep: str
    deployed_steps: int
    complete: bool
    origin_sha256: str | None = None

    def save(self, path: Path) -> None:
        """Write it.

        Raises:
          OutputError: it cannot be written.
        """
        write_atomically(path, to_json(self).encode())

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """Read it.

        Raises:
          UserError: it cannot be read, or is something else.
        """
        try:
            return from_plain(cls, json.loads(path.read_text()), path.name)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is no result of a study: {error}. Remove it, to redo it.") from error
