"""The policy file: a TFLite flatbuffer with a ZIP archive appended, and the schema of what is in the archive.

Every TFLite runtime ignores what follows the flatbuffer, and `unzip` ignores what precedes the archive, so one file is
both the model and its papers (the convention that TFLite Metadata uses for associated files). In the archive:

- `manifest.json`: the `Manifest` below.
- `golden.npz`: `observations` (n, *observation.shape) of the spec's dtype and the `actions` expected of them,
  (n, *action.shape) float32, or (n,) int64 for a discrete policy.

The archive's comment may be a signature: `edge.signature`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge import signature
from edge.errors import (
    ArtifactError,
    HashMismatchError,
    ManifestError,
    ManifestMissingError,
    NotTFLiteError,
    SchemaVersionError,
    TruncatedArtifactError,
    UnknownNameError,
)
from edge.files import read_bounded, read_member, write_atomically
from edge.records import from_plain, to_json

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"

# No honest policy comes near these; a hostile file must not exhaust a small computer's memory.
MAX_FILE_BYTES = 512 * 2**20
MAX_MEMBER_BYTES = 16 * 2**20
# JSON grows some forty times when it is read.
MAX_MANIFEST_BYTES = 2 * 2**20
# All of them are replayed when a policy is loaded.
MAX_GOLDEN_PAIRS = 10_000
MAX_ARCHIVE_ENTRIES = 1000
_ENTRY = b"PK\x01\x02"

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ObservationSpec:
    """What the policy reads, as the environment or sensors give it (before any normalisation).

    Attributes:
      shape: shape of one observation.
      low: lowest value of each element, flattened; None where unbounded. Empty for frames.
      high: highest value of each element, flattened; None where unbounded. Empty for frames.
      dtype: "float32", or "uint8" for camera frames (height, width, channels), which the network sees divided by 255.
    """

    shape: tuple[int, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    dtype: Literal["float32", "uint8"] = "float32"

    @property
    def frames(self) -> bool:
        """Whether observations are camera frames."""
        return self.dtype == "uint8"


@dataclass(frozen=True)
class ActionSpec:
    """What the policy gives: a float vector within bounds, or the index of one of `n` choices.

    Attributes:
      shape: shape of one continuous action; () for a discrete one.
      low: lower bound of each element, flattened, in the plant's own units; None where unbounded.
      high: upper bound of each element.
      n: the number of choices of a discrete action; None for a continuous one.
    """

    shape: tuple[int, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    n: int | None = None

    @property
    def discrete(self) -> bool:
        """Whether an action is the index of a choice."""
        return self.n is not None

    @property
    def scaling(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """How [-1, 1] becomes an action: middle + half_range * x, for each element, flattened.

        An element that lacks one of its bounds is taken as it is.

        Returns:
          bounded, half_range, middle: whether both bounds are known; half the range between them, else 1; and its
          middle, else 0.
        """
        bounds = list(zip(self.low, self.high))
        bounded = np.array([low is not None and high is not None for low, high in bounds], np.bool_)
        known = [(-1.0, 1.0) if low is None or high is None else (low, high) for low, high in bounds]
        lows, highs = np.array(known, np.float64).reshape(-1, 2).T
        return bounded, (highs - lows) / 2, (highs + lows) / 2


@dataclass(frozen=True)
class Normalizer:
    """Observation normalisation: clip((observation - mean) / std, -clip, clip).

    Attributes:
      mean: mean of each element, flattened.
      std: standard deviation of each element, all > 0.
      clip: bound of the normalised values; None for none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: float | None


@dataclass(frozen=True)
class PolicySpec:
    """A policy seen from outside: what goes in, what comes out, how often.

    Attributes:
      observation: what it reads.
      action: what it gives.
      control_rate_hz: the rate it was trained for; None where the environment has none.
      normalizer: how observations were normalised in training; None if they were not.
    """

    observation: ObservationSpec
    action: ActionSpec
    control_rate_hz: float | None
    normalizer: Normalizer | None


@dataclass(frozen=True)
class Layer:
    """One weight tensor as it lies in the flatbuffer.

    Attributes:
      name: the tensor's name.
      shape: its shape.
      weight_bits: bits per weight.
      sparsity: fraction of weights that are exactly zero, 0..1.
    """

    name: str
    shape: tuple[int, ...]
    weight_bits: int
    sparsity: float


