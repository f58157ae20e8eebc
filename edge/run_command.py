"""`tfqrl-edge run`: from the command's options to a control loop, its report and the exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge import artifact, options, report, ticklog
from edge.conditions import Conditions
from edge.errors import OutputError, UsageError, UserError
from edge.files import check_writable, write_atomically
from edge.loop import ControlLoop
from edge.loop_report import SCHEMA_VERSION, LoopReport, RunReport
from edge.meters import find_meter
from edge.plants import choice
from edge.policy import Policy
from edge.realtime import Realtime
from edge.records import to_json
from edge.safety import ActionLimits, Cause, Safety
from edge.signals import Stopped, stop_signals

EPILOG = "\n".join(
    [
        "exit codes:",
        "  0 the duration is over; 1 it cannot be done here; 2 the command is wrong",
        "  129, 130, 143 SIGHUP, Ctrl-C, SIGTERM; and the loop stopped for:",
        *(f"  {cause.exit_code} {cause.text}" for cause in Cause),
        "",
        "examples:",
        "  tfqrl-edge run policy.tflite --duration 10 --log ticks.log",
        "  tfqrl-edge run policy.tflite --plant serial --port /dev/ttyUSB0 --failsafe zero --max-block 0.2",
        "  tfqrl-edge run policy.tflite --plant robot:Arm --set port=5000 --priority 80 --lock-memory --cpus 3",
    ]
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("policy", type=Path, help="the policy file (.tflite)")
    choice.add_options(parser)
    options.add_threads_and_device(parser)
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="ticks per second (default: the manifest's control rate)"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="seconds (default: until Ctrl-C)")
    parser.add_argument("--json", type=Path, help="write the report to this file too")
    parser.add_argument(
        "--log", type=Path, help="record every tick to this file, for `replay`; an older log is kept as FILE.1"
    )
    options.add_meter(parser)
    options.add_trust(parser)

    safety = parser.add_argument_group("safety", "when the failsafe action takes the place of the policy's")
    safety.add_argument(
        "--failsafe",
        default="hold",
        help="hold (the last good action; zero at the end), zero, or an action, as in --failsafe=-0.5,0.5; also "
        "what is written last of all (default: %(default)s)",
    )
    safety.add_argument(
        "--range-margin",
        type=_or_none(float),
        default=Safety.range_margin,
        metavar="FRACTION|none",
        help="how far beyond the manifest's bounds an observation may lie, as a fraction (default: %(default)s)",
    )
    safety.add_argument("--max-age", type=float, metavar="S", help="how old an observation may be")
    safety.add_argument("--max-block", type=float, metavar="S", help="how long a call of the plant may take")
    safety.add_argument("--max-missed", type=int, metavar="N", help="periods that may be missed in a row")
    safety.add_argument(
        "--stop-after",
        type=_or_none(int),
        metavar="N|none",
        default=Safety.stop_after,
        help="failsafe ticks in a row after which the loop stops (default: %(default)s)",
    )
    safety.add_argument("--slew", type=float, metavar="PER_S", help="largest change of an action per second")
    safety.add_argument("--low-pass", type=float, metavar="HZ", help="cut-off frequency of a low-pass on the actions")

    kernel = parser.add_argument_group("real time", "asked of the kernel; what it refuses is reported with its cure")
    kernel.add_argument("--priority", type=int, metavar="1..99", help="SCHED_FIFO priority")
    kernel.add_argument("--lock-memory", action="store_true", help="keep the process in memory (mlockall)")
    kernel.add_argument("--cpus", metavar="LIST", help="cores to run on, such as 2,3")
    kernel.add_argument("--no-gc", action="store_true", help="garbage collector off in the loop")


def run(given: argparse.Namespace) -> int:
    """Do what the options say; returns the exit code.

    Raises:
      UserError: the policy, plant or options cannot be used. Nothing was switched on, or it is off again.
    """
    source = artifact.read(given.policy, trust=options.trust(given))
    policy = Policy.from_artifact(source, threads=given.threads, device=given.device)
    chosen = choice.choose(given, source.manifest)
    keywords: dict[str, Any] = {
        "rate_hz": given.rate,
        "safety": Safety(
            _failsafe(given.failsafe),
            given.range_margin,
            given.max_age,
            given.max_block,
            given.max_missed,
            given.stop_after,
        ),
        "limits": ActionLimits(given.slew, given.low_pass),
        "wanted": Realtime(
            given.priority,
            given.lock_memory,
            None if given.cpus is None else options.integers("--cpus", given.cpus),
            not given.no_gc,
        ),
        "meter": find_meter(given.meter, given.cpu_watts, pmic_correction=given.pmic_correction),
        "log": given.log,
    }
    # What cannot be is refused before anything is switched on.
    ControlLoop(policy, chosen.plant, **keywords).ticks(given.duration)
    if given.json:
        check_writable(given.json)
    if given.log:
        check_writable(given.log)
        ticklog.check_replaceable(given.log)

    def write_report(loop_report: LoopReport, of_plant: choice.PlantReport) -> None:
        result = RunReport(
            SCHEMA_VERSION,
            policy.name,
            source.manifest.flatbuffer_sha256,
            chosen.name,
            of_plant.seed,
            of_plant.returns,
            of_plant.counts,
            loop_report,
            policy.runtime,
            Conditions.now(),
        )
        _say(report.run_text(result))
        if given.json:
            write_atomically(given.json, to_json(result).encode())

    def end_process() -> None:
        # The plant hangs where nothing reaches it: it cannot be asked or closed any more, and this thread is not the
        # loop's, so that the process can only be ended as it is. A service is then started anew.
        try:
            write_report(loop.report(), choice.PlantReport())
        finally:
            os._exit(Cause.PLANT_BLOCKED.exit_code)

    exit_code: int | None = None
    # Signals from here on: opening and closing a plant takes time, and must not be cut off half way.
    with stop_signals() as stop:
        try:
            with choice.opened(chosen) as plant:
                loop = ControlLoop(policy, plant, **keywords, on_dead_plant=end_process)
                _say(f"Running {policy.name} on {chosen.name} at {loop.rate_hz:g} Hz; Ctrl-C ends it.")
                try:
                    loop.run(duration_s=given.duration, stop=stop)
                finally:
                    ran = loop.report()
                    exit_code = ran.exit_code
                    try:
                        # Of a run that something kept from beginning there is nothing to tell, unless it was a signal.
                        if ran.failsafe_sent is not None or stop.number is not None:
                            write_report(ran, chosen.report())
                    except OutputError as error:
                        # The run's own code says more: a service must not start again after an emergency stop.
                        _complain(error)
                        exit_code = exit_code or error.exit_code
        except Stopped:
            # While the plant was opened, which the first signal did not end.
            assert stop.number is not None
            return 128 + stop.number
        except choice.ClosingError as error:
            if exit_code is None:
                raise
            _complain(error)
            exit_code = exit_code or error.exit_code
    return exit_code


def _say(text: str) -> None:
    # There may be nobody to print to: a lost session is one of the things that end a loop.
    with contextlib.suppress(OSError):
        print(text, flush=True)


def _complain(error: UserError) -> None:
    with contextlib.suppress(OSError):
        print(f"tfqrl-edge: {error}", file=sys.stderr)


def _or_none(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        return None if text == "none" else kind(text)

    parse.__name__ = f"{kind.__name__} or none"  # for argparse's messages
    return parse


def _failsafe(text: str) -> str | list[float]:
    if text in ("hold", "zero"):
        return text
    try:
        return [float(value) for value in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--failsafe takes hold, zero or numbers separated by commas; it was given {text!r}."
        ) from None
