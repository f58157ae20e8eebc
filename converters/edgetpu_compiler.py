"""Google's `edgetpu_compiler`, where it is installed: running it, and reading what it says.

Written from reports that users published of its versions 14 to 16; not yet run with the real one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from converters import edgetpu
from edge.edgetpu import CUSTOM_OP
from edge.errors import UserError
from edge.files import write_atomically

COMPILER = "edgetpu_compiler"

# It gives up by itself after 180 s; a little later it hangs.
TIMEOUT_S = 240.0

MAPPED = "Mapped to Edge TPU"

HOW_TO_GET_IT = (
    "It is a package of Google's Coral for x86-64 Debian and Ubuntu: add the package source "
    "`deb https://packages.cloud.google.com/apt coral-edgetpu-stable main` and install edgetpu-compiler; elsewhere, do "
    "that in a Docker container of debian (--platform linux/amd64). See docs/coral.md."
)


class CompilerError(UserError):
    """The compiler gave no model that can be used. Subclasses say why."""


class NotQuantisedError(CompilerError):
    """The compiler finds the model not quantised."""


class DynamicShapeError(CompilerError):
    """A tensor of the model has a shape that is known only when it runs."""


class LargeActivationsError(CompilerError):
    """What flows between the model's layers does not fit on the chip."""


class UnknownVersionError(CompilerError):
    """The model has an operation in a version that is newer than the compiler."""


class InvalidModelError(CompilerError):
    """The compiler cannot read the model."""


class CompilerCrashError(CompilerError):
    """The compiler itself failed: an internal error, a signal, or an end without a word."""


class CompilerTimeoutError(CompilerError):
    """The compiler does not come to an end."""


class NothingMappedError(CompilerError):
    """The compiler gave a model of which nothing runs on the Edge TPU."""


class OtherInterfaceError(CompilerError):
    """The compiled model takes or gives something else than the model."""


# What it says, in the order in which it is looked for: the most telling first.
_FAILURES: tuple[tuple[str, type[CompilerError], str], ...] = (
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        UnknownVersionError,
        "it does not know {0} of version {1}, which a newer TensorFlow wrote",
    ),
    (r"dynamic-sized tensors", DynamicShapeError, "the model has tensors of dynamic shape"),
    (
        r"large activation tensors",
        LargeActivationsError,
        "what flows between the layers is too large for the chip: use smaller frames or fewer channels",
    ),
    (r"Model not quantized", NotQuantisedError, "it finds the model not quantised"),
    (r"Internal compiler error", CompilerCrashError, "it met an internal error, as it does with some models"),
    (r"Invalid model", InvalidModelError, "it cannot read the model"),
)

_SIZE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class OperatorStatus:
    """A row of the compiler's table.

    Attributes:
      operator: name of the operation in TFLite.
      count: how many of them have this status.
      status: the compiler's words; "Mapped to Edge TPU" for those that run there.
    """

    operator: str
    count: int
    status: str


@dataclass(frozen=True)
class CompilerReport:
    """What the compiler says of a model; None where it says nothing.

    Attributes:
      version: the compiler's version.
      on_chip_bytes: parameters that stay on the chip.
      on_chip_remaining_bytes: room for more.
      off_chip_bytes: parameters that are sent to the chip at every inference.
      subgraphs: pieces of the model that run on the Edge TPU.
      tpu: operations that run on the Edge TPU.
      cpu: operations that run on the processor.
      operators: its table.
    """

    version: str | None
    on_chip_bytes: int | None
    on_chip_remaining_bytes: int | None
    off_chip_bytes: int | None
    subgraphs: int | None
    tpu: int | None
    cpu: int | None
    operators: tuple[OperatorStatus, ...]


def find() -> str | None:
    """Where the compiler is; None if it is not installed."""
    return shutil.which(COMPILER)


