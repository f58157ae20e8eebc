"""What long work shows of itself: training a bar, TensorBoard scalars and the run's metrics file; other work a bar."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.summary import Writer

from tfqrl.runs import Run

# Where the output is not a terminal, a line this often instead of a bar.
LOG_PERIOD_S = 10.0


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[[float], None]]:
    """A bar that is gone when the work is done, on a terminal; tell it the fraction that is, 0..1."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)


class StepsBar:
    """How far a training is, on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, name: str, total_steps: int, done_steps: int) -> None:
        """Of `name`, which is at `done_steps` of `total_steps`."""
        self._total_steps = total_steps
        # (time, steps) of the latest iterations: the rate that is shown is theirs, not that of the slow first one.
        self._recent: deque[tuple[float, int]] = deque(maxlen=50)
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[status]}  left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task(name, total=total_steps, completed=done_steps, status="starting")
        self._first_steps, self._ended = done_steps, False

    def __enter__(self) -> StepsBar:
        """Start it."""
        self._bar.start()
        self._logged_s = time.perf_counter()
        self._recent.append((self._logged_s, self._first_steps))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self._bar.stop()

    def update(self, steps: int, status: str) -> float:
        """Show that `steps` are done, and `status`; returns the steps per second of late."""
        now_s = time.perf_counter()
        self._recent.append((now_s, steps))
        (first_s, first_steps), (last_s, last_steps) = self._recent[0], self._recent[-1]
        steps_per_s = (last_steps - first_steps) / (last_s - first_s)
        status = f"{steps_per_s:,.0f} steps/s  {status}"
        self._bar.update(self._task, completed=steps, status=status)
        ends = steps >= self._total_steps and not self._ended
        if not self._console.is_terminal and (now_s - self._logged_s > LOG_PERIOD_S or ends):
            self._logged_s, self._ended = now_s, ends or self._ended
            left_s = (self._total_steps - steps) / max(steps_per_s, 1e-9)
            self._console.print(f"{steps:,} of {self._total_steps:,} steps  {status}  {max(left_s, 0):.0f} s left")
        return steps_per_s

    def tell(self, text: str) -> None:
        """Print a line above it."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class TrainingProgress:
    """Reports each iteration of a training to the terminal, TensorBoard and the run."""

    def __init__(self, run: Run, total_steps: int, done_steps: int) -> None:
        """Report on `run`, which is at `done_steps` of `total_steps`."""
        self._run = run
        self._bar = StepsBar(str(run.path), total_steps, done_steps)
        # A run that is resumed goes on counting.
        self._earlier_s = max((record["elapsed_s"] for record in run.metrics()), default=0.0)
        self._writer = Writer(str(run.path))

    def __enter__(self) -> TrainingProgress:
        """Start the bar."""
        self._bar.__enter__()
        self._began_s = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the bar and flush the scalars."""
        self._bar.__exit__(kind, error, traceback)
        self._writer.close()

    def report(self, steps: int, metrics: Mapping[str, float]) -> None:
        """Report one iteration that ended at `steps`; "return" in `metrics`, if there, is shown."""
        result = f"return {metrics['return']:.1f}" if "return" in metrics else "no episode has ended yet"
        steps_per_s = self._bar.update(steps, result)
        elapsed_s = self._earlier_s + time.perf_counter() - self._began_s
        self._run.append_metrics({"steps": steps, "elapsed_s": elapsed_s, "steps_per_s": steps_per_s, **metrics})
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step=steps)
        self._writer.add_scalar("steps_per_s", steps_per_s, step=steps)
