"""`tfqrl inspect`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from edge.files import check_writable, write_atomically
from edge.records import to_json
from edge.report import size, table
from tfqrl.options import optional, parse

if TYPE_CHECKING:
    from tfqrl.compress.report import LayerReport

BLOCKS = " ▁▂▃▄▅▆▇█"
HEADER = ("layer", "kernel", "left", "bits", "most", "total", "coded", "macs")


@dataclasses.dataclass(frozen=True)
class InspectCommand:
    """Show what compression has left of a policy, layer by layer.

    Example: tfqrl inspect runs/cheetah-qabp

    Example: tfqrl inspect runs/cheetah-qabp cheetah.tflite --json weights.json

    Attributes:
      run: the run.
      policies: files that it was converted to; their size and the time of an action are shown, too.
      json: write what is shown to this file.
    """

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    policies: Annotated[tyro.conf.Positional[tuple[Path, ...]], optional("[POLICY.tflite ...]")] = ()
    json: Annotated[Path | None, optional("FILE.json")] = None


def main(words: list[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(InspectCommand, "tfqrl inspect", words)
    if command.json is not None:
        check_writable(command.json)
    from edge.bench import bench
    from edge.conditions import Conditions
    from tfqrl import agents
    from tfqrl.compress.report import LOG_ALPHA_BINS, report, total
    from tfqrl.runs import Run

    network, _ = agents.load_trained(Run.open(command.run))
    layers = report(network)
    whole = total(layers)
    print(table(HEADER, [_row(layer) for layer in (*layers, whole)]))
    print(
        "\nleft: weights that are not gone; bits: of one of those, in the mean; total: their bits; coded: by an ideal "
        "coder, which\nhas to say where they lie, too.\n"
        f"{whole.left / whole.weights:.1%} of the weights are left, of {whole.mean_bits:.2f} bits each: "
        f"{whole.total_bits / whole.weights:.3f} bits a weight, {whole.entropy_bits / whole.weights:.3f} coded, of 32; "
        f"and {whole.biases} biases of 32."
    )
    if whole.log_alpha is not None:
        print(f"\nlog alpha, of noise over signal, from {LOG_ALPHA_BINS[0]:g} to {LOG_ALPHA_BINS[-1]:g}:")
        names = max(len(layer.layer) for layer in layers)
        for layer in (*layers, whole):
            print(f"{layer.layer:{names}}  |{_bars(layer.log_alpha or ())}|")
    plain: dict[str, Any] = {
        "run": str(command.run),
        "conditions": dataclasses.asdict(Conditions.now()),
        "layers": [dataclasses.asdict(layer) for layer in layers],
        "total": dataclasses.asdict(whole),
    }
    if command.policies:
        measured = bench(command.policies, energy_windows=0, progress=lambda text: print(text, file=sys.stderr))
        print()
        for entry in measured.entries:
            act_us = entry.act_us.p50
            print(f"{entry.label}: {size(entry.file_bytes)}, an action in {act_us.value:.1f} us")
        plain |= {"bench": dataclasses.asdict(measured)}
    if command.json is not None:
        write_atomically(command.json, to_json(plain).encode())
    return 0


def _row(layer: LayerReport) -> tuple[str, ...]:
    return (
        layer.layer,
        "x".join(map(str, layer.shape)),
        f"{layer.left / layer.weights:.1%}",
        f"{layer.mean_bits:.2f}",
        str(layer.max_bits),
        size(layer.total_bits / 8),
        size(layer.entropy_bits / 8),
        f"{layer.macs:,}",
    )


def _bars(counts: Sequence[int]) -> str:
    most = max((*counts, 1))
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // most)] for count in counts)
