"""Reading a meter often enough, beside whatever is being measured."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.meters import Meter

# Vcgencmd is a process for each reading: ten a second is what can be had without using much of what is measured.
PERIOD_S = 0.1

# A sensor that has not answered by then never will; a run that is over does not wait for it.
TIMEOUT_S = 3.0


class Sampler:
    """A meter that is read every `period_s` by a thread of its own, so that integrated power misses little.

    Attributes:
      name, measured, scope: the meter's.
    """

    def __init__(self, meter: Meter, *, avoid_cpus: Iterable[int] = (), period_s: float = PERIOD_S) -> None:
        """Sample `meter` between entering and leaving, on other cores than `avoid_cpus` if there are others."""
        self._meter, self._period_s = meter, period_s
        self._avoid_cpus = frozenset(avoid_cpus)
        self.name, self.measured, self.scope = meter.name, meter.measured, meter.scope
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._sample, name="meter", daemon=True)

    def energy_j(self) -> float:
        """See `Meter`. Raises OSError if the sensor has failed, now or since the last call."""
        if not self._lock.acquire(timeout=TIMEOUT_S):
            raise OSError(f"{self.name} has not answered for {TIMEOUT_S:g} s")
        try:
            error, self._error = self._error, None
            if error is not None:
                raise error
            return self._read_j()
        finally:
            self._lock.release()

    def __enter__(self) -> Sampler:
        try:
            self._thread.start()
        except RuntimeError as error:
            self._error = OSError(f"{self.name} is not read: {error}")
        return self

    def __exit__(self, *details: object) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT_S)

    def _sample(self) -> None:
        others = os.sched_getaffinity(0) - self._avoid_cpus
        if self._avoid_cpus and others:
            # Of this thread alone, and of the process that some meters read through. A core that went offline is no
            # reason to stop.
            for process_id in (0, getattr(self._meter, "process_id", None)):
                if process_id is not None:
                    with contextlib.suppress(OSError):
                        os.sched_setaffinity(process_id, others)
        while not self._closing.wait(self._period_s):
            with self._lock:
                try:
                    self._read_j()
                except OSError as error:
                    self._error = error

    def _read_j(self) -> float:
        try:
            energy_j = float(self._meter.energy_j())
        except OSError:
            raise
        except Exception as error:
            # What a driver in trouble gives is often text, or nothing, where a number was.
            raise OSError(f"{self.name} gave no number: {error}") from error
        if not math.isfinite(energy_j):
            raise OSError(f"{self.name} gave {energy_j:g} J")
        return energy_j
