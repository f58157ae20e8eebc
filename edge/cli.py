"""`tfqrl-edge`: look at, check, measure and run a policy file on the device."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge import artifact, report, ticklog
from edge.artifact import Artifact
from edge.bench import bench
from edge.conditions import Conditions
from edge.errors import UsageError, UserError
from edge.files import write_atomically
from edge.loop import SCHEMA_VERSION, ControlLoop, RunReport
from edge.meters import DEFAULT_CPU_WATTS, best_meter
from edge.policy import Policy
from edge.realtime import Realtime
from edge.records import to_json
from edge.safety import ActionLimits, Safety

EXAMPLES = """examples:
  tfqrl-edge info policy.tflite
  tfqrl-edge verify policy.tflite
  tfqrl-edge verify policy.tflite --trust maker.pub --require-signature
  tfqrl-edge bench policy.tflite --json bench.json
  tfqrl-edge run policy.tflite --env InvertedDoublePendulum-v5 --duration 10 --log ticks.log
  tfqrl-edge replay ticks.log policy.tflite
"""

WATTS_HELP = "power per busy core to assume for the energy estimate where there is no meter (default: %(default)s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: the policy or the machine cannot do it. 2: the command is wrong. 10..17: the loop stopped for a `Cause`.
    130: Ctrl-C. 143: SIGTERM. 129: SIGHUP.
    """
    options = _parser().parse_args(arguments)
    # numpy's warnings of infinite observations; the policy reports them by itself.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"edge\.policy")
    try:
        return int(options.command(options))
    except UserError as error:
        print(f"tfqrl-edge: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tfqrl-edge", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="{info,verify,bench,run,replay}")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("policy", type=Path, help="the policy file (.tflite)")
        command.set_defaults(command=function)
        return command

    info = add("info", _info, "Print what the file says of itself.")
    info.add_argument("--json", action="store_true", help="print the manifest as JSON")
    verify = add("verify", _verify, "Check the file and replay its golden pairs on this machine.")
    verify.add_argument("--threads", type=int, default=1, help="interpreter threads (default: %(default)s)")

    _add_trust(verify)

    measure = add("bench", _bench, "Measure latency, memory and energy on this machine.")
    measure.add_argument("--n", type=int, default=20_000, help="calls to time (default: %(default)s)")
    measure.add_argument("--threads", type=int, default=1, help="interpreter threads (default: %(default)s)")
    measure.add_argument("--cpu-watts", type=float, default=DEFAULT_CPU_WATTS, help=WATTS_HELP)
    measure.add_argument("--json", type=Path, help="write the report to this file too")
    _add_trust(measure)

    run = add("run", _run, "Drive a plant with the policy at a fixed rate.")
    run.add_argument("--env", help="Gymnasium environment (default: the one it was trained on)")
    run.add_argument("--seed", type=int, default=0, help="seed of the environment (default: %(default)s)")
    run.add_argument("--rate", type=float, help="ticks per second (default: the manifest's control rate)")
    run.add_argument("--duration", type=float, help="seconds (default: until Ctrl-C)")
    run.add_argument("--json", type=Path, help="write the report to this file too")
    run.add_argument("--log", type=Path, help="record every tick to this file, for `replay`")
    run.add_argument("--cpu-watts", type=float, default=DEFAULT_CPU_WATTS, help=WATTS_HELP)
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


def _info(options: argparse.Namespace) -> int:
    source = artifact.read(options.policy)
    text = to_json(source.manifest) if options.json else report.info_text(source, options.policy.stat().st_size)
    print(text)
    return 0


def _verify(options: argparse.Namespace) -> int:
    source = _read(options)
    policy = Policy.from_artifact(source, threads=options.threads)
    check = policy.replay(source.golden, source.manifest.golden_tolerance)
    print(
        f"OK: {policy.name} gives its {check.pairs} golden actions on {policy.runtime.name} "
        f"{policy.runtime.version} (largest difference {check.max_error:.3g})."
    )
    return 0


def _bench(options: argparse.Namespace) -> int:
    result = bench(
        options.policy, n=options.n, threads=options.threads, cpu_watts=options.cpu_watts, trust=_trust(options)
    )
    print(report.bench_text(result))
    if options.json:
        write_atomically(options.json, to_json(result).encode())
    return 0


def _run(options: argparse.Namespace) -> int:
    from edge.plants.gym import GymPlant

    source = _read(options)
    policy = Policy.from_artifact(source)
    env = options.env or source.manifest.training.get("env")
    if not isinstance(env, str):
        raise UsageError(f"{options.policy} names no environment. Give one with --env.")
    safety = Safety(
        _failsafe(options.failsafe),
        options.range_margin,
        options.max_age,
        options.max_block,
        options.max_missed,
        options.stop_after,
    )
    wanted = Realtime(options.priority, options.lock_memory, _cpus(options.cpus), not options.no_gc)
    with GymPlant(env, policy.spec, seed=options.seed) as plant:
        loop = ControlLoop(
            policy,
            plant,
            rate_hz=options.rate,
            safety=safety,
            limits=ActionLimits(options.slew, options.low_pass),
            wanted=wanted,
            meter=best_meter(options.cpu_watts),
            log=options.log,
        )
        print(f"Running {policy.name} on {env} at {loop.rate_hz:g} Hz; Ctrl-C ends it.", flush=True)
        try:
            loop.run(duration_s=options.duration)
        finally:
            result = RunReport(
                SCHEMA_VERSION,
                policy.name,
                source.manifest.flatbuffer_sha256,
                env,
                options.seed,
                tuple(plant.returns),
                loop.report(),
                Conditions.now(policy.runtime),
            )
            print(report.run_text(result), flush=True)
            if options.json:
                write_atomically(options.json, to_json(result).encode())
    return result.loop.exit_code


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


def _cpus(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(core) for core in text.split(",")]
    except ValueError:
        raise UsageError(f"--cpus takes core numbers separated by commas; it was given {text!r}.") from None


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
