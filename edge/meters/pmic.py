"""The power-management chip of the Raspberry Pi 5, by `vcgencmd pmic_read_adc`.

Each reading is a process, and to fork from a process that runs a control loop stops the loop meanwhile, whichever core
and thread does it. So a child process reads, whenever it is asked through a pipe. Not yet run on hardware.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from edge import children
from edge.meters.integral import PowerIntegral

_READING = re.compile(r"^\s*(\w+)_([AV]) (?:current|volt)\(\d+\)=([-+\d.eE]+)[AV]\s*$")

# What the project RPi5-power found between the sum of the rails and a meter at the USB-C input: a straight line fitted
# to means over 50 s. It is not from the board's maker, so it is off unless asked for.
CORRECTION_FACTOR, CORRECTION_W = 1.1327, 0.6444

BLIND_SPOTS = "not seen: USB, PCIe and fan at 5 V, and the converters' own losses"


# What a reading may take; beyond the 2 s that vcgencmd is given. The first has to wait for Python to start.
ANSWER_TIMEOUT_S, START_TIMEOUT_S = 3.0, 20.0


class PmicError(OSError):
    """`vcgencmd` is missing, failed, or printed something else."""


def read_output() -> str:
    """What `vcgencmd pmic_read_adc` prints now."""
    try:
        done = subprocess.run(["vcgencmd", "pmic_read_adc"], capture_output=True, text=True, timeout=2, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PmicError(f"vcgencmd cannot be run: {error}") from error
    if done.returncode:
        raise PmicError(f"vcgencmd failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def rail_power_w(output: str) -> dict[str, float]:
    """Watts of each rail that has both a current and a voltage.

    They are paired by name: the numbers in parentheses differ between the two. EXT5V and BATT have no current and are
    left out. Names differ between firmware versions, so none is built in.

    Raises:
      PmicError: there is no such rail in the output.
    """
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in output.splitlines():
        if match := _READING.match(line):
            name, unit, number = match.groups()
            with contextlib.suppress(ValueError):
                values[unit][name] = float(number)
    rails = {name: amperes * values["V"][name] for name, amperes in values["A"].items() if name in values["V"]}
    if not rails:
        raise PmicError(f"vcgencmd pmic_read_adc printed no rails: {output[:80]!r}")
    return rails


class Reader:
    """A child process that reads the sum of the rails when it is asked.

    It ends when its standard input does: at the latest when this process is gone, however that came about.

    Attributes:
      process_id: the child's.
    """

    def __init__(self) -> None:
        """Start the child."""
        # In a session of its own: Ctrl-C and a lost terminal are for the loop, which asks for the energy after them.
        self._process = subprocess.Popen(
            children.command("edge.meters.pmic"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.process_id = self._process.pid
        self._timeout_s = START_TIMEOUT_S
        self.close = weakref.finalize(self, _end, self._process)

    def __call__(self) -> float:
        """Watts of all rails together.

        Raises:
          PmicError: vcgencmd failed, the child is gone, or it did not answer in time, upon which it is ended.
        """
        asking, answers = self._process.stdin, self._process.stdout
        assert asking is not None
        assert answers is not None
        answer: dict[str, Any] | None = None
        reason = "is gone"
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            asking.write(b"\n")
            asking.flush()
            selector.register(answers, selectors.EVENT_READ)
            if selector.select(self._timeout_s):
                answer = json.loads(answers.readline())
            else:
                reason = "did not answer"
        if answer is None:
            # A late answer would be taken for that to the next question.
            self.close()
            raise PmicError(f"the process that reads vcgencmd {reason}")
        self._timeout_s = ANSWER_TIMEOUT_S
        if "error" in answer:
            raise PmicError(answer["error"])
        return float(answer["watts"])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def main(words: Sequence[str]) -> int:
    """What the child process does: for each line that it gets, a reading as a line of JSON."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A service manager sends SIGTERM to all processes of a service; the last reading is still to come.
        signal.signal(number, signal.SIG_IGN)
    for _ in sys.stdin.buffer:
        try:
            answer: dict[str, object] = {"watts": sum(rail_power_w(read_output()).values())}
        except PmicError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    return 0


class Pmic(PowerIntegral):
    """The sum of the rails, integrated.

    Attributes:
      process_id: of the process that reads them, which the sampler keeps off the loop's cores; None if there is none.
    """

    name = "pmic"
    measured = True

    def __init__(
        self,
        *,
        correct: bool = False,
        read_w: Callable[[], float] | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the rails now and from now on; `correct` applies the published line to the sum.

        Raises:
          PmicError: this is not a Raspberry Pi 5, or the user is not in the group `video`.
        """
        self.process_id: int | None = None
        if read_w is None:
            read_w = reader = Reader()
            self.process_id = reader.process_id
        sum_w = read_w

        super().__init__((lambda: sum_w() * CORRECTION_FACTOR + CORRECTION_W) if correct else sum_w, clock_s)
        how = f"x {CORRECTION_FACTOR} + {CORRECTION_W} W" if correct else "uncorrected"
        self.scope = f"measured: Raspberry Pi 5 PMIC rails, {how}; {BLIND_SPOTS}"