def compile_model(flatbuffer: bytes, command: str) -> tuple[bytes, CompilerReport]:
    """The compiled model, and the compiler's report.

    Args:
      flatbuffer: an int8 model without an archive behind it.
      command: what `find` gave.

    Raises:
      CompilerError: one of its subclasses, by what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="tfqrl-edgetpu-") as folder:
        model, output = Path(folder, "model.tflite"), Path(folder, "model_edgetpu.tflite")
        write_atomically(model, flatbuffer)
        returncode, said = _run([command, "-s", "-o", folder, str(model)], Path(folder))
        if returncode or not output.is_file():
            raise failure(returncode, said)
        log = output.with_suffix(".log")
        if log.is_file():
            said += "\n" + log.read_text(errors="replace")
        compiled = output.read_bytes()
    report = read_report(said)
    if compiled[4:8] != b"TFL3":
        raise CompilerCrashError(f"{_name(report.version)} wrote something that is not a TFLite file.")
    try:
        same = edgetpu.interface(compiled) == edgetpu.interface(flatbuffer)
    except Exception as error:
        # Half a flatbuffer is read until anything at all goes wrong.
        raise CompilerCrashError(f"{_name(report.version)} wrote a file that cannot be read ({error}).") from error
    if CUSTOM_OP not in compiled:
        raise NothingMappedError(
            f"{_name(report.version)} mapped no operation to the Edge TPU: the result would run on the processor alone."
        )
    if not same:
        raise OtherInterfaceError(
            f"{_name(report.version)} changed the model's inputs or outputs, so its papers no longer fit."
        )
    return compiled, report


def read_report(said: str) -> CompilerReport:
    """The report in what the compiler said, on its standard output or in its log."""
    # A name, a number, and words, with spaces between.
    rows = re.findall(r"^([A-Z][A-Z0-9_]*)[ \t]+(\d+)[ \t]+(\S.*?)[ \t]*$", said, re.MULTILINE)
    # The table is both on the standard output and in the log.
    operators = tuple(dict.fromkeys(OperatorStatus(name, int(count), status) for name, count, status in rows))
    total = _number(r"Total number of operations: (\d+)", said)
    on_tpu = _number(r"Number of operations that will run on Edge TPU: (\d+)", said)
    on_cpu = _number(r"Number of operations that will run on CPU: (\d+)", said)
    if on_tpu is None and operators:
        on_tpu = sum(row.count for row in operators if row.status == MAPPED)
        on_cpu = sum(row.count for row in operators) - on_tpu
    elif on_tpu is None and total is not None:
        # It counts them only where some stay on the processor.
        on_tpu, on_cpu = total, 0
    version = re.search(r"Edge TPU Compiler version (\S+)", said)
    return CompilerReport(
        version[1] if version else None,
        _size("On-chip memory used for caching model parameters: ", said),
        _size("On-chip memory remaining for caching model parameters: ", said),
        _size("Off-chip memory used for streaming uncached model parameters: ", said),
        _number(r"Number of Edge TPU subgraphs: (\d+)", said),
        on_tpu,
        on_cpu,
        operators,
    )


def failure(returncode: int, said: str) -> CompilerError:
    """The error for a compiler that ended with `returncode`, without a model, having said this."""
    name = _name(read_report(said).version)
    for pattern, kind, words in _FAILURES:
        if match := re.search(pattern, said):
            return kind(f"{name} failed: {words.format(*match.groups())}.")
    if returncode < 0:
        return CompilerCrashError(f"{name} was ended by {signal.Signals(-returncode).name}.")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = f"said at last: {lines[-1].rstrip('.')}" if lines else "said nothing"
    return CompilerCrashError(f"{name} gave no model; it ended with exit code {returncode} and {last}.")


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    # A file rather than a pipe: it compiles in a child of its own, which would keep a pipe open after its end.
    with open(folder / "said", "w+b") as said:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        except OSError as error:
            raise CompilerCrashError(
                f"{command[0]} does not start: {error.strerror or error}. {HOW_TO_GET_IT}"
            ) from error
        try:
            returncode = child.wait(TIMEOUT_S)
        except BaseException as error:
            # With all its children: Ctrl-C does not reach them in a session of their own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CompilerTimeoutError(f"{COMPILER} did not end within {TIMEOUT_S:g} s.") from error
            raise
        said.seek(0)
        return returncode, said.read().decode(errors="replace")


def _name(version: str | None) -> str:
    return COMPILER if version is None else f"{COMPILER} {version}"


def _number(pattern: str, said: str) -> int | None:
    match = re.search(pattern, said)
    return int(match[1]) if match else None


def _size(label: str, said: str) -> int | None:
    match = re.search(re.escape(label) + r"(\d+(?:\.\d+)?)(B|KiB|MiB|GiB)\b", said)
    return round(float(match[1]) * _SIZE_UNITS[match[2]]) if match else None
