"""What a bench lets run against each other: policies of ours, and models in the runtimes that one would use instead."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge import artifact
from edge.errors import UnknownNameError, UsageError, UserError
from edge.files import read_bounded
from edge.interpreter import MAX_THREADS, Runtime
from edge.policy import Policy

MAX_PEER_BYTES = 2**30


@dataclass(frozen=True)
class Contender:
    """Something that acts.

    Attributes:
      name: for tables.
      recipe: how it was converted; "-" if it is not ours.
      sha256: of the flatbuffer or file.
      file_bytes: size of the file.
      runtime: what runs it.
      act: from an observation, float64 as drivers and simulators give it, or a frame of uint8, to an action.
      invoke: the runtime's bare call on an observation that is in place already.
      observations: what to act on.
    """

    name: str
    recipe: str
    sha256: str
    file_bytes: int
    runtime: Runtime
    act: Callable[[npt.NDArray[Any]], Any]
    invoke: Callable[[], Any]
    observations: list[npt.NDArray[Any]]


def load(kind: str, path: Path, threads: int, device: str, trust: Sequence[str | Path] | None = None) -> Contender:
    """The contender in a file; `kind` is "tfqrl", or the name of a peer. Only policies are signed (`trust`).

    Raises:
      UnknownNameError: there is no such peer.
      UserError: the file cannot be run here.
    """
    if kind == "tfqrl":
        return _policy(path, threads, device, trust)
    if kind not in PEERS:
        raise UnknownNameError("peer", kind, PEERS)
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"The number of threads must be from 1 to {MAX_THREADS}; it was given {threads}.")
    return PEERS[kind](path, threads)


def _policy(path: Path, threads: int, device: str, trust: Sequence[str | Path] | None) -> Contender:
    source = artifact.read(path, trust=trust)
    policy = Policy.from_artifact(source, threads=threads, device=device)
    observations = source.golden.observations
    return Contender(
        policy.name,
        str(source.manifest.recipe["name"]),
        source.manifest.flatbuffer_sha256,
        path.stat().st_size,
        policy.runtime,
        policy.act,
        policy.invoke,
        list(observations if policy.spec.observation.frames else observations.astype(np.float64)),
    )


def _onnxruntime(path: Path, threads: int) -> Contender:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("The peer onnxruntime is not installed: `pip install onnxruntime`.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its idle threads would spin on the cores that the others are measured on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        data = read_bounded(path, MAX_PEER_BYTES)
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # its own exceptions have no common root
        raise UserError(f"onnxruntime cannot load {path}: {error}") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in ("tensor(float)", "tensor(uint8)"):
        raise UsageError(
            f"{path} must have one input, the observation, of float or of uint8 for frames; it has "
            f"{[(i.name, i.type) for i in inputs]}."
        )
    name, dtype = inputs[0].name, np.float32 if inputs[0].type == "tensor(float)" else np.uint8
    # A first axis without a fixed size is the batch.
    shape = [size if isinstance(size, int) else 1 for size in inputs[0].shape]
    generator = np.random.default_rng(0)
    observations: list[npt.NDArray[Any]] = [generator.normal(size=shape[1:]) for _ in range(32)]
    if dtype is np.uint8:
        observations = [generator.integers(256, size=shape[1:], dtype=np.uint8) for _ in range(32)]
    feed = {name: observations[0][np.newaxis].astype(dtype)}
    return Contender(
        path.stem,
        "-",
        artifact.sha256(data),
        len(data),
        Runtime("onnxruntime", importlib.metadata.version("onnxruntime"), threads, "CPUExecutionProvider"),
        lambda observation: session.run(None, {name: observation[np.newaxis].astype(dtype, copy=False)})[0][0],
        lambda: session.run(None, feed),
        observations,
    )


PEERS: dict[str, Callable[[Path, int], Contender]] = {"onnxruntime": _onnxruntime}
