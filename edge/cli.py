"""`tfqrl-edge`: look at, check, measure and run a policy file on the device."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import artifact, compare, options, report, run_command, ticklog
from edge.bench import bench
from edge.errors import UsageError, UserError
from edge.files import check_writable, write_atomically
from edge.policy import Policy
from edge.records import to_json

EXAMPLES = """examples:
  tfqrl-edge info policy.tflite
  tfqrl-edge verify policy.tflite
  tfqrl-edge verify policy.tflite --trust maker.pub --require-signature
  tfqrl-edge bench float32.tflite int8.tflite --threads 1,2 --rate 100 --json bench.json
  tfqrl-edge compare bench.json bench-of-another-board.json
  tfqrl-edge run policy.tflite --env InvertedDoublePendulum-v5 --duration 10 --log ticks.log
  tfqrl-edge run policy.tflite --plant hil --connect tcp://192.168.1.20:5757 --keys hil-keys
  tfqrl-edge run policy.tflite --plant serial --port /dev/ttyUSB0 --failsafe zero --max-age 0.1
  tfqrl-edge run policy.tflite --plant gpio --wiring wiring.json --failsafe zero
  tfqrl-edge run policy.tflite --plant robot:Arm --set port=5000
  tfqrl-edge replay ticks.log policy.tflite
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: the policy or the machine cannot do it. 2: the command is wrong. 10..18: the loop stopped for a `Cause`.
    130: Ctrl-C. 143: SIGTERM. 129: SIGHUP.
    """
    given = parser().parse_args(arguments)
    # numpy's warnings of infinite observations; the policy reports them by itself.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"edge\.policy")
    try:
        return int(given.command(given))
    except UserError as error:
        print(f"tfqrl-edge: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Who reads has read enough, as `head` does. What Python would still flush at its exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `tfqrl deploy` looks at the options of a service with it."""
    program = argparse.ArgumentParser(
        "tfqrl-edge", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    program.add_argument("--version", action="version", version=f"tfqrl {importlib.metadata.version('tfqrl')}")
    commands = program.add_subparsers(required=True, metavar="{info,verify,bench,compare,run,replay}")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("policy", type=Path, help="the policy file (.tflite)")
        command.set_defaults(command=function)
        return command

    info = add("info", _info, "Print what the file says of itself.")
    info.add_argument("--json", action="store_true", help="print the manifest as JSON")
    options.add_trust(info)
    verify = add("verify", _verify, "Check the file and replay its golden pairs on this machine.")
    options.add_threads_and_device(verify)
    options.add_trust(verify)

    text = "Measure latency, memory and energy on this machine, of several policies in turns."
    measure = commands.add_parser("bench", help=text, description=text)
    measure.add_argument("policies", type=Path, nargs="+", metavar="policy", help="policy files (.tflite)")
    measure.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="onnxruntime=FILE",
        help="measure this model beside them, in the runtime that is named; may be repeated",
    )
    measure.add_argument("--n", type=int, default=20_000, help="calls of each to time (default: %(default)s)")
    measure.add_argument(
        "--threads", default="1", metavar="LIST", help="numbers of interpreter threads, such as 1,2,4 (default: 1)"
    )
    options.add_device(measure)
    measure.add_argument(
        "--rate", type=float, metavar="HZ", help="run the control loop at this rate too, for 10 s each"
    )
    measure.add_argument(
        "--energy-windows",
        type=int,
        default=5,
        metavar="N",
        help="pairs of idle and active windows of 10 s each, at least 3, where there is a meter; 0 for none "
        "(default: %(default)s)",
    )
    options.add_meter(measure)
    measure.add_argument("--json", type=Path, help="write the report to this file too")
    measure.add_argument("--markdown", type=Path, help="write the tables to this file too")
    options.add_trust(measure)
    measure.set_defaults(command=_bench)

    text = "Compare two reports of `bench --json`, figure by figure, where their intervals carry a difference."
    versus = commands.add_parser("compare", help=text, description=text)
    versus.add_argument("a", type=Path, help="a report")
    versus.add_argument("b", type=Path, help="another")
    versus.add_argument("--json", type=Path, help="write the comparison to this file too")
    versus.set_defaults(command=_compare)

    text = "Drive a plant with the policy at a fixed rate."
    run = commands.add_parser(
        "run",
        help=text,
        description=text,
        epilog=run_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run_command.add_options(run)
    run.set_defaults(command=run_command.run)

    again = commands.add_parser("replay", help="Re-run a log and compare the actions.", description=_replay.__doc__)
    again.add_argument("log", type=Path, help="what `run --log` wrote")
    again.add_argument("policy", type=Path, help="the policy file (.tflite)")
    options.add_device(again)
    options.add_trust(again)
    again.set_defaults(command=_replay)
    return program


def _info(given: argparse.Namespace) -> int:
    source = artifact.read(given.policy, trust=options.trust(given))
    text = to_json(source.manifest) if given.json else report.info_text(source, given.policy.stat().st_size)
    print(text)
    return 0


def _verify(given: argparse.Namespace) -> int:
    source = artifact.read(given.policy, trust=options.trust(given))
    policy = Policy.from_artifact(source, threads=given.threads, device=given.device)
    check = policy.replay(source.golden, source.manifest.golden_tolerance)
    print(
        f"OK: {policy.name} gives its {check.pairs} golden actions on {policy.runtime} "
        f"(largest difference {check.max_error:.3g})."
    )
    return 0


def _bench(given: argparse.Namespace) -> int:
    for output in (given.json, given.markdown):
        if output:
            check_writable(output)
    result = bench(
        given.policies,
        against=[_peer(text) for text in given.against],
        n=given.n,
        threads=options.integers("--threads", given.threads),
        device=given.device,
        trust=options.trust(given),
        rate_hz=given.rate,
        energy_windows=given.energy_windows,
        meter=given.meter,
        cpu_watts=given.cpu_watts,
        pmic_correction=given.pmic_correction,
        progress=_progress,
    )
    print(report.bench_text(result))
    if given.json:
        write_atomically(given.json, to_json(result).encode())
    if given.markdown:
        write_atomically(given.markdown, report.bench_markdown(result).encode())
    return 0


def _compare(given: argparse.Namespace) -> int:
    if given.json:
        check_writable(given.json)
    result = compare.compare(compare.read(given.a), compare.read(given.b))
    print(report.compare_text(result))
    if given.json:
        write_atomically(given.json, to_json(result).encode())
    return 0


def _progress(text: str) -> None:
    # A measurement of minutes must not look as if it hung; what is piped gets only the result.
    if sys.stderr.isatty():
        print(f"{text} ...", file=sys.stderr, flush=True)


def _peer(text: str) -> tuple[str, Path]:
    kind, separator, path = text.partition("=")
    if not separator:
        raise UsageError(f"--against takes a runtime and a model, onnxruntime=FILE; it was given {text!r}.")
    return kind, Path(path)


def _replay(given: argparse.Namespace) -> int:
    """Give the policy the observations of a log again, and say whether its actions come out the same."""
    header, records = ticklog.read(given.log)
    policy = Policy.load(given.policy, device=given.device, trust=options.trust(given))
    assert policy.manifest is not None
    if header.flatbuffer_sha256 != policy.manifest.flatbuffer_sha256:
        print(f"warning: the log is of another model ({header.policy}) than {given.policy}.")
    result = ticklog.replay(policy, header, records)
    print(
        f"{result.compared} of {len(records)} recorded ticks were the policy's own; {result.different} of them come "
        f"out differently (largest difference {result.max_error:.3g})."
    )
    if result.compared == 0:
        raise UserError(f"{given.log} has no tick of the policy's own: there is nothing to compare.")
    return 1 if result.different else 0


if __name__ == "__main__":
    sys.exit(main())
