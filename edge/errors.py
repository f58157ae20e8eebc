"""Errors that a user can cause. Each message is a whole sentence or two: what was given, what is allowed, what to do.

All three packages raise subclasses of `UserError`; the command lines print the message alone, without a traceback,
and exit with `exit_code`. `assert` and other exceptions are for our own mistakes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The root of every error that is explained to the user rather than shown as a traceback."""

    exit_code = 1


class UsageError(UserError):
    """A command, option or configuration value that cannot be accepted."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name (of an algorithm, environment, recipe, option, ...) that is not known."""

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        """`kind` says what the name stands for; the message offers the nearest of `known`, or lists them."""
        names = sorted(known)
        near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
        if near:
            hint = f"Did you mean {near[0]!r}?"
        elif len(names) <= 20:
            hint = f"Known: {', '.join(names)}."
        else:
            hint = f"{len(names)} are known, none of them similar."
        super().__init__(f"Unknown {kind} {given!r}. {hint}")


class OutputError(UserError):
    """A file that could not be written; nothing half-written is left behind."""


class RuntimeMissingError(UserError):
    """No TFLite interpreter is installed, or the one that is cannot be imported."""


class EdgeTpuError(UserError):
    """The Edge TPU cannot be used. Subclasses say why."""


class EdgeTpuLibraryError(EdgeTpuError):
    """libedgetpu is not installed, or is not a library that the interpreter can load."""


class EdgeTpuDeviceError(EdgeTpuError):
    """No Edge TPU is attached, or it is taken, or this user may not use it."""


class EdgeTpuModelError(EdgeTpuError):
    """The policy was not compiled for the Edge TPU, or for another version of its library."""


class EdgeTpuCrashError(EdgeTpuError):
    """libedgetpu takes the process down with it."""


class ArtifactError(UserError):
    """A policy file that cannot be used. Subclasses say why."""


class NotTFLiteError(ArtifactError):
    """The file is not a TFLite flatbuffer, or the interpreter cannot load it."""


class TruncatedArtifactError(ArtifactError):
    """The file ends before its archive does."""


class ManifestMissingError(ArtifactError):
    """The flatbuffer has no manifest appended."""


class ManifestError(ArtifactError):
    """The manifest or the golden pairs do not follow the schema."""


class SchemaVersionError(ArtifactError):
    """The manifest was written by a newer tfqrl than this one."""


class HashMismatchError(ArtifactError):
    """The flatbuffer is not the one that the manifest describes."""


class GoldenMismatchError(ArtifactError):
    """The runtime here does not reproduce the actions stored with the policy."""


class UnsignedError(ArtifactError):
    """A signature was required and the file has none."""


class SignatureError(ArtifactError):
    """The file is signed by a key that is not trusted, or is not what was signed."""


class ObservationError(UserError):
    """An observation that the policy must not act on."""


class ObservationShapeError(ObservationError):
    """An observation of another shape or type than the policy takes."""


class NonFiniteObservationError(ObservationError):
    """An observation with NaN or infinity in it, or beyond the range of float32."""

    def __str__(self) -> str:
        """Put together only where it is read: a loop meets this error once a tick, and only counts it."""
        return f"The observation has NaN or infinity in it: {self.args[0]!r}."
