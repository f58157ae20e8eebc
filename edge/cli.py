"""`tfqrl-edge`: look at, check, measure and run a policy file on the device."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import artifact, compare, report, ticklog
from edge.artifact import Artifact
from edge.bench import bench
from edge.conditions import Conditions
from edge.errors import UsageError, UserError
from edge.files import check_writable, write_atomically
from edge.loop import ControlLoop
from edge.loop_report import SCHEMA_VERSION, LoopReport, RunReport
from edge.meters import DEFAULT_CPU_WATTS, best_meter
from edge.plants import choice
from edge.policy import Policy
from edge.realtime import Realtime
from edge.records import to_json
from edge.safety import ActionLimits, Cause, Safety

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

DEVICE_HELP = "cpu, edgetpu, edgetpu:usb:N or edgetpu:pci:N (default: %(default)s)"
WATTS_HELP = "power per busy core to assume for the energy estimate where there is no meter (default: %(default)s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: the policy or the machine cannot do it. 2: the command is wrong. 10..17: the loop stopped for a `Cause`.
    130: Ctrl-C. 143: SIGTERM. 129: SIGHUP.
    """
    options = parser().parse_args(arguments)
    # numpy's warnings of infinite observations; the policy reports them by itself.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"edge\.policy")
    try:
        return int(options.command(options))
    except UserError as error:
        print(f"tfqrl-edge: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `tfqrl deploy` looks at the options of a service with it."""
    parser = argparse.ArgumentParser(
        "tfqrl-edge", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="{info,verify,bench,compare,run,replay}")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("policy", type=Path, help="the policy file (.tflite)")
        command.set_defaults(command=function)
        return command

    info = add("info", _info, "Print what the file says of itself.")
    info.add_argument("--json", action="store_true", help="print the manifest as JSON")
    verify = add("verify", _verify, "Check the file and replay its golden pairs on this machine.")
    verify.add_argument("--threads", type=int, default=1, help="interpreter threads (default: %(default)s)")
    verify.add_argument("--device", default="cpu", metavar="DEVICE", help=DEVICE_HELP)
    _add_trust(verify)

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
    measure.add_argument("--device", default="cpu", metavar="DEVICE", help=DEVICE_HELP)
    measure.add_argument(
        "--rate", type=float, metavar="HZ", help="run the control loop at this rate too, for 10 s each"
    )
    measure.add_argument(
        "--energy-windows",
        type=int,
        default=5,
        metavar="N",
        help="pairs of idle and active windows of 10 s each, where there is a meter; 0 for none (default: %(default)s)",
    )
    _add_meter_options(measure)
    measure.add_argument("--json", type=Path, help="write the report to this file too")
    measure.add_argument("--markdown", type=Path, help="write the tables to this file too")
    _add_trust(measure)
    measure.set_defaults(command=_bench)

    text = "Compare two reports of `bench --json`, figure by figure, where their intervals carry a difference."
    versus = commands.add_parser("compare", help=text, description=text)
    versus.add_argument("a", type=Path, help="a report")
    versus.add_argument("b", type=Path, help="another")
    versus.add_argument("--json", type=Path, help="write the comparison to this file too")
    versus.set_defaults(command=_compare)

    run = add("run", _run, "Drive a plant with the policy at a fixed rate.")
    choice.add_options(run)
    run.add_argument("--device", default="cpu", metavar="DEVICE", help=DEVICE_HELP)
    run.add_argument("--rate", type=float, help="ticks per second (default: the manifest's control rate)")
    run.add_argument("--duration", type=float, help="seconds (default: until Ctrl-C)")
    run.add_argument("--json", type=Path, help="write the report to this file too")
    run.add_argument("--log", type=Path, help="record every tick to this file, for `replay`")
    _add_meter_options(run)
    _add_trust(run)

    safety = run.add_argument_group("safety", "when the failsafe action takes the place of the policy's")
    safety.add_argument(
        "--failsafe",
        default="hold",
        help="hold (the last good action; zero at the end), zero, or an action, as in --failsafe=-0.5,0.5; also "
        "what is written last of all (default: %(default)s)",
    )
    safety.add_argument(
        "--range-margin",
        type=float,
        default=Safety.range_margin,
        help="how far beyond the manifest's bounds an observation may lie, as a fraction (default: %(default)s)",
    )
    safety.add_argument("--max-age", type=float, metavar="S", help="how old an observation may be")
    safety.add_argument("--max-block", type=float, metavar="S", help="how long a call of the plant may take")
    safety.add_argument("--max-missed", type=int, metavar="N", help="deadlines that may be missed in a row")
    safety.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        default=Safety.stop_after,
        help="failsafe ticks in a row after which the loop stops; the exit code says why (default: %(default)s)",
    )
    safety.add_argument("--slew", type=float, metavar="PER_S", help="largest change of an action per second")
    safety.add_argument("--low-pass", type=float, metavar="HZ", help="cut-off frequency of a low-pass on the actions")

    kernel = run.add_argument_group("real time", "asked of the kernel; what it refuses is reported with its cure")
    kernel.add_argument("--priority", type=int, metavar="1..99", help="SCHED_FIFO priority")
    kernel.add_argument("--lock-memory", action="store_true", help="keep the process in memory (mlockall)")
    kernel.add_argument("--cpus", metavar="LIST", help="cores to run on, such as 2,3")
    kernel.add_argument("--no-gc", action="store_true", help="garbage collector off in the loop")

    again = commands.add_parser("replay", help="Re-run a log and compare the actions.", description=_replay.__doc__)
    again.add_argument("log", type=Path, help="what `run --log` wrote")
    again.add_argument("policy", type=Path, help="the policy file (.tflite)")
    again.set_defaults(command=_replay)
    return parser