@dataclass(frozen=True)
class Returns:
    """Episode returns of the float policy and of the converted one, on the same seeds.

    Attributes:
      episodes: the number of pairs.
      first_seed: the pairs were seeded first_seed, first_seed + 1, ...
      float_mean: mean return of the float policy.
      converted_mean: mean return of the converted policy.
      difference_mean: mean of converted - float.
      difference_interval: 95 % interval of that mean, by bootstrap over the pairs.
      margin: differences of the mean below this were declared, in advance, to be none; None if no margin was given.
      verdict: what two one-sided tests at 5 % say of that: "equivalent"; "better" or "worse" by more than the margin;
        or "undecided"; None without a margin.
    """

    episodes: int
    first_seed: int
    float_mean: float
    converted_mean: float
    difference_mean: float
    difference_interval: tuple[float, float]
    margin: float | None = None
    verdict: Literal["equivalent", "better", "worse", "undecided"] | None = None


@dataclass(frozen=True)
class Comparison:
    """The converted policy beside the float policy that it was made from.

    Attributes:
      observations: the number of observations that the actions were compared on.
      max_action_error: largest absolute difference of any action element; None for discrete actions.
      mean_action_error: mean absolute difference; None for discrete actions.
      agreement: fraction of observations with the same choice, 0..1; None for continuous actions.
      returns: the closed-loop comparison; None if there was no environment to run it in.
      relative_action_error: mean absolute difference as a fraction of half the range between each element's bounds (of
        1, where it has none); None for discrete actions.
    """

    observations: int
    max_action_error: float | None
    mean_action_error: float | None
    agreement: float | None
    returns: Returns | None
    relative_action_error: float | None = None


@dataclass(frozen=True)
class Manifest:
    """Everything about a policy that its flatbuffer does not say.

    Attributes:
      schema_version: version of this schema.
      name: what to call the policy.
      flatbuffer_sha256: SHA-256 of the flatbuffer, hexadecimal.
      flatbuffer_bytes: its length.
      spec: what the policy reads and gives. With float inputs, normalisation and action scaling are in the graph.
      recipe: the conversion recipe, with its name under "name".
      layers: every weight tensor.
      golden_tolerance: largest difference from a golden action, per flattened element, that is still a match. Kernels
        of different runtimes round differently: the converter measures by how much.
      comparison: converted against float.
      training: algorithm, environment, steps, seed and configuration that the policy came from.
      versions: versions of the packages that trained and converted it.
      compressed_bytes: length of the flatbuffer when deflated, which is all that scattered zeros save; None if it was
        not measured.
      notes: what the conversion did that nobody asked for, as sentences.
    """

    schema_version: int
    name: str
    flatbuffer_sha256: str
    flatbuffer_bytes: int
    spec: PolicySpec
    recipe: dict[str, Any]
    layers: tuple[Layer, ...]
    golden_tolerance: tuple[float, ...]
    comparison: Comparison
    training: dict[str, Any]
    versions: dict[str, str]
    compressed_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Golden:
    """Observations with the actions expected of them.

    Attributes:
      observations: (n, *observation.shape) of the spec's dtype.
      actions: (n, *action.shape) float32, or (n,) int64 for a discrete policy.
    """

    observations: npt.NDArray[Any]
    actions: npt.NDArray[Any]


@dataclass(frozen=True)
class Artifact:
    """A policy file, read and checked.

    Attributes:
      manifest: its papers.
      flatbuffer: the TFLite model alone.
      golden: the golden pairs.
    """

    manifest: Manifest
    flatbuffer: bytes
    golden: Golden


def write(path: str | Path, artifact: Artifact, *, force: bool = False) -> None:
    """Write a policy file atomically. The same artifact gives the same bytes.

    Raises:
      OutputError: the file cannot be written, or exists already and `force` is false.
    """
    write_atomically(path, to_bytes(artifact), force=force)


