"""`tfqrl convert --target edgetpu`: what of a policy Coral's Edge TPU will run, and the policy compiled for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from converters import edgetpu, edgetpu_compiler
from converters.edgetpu import StaticReport
from converters.edgetpu_compiler import COMPILER, CompilerReport
from edge import artifact
from edge.artifact import Artifact
from edge.errors import UsageError
from edge.files import check_writable, write_atomically
from edge.records import to_json
from edge.report import size

RECIPE = "int8-full"


@dataclass(frozen=True)
class EdgeTpuReport:
    """What is written beside the policy as JSON.

    Attributes:
      policy: name of the policy file that was checked.
      static: its model beside the Edge TPU's published rules.
      compiled: name of the compiled policy file; None without the compiler.
      compiler: what the compiler said; None without it.
    """

    policy: str
    static: StaticReport
    compiled: str | None = None
    compiler: CompilerReport | None = None


def compiled_path(out: Path) -> Path:
    """Where the compiled policy goes: beside `out`, under the name that the compiler itself would give it."""
    return out.with_name(f"{out.stem}_edgetpu.tflite")


def report_path(out: Path) -> Path:
    """Where the report goes: beside `out`."""
    return out.with_name(f"{out.stem}_edgetpu.json")


def check_command(recipe: str, weight_scales: str | None, out: Path, *, force: bool) -> None:
    """Refuse, before any work, what would come to nothing.

    Raises:
      UsageError: another recipe than int8-full, weights with a scale an output, or files that are there already and
        `force` is false.
      OutputError: files that cannot be written.
    """
    if recipe != RECIPE:
        raise UsageError(
            "The Edge TPU computes with 8-bit integers from input to output, so --target edgetpu needs "
            f"--recipe {RECIPE}, not {recipe}."
        )
    if weight_scales == "per-channel":
        raise UsageError("The Edge TPU's compiler knows one scale a layer: leave out --weight-scales per-channel.")
    for path in (compiled_path(out), report_path(out)):
        if path.exists() and not force:
            raise UsageError(f"{path} exists already. Give another --out, or --force to replace it.")
        check_writable(path)


def compile_for_edgetpu(policy: Artifact, out: Path, *, force: bool) -> None:
    """Print what the Edge TPU will run of a policy and write that as JSON; compile it, if the compiler is installed.

    Args:
      policy: of the recipe int8-full, as it was written to `out`.
      out: names the files: see `compiled_path` and `report_path`.
      force: replace files that are there. An older compiled policy goes even if there is no new one: it is not of the
        policy that is beside it now.

    Raises:
      CompilerError: the compiler is there and failed; the static report is written all the same.
      OutputError: a file cannot be written.
    """
    report = EdgeTpuReport(out.name, edgetpu.check(policy.flatbuffer))
    print(static_text(report.static))
    write_atomically(report_path(out), to_json(report).encode(), force=force)
    if force:
        compiled_path(out).unlink(missing_ok=True)
    command = edgetpu_compiler.find()
    if command is None:
        print(f"Not compiled: {COMPILER} is not on the PATH. {edgetpu_compiler.HOW_TO_GET_IT}")
        return
    flatbuffer, compiler = edgetpu_compiler.compile_model(policy.flatbuffer, command)
    artifact.write(compiled_path(out), wrap(policy, flatbuffer, compiler.version or "of unknown version"), force=force)
    report = dataclasses.replace(report, compiled=compiled_path(out).name, compiler=compiler)
    write_atomically(report_path(out), to_json(report).encode())
    print(compiler_text(compiler, compiled_path(out)))


def wrap(policy: Artifact, compiled: bytes, compiler_version: str) -> Artifact:
    """The compiled flatbuffer with the papers of the policy that it was compiled from."""
    manifest = policy.manifest
    note = (
        f"Compiled for the Edge TPU by {COMPILER} {compiler_version} from the model with SHA-256 "
        f"{manifest.flatbuffer_sha256}. The comparison, the golden pairs and their tolerance are that model's, on a "
        "processor; the compiled one was not run."
    )
    papers = dataclasses.replace(
        manifest,
        flatbuffer_sha256=artifact.sha256(compiled),
        flatbuffer_bytes=len(compiled),
        recipe={**manifest.recipe, "runtimes": ["libedgetpu"]},
        versions={**manifest.versions, COMPILER: compiler_version},
        compressed_bytes=None,
        notes=(*manifest.notes, note),
    )
    return Artifact(papers, compiled, policy.golden)


def static_text(report: StaticReport) -> str:
    """The static report as a table and two sentences."""
    rows = [
        (line.operation, line.runs_on, size(line.parameter_bytes), _short(line.layer), line.reason)
        for line in report.operations
    ]
    room = "fit" if report.fits_cache else "do not fit, and the rest is sent to it at every inference"
    return "\n".join(
        [
            _columns(("operation", "runs on", "parameters", "layer", "why"), rows),
            "",
            f"By its published rules the Edge TPU will run {report.tpu} of {len(report.operations)} operations; "
            f"{report.may_map} more may map, and {report.cpu} will run on the processor.",
            *([] if report.refused is None else [f"The compiler will refuse the model. {report.refused}."]),
            f"Its {size(report.parameter_bytes)} of parameters {room}: an estimate, because the chip's "
            f"{size(report.cache_bytes)} hold the program too.",
        ]
    )


def compiler_text(report: CompilerReport, path: Path) -> str:
    """The compiler's report as a table and sentences."""
    rows = [(row.operator, str(row.count), row.status) for row in report.operators]
    return "\n".join(
        [
            "",
            _columns(("compiled", "count", "status"), rows),
            "",
            f"{COMPILER} {report.version or 'of unknown version'} put {_known(report.tpu)} operations on the Edge TPU "
            f"and left {_known(report.cpu)} to the processor; {size(report.on_chip_bytes)} of parameters stay on the "
            f"chip, {size(report.off_chip_bytes)} are sent at every inference.",
            f"Wrote {path}. Its golden pairs are the int8-full policy's; they were not replayed, which takes an Edge "
            f"TPU. There: tfqrl-edge verify {path.name} --device edgetpu",
        ]
    )


def _known(number: int | None) -> str:
    return "an unknown number of" if number is None else str(number)


def _short(name: str) -> str:
    # TensorFlow joins the names of all that it fused.
    first = name.split(";")[0]
    return first if len(first) <= 32 else f"...{first[-29:]}"


def _columns(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    # `edge.report.table` is for numbers, which it puts to the right.
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in (header, *rows)
    )