def _add_trust(command: argparse.ArgumentParser) -> None:
    signed = command.add_argument_group("signature", "checked before anything in the file is parsed")
    signed.add_argument(
        "--trust",
        type=Path,
        action="append",
        metavar="KEY.pub",
        help="the file must be signed by a key in this one; may be given several times",
    )
    signed.add_argument(
        "--require-signature",
        action="store_true",
        help="do nothing without a --trust: for scripts from which it must not get lost",
    )


def _read(options: argparse.Namespace) -> Artifact:
    return artifact.read(options.policy, trust=_trust(options))


def _trust(options: argparse.Namespace) -> list[Path] | None:
    if options.require_signature and not options.trust:
        raise UsageError("--require-signature needs to know whose: add --trust KEY.pub.")
    trust: list[Path] | None = options.trust
    return trust


def _add_meter_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--cpu-watts", type=float, default=DEFAULT_CPU_WATTS, help=WATTS_HELP)
    command.add_argument(
        "--pmic-correction",
        action="store_true",
        help="Raspberry Pi 5: correct the sum of the rails by the line that others fitted to a meter at the plug",
    )


def _info(options: argparse.Namespace) -> int:
    source = artifact.read(options.policy)
    text = to_json(source.manifest) if options.json else report.info_text(source, options.policy.stat().st_size)
    print(text)
    return 0


def _verify(options: argparse.Namespace) -> int:
    source = _read(options)
    policy = Policy.from_artifact(source, threads=options.threads, device=options.device)
    check = policy.replay(source.golden, source.manifest.golden_tolerance)
    print(
        f"OK: {policy.name} gives its {check.pairs} golden actions on {policy.runtime} "
        f"(largest difference {check.max_error:.3g})."
    )
    return 0


def _bench(options: argparse.Namespace) -> int:
    for output in (options.json, options.markdown):
        if output:
            check_writable(output)
    result = bench(
        options.policies,
        against=[_peer(text) for text in options.against],
        n=options.n,
        threads=_integers("--threads", options.threads),
        device=options.device,
        trust=_trust(options),
        rate_hz=options.rate,
        energy_windows=options.energy_windows,
        cpu_watts=options.cpu_watts,
        pmic_correction=options.pmic_correction,
        progress=_progress,
    )
    print(report.bench_text(result))
    if options.json:
        write_atomically(options.json, to_json(result).encode())
    if options.markdown:
        write_atomically(options.markdown, report.bench_markdown(result).encode())
    return 0


def _compare(options: argparse.Namespace) -> int:
    result = compare.compare(compare.read(options.a), compare.read(options.b))
    print(report.compare_text(result))
    if options.json:
        write_atomically(options.json, to_json(result).encode())
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


def _run(options: argparse.Namespace) -> int:
    source = _read(options)
    policy = Policy.from_artifact(source, device=options.device)
    safety = Safety(
        _failsafe(options.failsafe),
        options.range_margin,
        options.max_age,
        options.max_block,
        options.max_missed,
        options.stop_after,
    )
    wanted = Realtime(
        options.priority,
        options.lock_memory,
        None if options.cpus is None else _integers("--cpus", options.cpus),
        not options.no_gc,
    )
    chosen = choice.choose(options, source.manifest)

    def tell(loop: LoopReport, told: choice.Told) -> None:
        result = RunReport(
            SCHEMA_VERSION,
            policy.name,
            source.manifest.flatbuffer_sha256,
            chosen.name,
            told.seed,
            told.returns,
            told.counts,
            loop,
            policy.runtime,
            Conditions.now(),
        )
        if options.json:
            write_atomically(options.json, to_json(result).encode())
        # There may be nobody to print to: a lost session is one of the things that end a loop.
        with contextlib.suppress(OSError):
            print(report.run_text(result), flush=True)

    def end_process() -> None:
        # The plant hangs where nothing reaches it: it cannot be asked or closed any more, and this thread is not the
        # loop's, so that the process can only be ended as it is. A service is then started anew.
        try:
            tell(loop.report(), choice.Told())
        finally:
            os._exit(Cause.PLANT_BLOCKED.exit_code)

    with choice.opened(chosen) as plant:
        loop = ControlLoop(
            policy,
            plant,
            rate_hz=options.rate,
            safety=safety,
            limits=ActionLimits(options.slew, options.low_pass),
            wanted=wanted,
            meter=best_meter(options.cpu_watts, pmic_correction=options.pmic_correction),
            log=options.log,
            on_dead_plant=end_process,
        )
        print(f"Running {policy.name} on {chosen.name} at {loop.rate_hz:g} Hz; Ctrl-C ends it.", flush=True)
        try:
            loop.run(duration_s=options.duration)
        finally:
            tell(loop.report(), chosen.told())
    return loop.report().exit_code


def _replay(options: argparse.Namespace) -> int:
    """Give the policy the observations of a log again, and say whether its actions come out the same."""
    header, records = ticklog.read(options.log)
    policy = Policy.load(options.policy)
    result = ticklog.replay(policy, header, records)
    print(
        f"{result.compared} of {len(records)} recorded ticks were the policy's own; {result.different} of them come "
        f"out differently (largest difference {result.max_error:.3g})."
    )
    return 1 if result.different else 0


def _integers(option: str, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise UsageError(f"{option} takes numbers separated by commas; it was given {text!r}.") from None


def _failsafe(text: str) -> str | list[float]:
    if text in ("hold", "zero"):
        return text
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--failsafe takes hold, zero or numbers separated by commas; it was given {text!r}."
        ) from None


if __name__ == "__main__":
    sys.exit(main())