def to_bytes(artifact: Artifact) -> bytes:
    """The bytes of a policy file: the flatbuffer, then the archive."""
    golden = io.BytesIO()
    np.savez(golden, observations=artifact.golden.observations, actions=artifact.golden.actions)
    file = io.BytesIO()
    file.write(artifact.flatbuffer)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, data in ((MANIFEST, to_json(artifact.manifest).encode()), (GOLDEN, golden.getvalue())):
            # A fixed date, so that equal artifacts are equal files.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def read(path: str | Path, *, trust: Sequence[str | Path] | None = None) -> Artifact:
    """Read a policy file and check everything that can be checked without running it.

    With `trust`, files of public keys, the file must be signed by one of them; that is checked before anything in it
    is parsed. See `edge.signature`.

    Raises:
      ArtifactError: one of its subclasses, by what is wrong with the file.
    """
    return from_bytes(contents(path, trust=trust), str(path))


def contents(path: str | Path, *, trust: Sequence[str | Path] | None = None) -> bytes:
    """The bytes of a policy file, for `from_bytes`; its signature is checked as `read` does.

    Raises:
      ArtifactError: the file cannot be read, is too large, or not signed by a key in `trust`.
    """
    try:
        data = read_bounded(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ArtifactError(f"Cannot read {path}: {error.strerror or error}.") from error
    if trust is not None:
        signature.check(data, trust, str(path))
    return data


def from_bytes(data: bytes, source: str = "policy") -> Artifact:
    """What `read` does, on bytes; `source` names them in error messages.

    Raises:
      ArtifactError: one of its subclasses.
    """
    if data[4:8] != b"TFL3":
        raise NotTFLiteError(
            f"{source} is not a TFLite file: it lacks the identifier TFL3. Make policies with `tfqrl convert`."
        )
    members, flatbuffer_bytes = _read_archive(data, source)
    if MANIFEST not in members or GOLDEN not in members:
        raise ManifestMissingError(
            f"{source} has an archive without {MANIFEST} and {GOLDEN}. Convert the policy again."
        )
    manifest = _read_manifest(members[MANIFEST], source)
    flatbuffer = data[:flatbuffer_bytes]
    if manifest.flatbuffer_bytes != flatbuffer_bytes or manifest.flatbuffer_sha256 != sha256(flatbuffer):
        raise HashMismatchError(
            f"The model in {source} is not the one that its manifest describes (SHA-256 differs). "
            "The file was altered or damaged: copy or convert it again."
        )
    return Artifact(manifest, flatbuffer, _read_golden(members[GOLDEN], manifest, source))


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def _read_archive(data: bytes, source: str) -> tuple[dict[str, bytes], int]:
    """The archive's members of ours, and where the archive begins (which is the length of the flatbuffer)."""
    # Before `zipfile` makes an object of each.
    if data.count(_ENTRY) > MAX_ARCHIVE_ENTRIES:
        raise ManifestError(f"The archive of {source} has more than {MAX_ARCHIVE_ENTRIES} entries: refused.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            ours = [info for info in infos if info.filename in (MANIFEST, GOLDEN)]
            if len({info.filename for info in ours}) < len(ours):
                raise ManifestError(f"The archive of {source} has two members of the same name.")
            for info in ours:
                # Only what `write` writes: other decompressors have errors, and appetites, of their own.
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ManifestError(f"{info.filename} in {source} is compressed in a way that tfqrl does not use.")
                if info.file_size > (MAX_MANIFEST_BYTES if info.filename == MANIFEST else MAX_MEMBER_BYTES):
                    raise ManifestError(f"{info.filename} in {source} claims {info.file_size} bytes: refused.")
            members = {info.filename: read_member(archive, info) for info in ours}
            return members, min((info.header_offset for info in infos), default=len(data))
    except ArtifactError:
        raise
    except Exception as error:
        # On damaged archives `zipfile` raises a dozen kinds of exception, and not the same in each version.
        if MANIFEST.encode() in data:
            raise TruncatedArtifactError(
                f"{source} is cut short or damaged: its archive cannot be read ({error})."
            ) from error
        raise ManifestMissingError(
            f"{source} has no manifest: a plain TFLite file, or one cut short. Make policies with `tfqrl convert`."
        ) from error


def _read_manifest(data: bytes, source: str) -> Manifest:
    try:
        plain = json.loads(data)
        # Halves of UTF-16 pairs, which Python's JSON lets through, could not be printed.
        json.dumps(plain, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"The manifest of {source} is not JSON: {error}.") from error
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if not isinstance(version, int):
        raise ManifestError(f"The manifest of {source} has no schema_version.")
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{source} has manifest version {version}; this tfqrl reads up to {SCHEMA_VERSION}. Upgrade tfqrl here."
        )
    try:
        manifest = from_plain(Manifest, plain, "manifest")
        to_json(manifest)  # refuses NaN, and nesting that would be too deep later
    except (ValueError, RecursionError, UnknownNameError) as error:
        raise ManifestError(f"The manifest of {source} does not follow the schema: {error}") from error
    if not isinstance(manifest.recipe.get("name"), str):
        raise ManifestError(f"The manifest of {source} does not name its recipe.")
    _check_sizes(manifest, source)
    return manifest


def _check_sizes(manifest: Manifest, source: str) -> None:
    spec = manifest.spec
    n_observation, n_action = math.prod(spec.observation.shape), math.prod(spec.action.shape)
    if spec.action.discrete and spec.action.shape:
        raise ManifestError(
            f"The manifest of {source} gives a choice the shape {list(spec.action.shape)}; it has none."
        )
    if spec.observation.frames:
        if len(spec.observation.shape) != 3 or min(spec.observation.shape) < 1:
            raise ManifestError(
                f"The manifest of {source} has frames of shape {list(spec.observation.shape)}; expected height, width "
                "and channels."
            )
        if spec.normalizer is not None:
            raise ManifestError(f"The manifest of {source} has a normaliser for frames, which are divided by 255.")
    if spec.control_rate_hz is not None and not spec.control_rate_hz > 0:
        raise ManifestError(f"The manifest of {source} has a control rate of {spec.control_rate_hz:g} Hz.")
    # Bytes have bounds of their own.
    n_bounds = 0 if spec.observation.frames else n_observation
    lengths = {
        "spec.observation.low": (spec.observation.low, n_bounds),
        "spec.observation.high": (spec.observation.high, n_bounds),
        "spec.action.low": (spec.action.low, 0 if spec.action.discrete else n_action),
        "spec.action.high": (spec.action.high, 0 if spec.action.discrete else n_action),
        "golden_tolerance": (manifest.golden_tolerance, n_action),
    }
    if spec.normalizer is not None:
        lengths["spec.normalizer.mean"] = (spec.normalizer.mean, n_observation)
        lengths["spec.normalizer.std"] = (spec.normalizer.std, n_observation)
    for name, (values, expected) in lengths.items():
        if len(values) != expected:
            raise ManifestError(f"The manifest of {source} has {len(values)} values in {name}; expected {expected}.")


def _read_golden(data: bytes, manifest: Manifest, source: str) -> Golden:
    spec = manifest.spec
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [archive.getinfo(f"{name}.npy") for name in ("observations", "actions")]
            if any(info.file_size > MAX_MEMBER_BYTES for info in infos):
                raise ManifestError(f"The golden pairs of {source} claim more than {MAX_MEMBER_BYTES} bytes: refused.")
            # numpy.load would unpack a member that is no array whatever its size.
            members = [io.BytesIO(read_member(archive, info)) for info in infos]
        golden = Golden(*(np.lib.format.read_array(member, allow_pickle=False) for member in members))
    except ArtifactError:
        raise
    except Exception as error:
        # numpy and `zipfile` raise whatever their parsing stumbles over, MemoryError and tokenize.TokenError among it.
        raise ManifestError(f"The golden pairs of {source} cannot be read: {error}.") from error
    if (
        golden.observations.shape != (*golden.observations.shape[:1], *spec.observation.shape)
        or golden.actions.shape != (*golden.observations.shape[:1], *spec.action.shape)
        or golden.actions.ndim == 0
        or not 0 < len(golden.actions) <= MAX_GOLDEN_PAIRS
        or golden.observations.dtype != spec.observation.dtype
        or golden.actions.dtype != (np.int64 if spec.action.discrete else np.float32)
        or not np.isfinite(golden.observations).all()
    ):
        raise ManifestError(f"The golden pairs of {source} do not fit its spec. Convert the policy again.")
    return golden
