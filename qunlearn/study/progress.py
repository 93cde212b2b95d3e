"""How far a study is: a bar with rate and time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from qunlearn.study.executors import START_UP, Outcome
from qunlearn.study.task import Task

#: Seconds between two plain lines.
PAUSE = 10.0


class StudyProgress:
    """Shows outcomes as they come; a context manager.

    Args:
        tasks: what is to be done.
        seconds: what each of them is expected to cost one worker, by key.
        workers: how many work at once.
    """

    def __init__(self, tasks: Sequence[Task], seconds: dict[str, float], workers: int) -> None:
        self.total, self.done, self.failed = len(tasks), 0, 0
        self._left = {task.key: seconds.get(task.key, 0.0) for task in tasks}
        self._expected, self._workers = sum(self._left.values()), workers
        self._start = self._shown = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> StudyProgress:
        if sys.stderr.isatty():
            self._open_bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, outcome: Outcome) -> None:
        """Take note of an outcome and show it."""
        self._left.pop(outcome.task.key, None)
        self.done += 1
        self.failed += outcome.status == "failed"
        if outcome.status == "failed":
            self.say(f"failed: {outcome.task.title}: {outcome.message}")
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, known=f"{self._rate()}, {left(self.seconds_left())}")
        elif time.monotonic() - self._shown >= PAUSE or self.done == self.total:
            self._shown = time.monotonic()
            self.say(f"{self.done} of {self.total} done, {self._rate()}, {left(self.seconds_left())}")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def seconds_left(self) -> float:
        """Expected seconds of what is left, at the speed seen so far."""
        ahead = sum(self._left.values())
        expected = START_UP + (self._expected - ahead) / self._workers
        return ahead / self._workers * max(time.monotonic() - self._start, START_UP) / expected

    def _rate(self) -> str:
        return f"{self.done / max(time.monotonic() - self._start, 1e-9):.1f} tasks/s"

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[known]}"), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("study", total=self.total, known="starting workers")
        self._bar.start()


def left(seconds: float) -> str:
    """Seconds in words, rounded as one says them."""
    return f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """A duration in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
