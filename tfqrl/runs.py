"""A run: the folder of one training.

config.json       algorithm, configuration and versions; reproduces the run
checkpoint.npz    everything needed to go on, replaced atomically
metrics.jsonl     one line an iteration
events.*          the same for TensorBoard
best/             a run of its own, which cannot be gone on with: the policy that was evaluated best
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import OutputError, UsageError, UserError
from edge.files import write_atomically
from edge.records import to_json

VERSIONS_OF = ("tfqrl", "tensorflow", "tf-keras", "gymnasium", "mujoco", "numpy")

State = dict[str, npt.NDArray[Any]]


class RunError(UserError):
    """A folder that is not a run, or one that cannot be gone on with."""


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
      path: the folder.
      algorithm: the name of the algorithm.
      config: its configuration, as plain values.
    """

    path: Path
    algorithm: str
    config: dict[str, Any]

    @classmethod
    def create(cls, path: str | Path, algorithm: str, config: Any) -> Run:
        """Begin a run in a new folder; `config` is the algorithm's dataclass.

        Raises:
          UsageError: the folder holds a run already.
          OutputError: it cannot be written.
        """
        path = Path(path)
        if (path / "config.json").exists():
            raise UsageError(f"{path} holds a run already. Add --resume to go on with it, or give another --out.")
        run = cls(path, algorithm, dataclasses.asdict(config))
        run._write_config()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in an existing folder.

        Raises:
          RunError: there is none.
        """
        path = Path(path)
        try:
            plain = json.loads((path / "config.json").read_text())
            return cls(path, plain["algorithm"], plain["config"])
        except OSError as error:
            raise RunError(f"{path} is not a run: it has no readable config.json. `tfqrl train` makes runs.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}/config.json is not a run's configuration ({error!r}).") from error

    def reconfigured(self, config: Any) -> Run:
        """The same run with another configuration (more steps), written to its folder."""
        run = dataclasses.replace(self, config=dataclasses.asdict(config))
        run._write_config()
        return run

    def save_checkpoint(self, state: State) -> None:
        """Replace the checkpoint. `state` maps names, which may hold slashes, to arrays."""
        write_atomically(self.path / "checkpoint.npz", lambda file: np.savez(file, **state))  # type: ignore[arg-type]

    def load_checkpoint(self) -> State:
        """The last checkpoint.

        Raises:
          RunError: there is none, or it is damaged.
        """
        try:
            with np.load(self.path / "checkpoint.npz", allow_pickle=False) as arrays:
                return dict(arrays)
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no checkpoint yet. Train it further with --resume.") from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise RunError(f"The checkpoint of {self.path} cannot be read: {error}.") from error

    @property
    def best(self) -> Run:
        """The policy of this run that was evaluated best; there may be none yet."""
        return dataclasses.replace(self, path=self.path / "best")

    def save_best(self, state: State) -> None:
        """Let `best` be the policy of this checkpoint."""
        self.copy_to(self.path / "best", state)

    def copy_to(self, path: Path, state: State) -> None:
        """Make another folder a run with this one's configuration and the given checkpoint."""
        copy = dataclasses.replace(self, path=path)
        copy._write_config()
        copy.save_checkpoint(state)

    def forget_best_after(self, steps: int) -> None:
        """Forget it if it is of a part of the training that a resumed run will go through again."""
        if self.best.has_checkpoint() and int(self.best.load_checkpoint()["steps"]) > steps:
            (self.best.path / "checkpoint.npz").unlink()

    def fingerprint(self) -> str:
        """SHA-256 of what its checkpoint holds, in hexadecimal.

        Raises:
          RunError: there is none, or it is damaged.
        """
        digest = hashlib.sha256()
        for name, array in sorted(self.load_checkpoint().items()):
            digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / "checkpoint.npz").exists()

    def metrics(self) -> list[dict[str, float]]:
        """The metrics written so far, one record an iteration; a line cut short by a kill is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        records = []
        for line in lines:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def truncate_metrics(self, steps: int) -> None:
        """Forget metrics of iterations after `steps`, which a resumed run will go through again."""
        kept = [record for record in self.metrics() if record["steps"] <= steps]
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in kept).encode())

    def append_metrics(self, record: Mapping[str, float]) -> None:
        """Add the metrics of one iteration."""
        try:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(dict(record)) + "\n")
        except OSError as error:
            raise OutputError(
                f"Cannot write to {self.path}: {error.strerror}. Make room, then go on with --resume."
            ) from error

    def _write_config(self) -> None:
        versions = {package: version(package) for package in VERSIONS_OF}
        text = to_json({"algorithm": self.algorithm, "config": self.config, "versions": versions})
        write_atomically(self.path / "config.json", text.encode())


def nested(state: State, prefix: str) -> State:
    """The part of a state whose names begin with `prefix` and a slash, without them."""
    return {name[len(prefix) + 1 :]: array for name, array in state.items() if name.startswith(prefix + "/")}


def prefixed(prefix: str, state: Mapping[str, npt.NDArray[Any]]) -> State:
    """The inverse of `nested`."""
    return {f"{prefix}/{name}": np.asarray(array) for name, array in state.items()}
