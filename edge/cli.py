"""`tfqrl-edge`: look at, check, measure and run a policy file on the device."""

from __future__ import annotations

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from edge import artifact, report
from edge.bench import DEFAULT_CPU_WATTS, bench
from edge.conditions import Conditions
from edge.errors import UsageError, UserError
from edge.files import write_atomically
from edge.loop import SCHEMA_VERSION, ControlLoop, RunReport
from edge.policy import Policy
from edge.records import to_json

EXAMPLES = """examples:
  tfqrl-edge info policy.tflite
  tfqrl-edge verify policy.tflite
  tfqrl-edge bench policy.tflite --json bench.json
  tfqrl-edge run policy.tflite --env InvertedDoublePendulum-v5 --duration 10
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: the policy or the machine cannot do it. 2: the command is wrong. 130: Ctrl-C. 143: SIGTERM.
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
    commands = parser.add_subparsers(required=True, metavar="{info,verify,bench,run}")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("policy", type=Path, help="the policy file (.tflite)")
        command.set_defaults(command=function)
        return command

    info = add("info", _info, "Print what the file says of itself.")
    info.add_argument("--json", action="store_true", help="print the manifest as JSON")
    verify = add("verify", _verify, "Check the file and replay its golden pairs on this machine.")
    verify.add_argument("--threads", type=int, default=1, help="interpreter threads (default: %(default)s)")

    measure = add("bench", _bench, "Measure latency, memory and energy on this machine.")
    measure.add_argument("--n", type=int, default=20_000, help="calls to time (default: %(default)s)")
    measure.add_argument("--threads", type=int, default=1, help="interpreter threads (default: %(default)s)")
    measure.add_argument(
        "--cpu-watts",
        type=float,
        default=DEFAULT_CPU_WATTS,
        help="power per busy core to assume for the energy estimate where there is no meter (default: %(default)s)",
    )
    measure.add_argument("--json", type=Path, help="write the report to this file too")

    run = add("run", _run, "Drive a plant with the policy at a fixed rate.")
    run.add_argument("--env", help="Gymnasium environment (default: the one it was trained on)")
    run.add_argument("--seed", type=int, default=0, help="seed of the environment (default: %(default)s)")
    run.add_argument("--rate", type=float, help="ticks per second (default: the manifest's control rate)")
    run.add_argument("--duration", type=float, help="seconds (default: until Ctrl-C)")
    run.add_argument(
        "--failsafe",
        default="hold",
        help="what to write when the observation is unusable, and last of all: hold (zero at the end), zero, or an "
        "action, as in --failsafe=-0.5,0.5 (default: %(default)s)",
    )
    run.add_argument("--json", type=Path, help="write the report to this file too")
    return parser


def _info(options: argparse.Namespace) -> int:
    source = artifact.read(options.policy)
    text = to_json(source.manifest) if options.json else report.info_text(source, options.policy.stat().st_size)
    print(text)
    return 0


def _verify(options: argparse.Namespace) -> int:
    source = artifact.read(options.policy)
    policy = Policy.from_artifact(source, threads=options.threads)
    check = policy.replay(source.golden, source.manifest.golden_tolerance)
    print(
        f"OK: {policy.name} gives its {check.pairs} golden actions on {policy.runtime.name} "
        f"{policy.runtime.version} (largest difference {check.max_error:.3g})."
    )
    return 0


def _bench(options: argparse.Namespace) -> int:
    result = bench(options.policy, n=options.n, threads=options.threads, cpu_watts=options.cpu_watts)
    print(report.bench_text(result))
    if options.json:
        write_atomically(options.json, to_json(result).encode())
    return 0


def _run(options: argparse.Namespace) -> int:
    from edge.plants.gym import GymPlant

    source = artifact.read(options.policy)
    policy = Policy.from_artifact(source)
    env = options.env or source.manifest.training.get("env")
    if not isinstance(env, str):
        raise UsageError(f"{options.policy} names no environment. Give one with --env.")
    with GymPlant(env, policy.spec, seed=options.seed) as plant:
        loop = ControlLoop(policy, plant, rate_hz=options.rate, failsafe=_failsafe(options.failsafe))
        stop = _StopOnSignals(loop)
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
    return stop.exit_code


def _failsafe(text: str) -> str | list[float]:
    if text in ("hold", "zero"):
        return text
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--failsafe takes hold, zero or numbers separated by commas; it was given {text!r}."
        ) from None


class _StopOnSignals:
    """Lets the loop end by itself at the first signal, so that no write to the plant is cut in half.

    A second one, for a plant that is stuck, breaks off the tick; the failsafe action is written all the same. SIGHUP is
    what a lost ssh session sends.
    """

    def __init__(self, loop: ControlLoop) -> None:
        self._loop = loop
        self.exit_code = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code == 0:
            self.exit_code = 128 + number
            self._loop.stop(signal.Signals(number).name)
        else:
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(each, signal.SIG_IGN)
            raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
