"""How far a study is: a bar with rate and time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from qunlearn.study.executors import START_UP, Outcome
from qunlearn.study.task import Task

#: Seconds between two plain lines.
PAUSE = 10.0


@dataclass
class _Kind:
    """Tasks that are expected to go alike: seconds that those left should take, and those done should take and took."""

    left: float = 0.0
    expected: float = 0.0
    spent: float = 0.0


def _alike(task: Task) -> Hashable:
    return task.kind, task.row.get("method")


class StudyProgress:
    """Shows outcomes as they come; a context manager.

    Args:
        tasks: what is to be done.
        seconds: what each of them is expected to cost one worker, by key.
        workers: how many work at once.
    """

    def __init__(self, tasks: Sequence[Task], seconds: dict[str, float], workers: int) -> None:
        self.total, self.done, self.failed = len(tasks), 0, 0
        self._seconds, self._workers = seconds, workers
        self._kinds: defaultdict[Hashable, _Kind] = defaultdict(_Kind)
        for task in tasks:
            self._kinds[_alike(task)].left += seconds.get(task.key, 0.0)
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
        kind, expected = self._kinds[_alike(outcome.task)], self._seconds.get(outcome.task.key, 0.0)
        kind.left -= expected
        if outcome.status == "done":
            kind.expected += expected
            kind.spent += outcome.seconds
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
        """Expected seconds of what is left, at the speed at which the like of it went so far."""
        kinds = self._kinds.values()
        ahead = sum(kind.left * (kind.spent / kind.expected if kind.expected else 1.0) for kind in kinds)
        spent = sum(kind.spent for kind in kinds)
        elapsed = max(time.monotonic() - self._start, START_UP)
        waits = elapsed / (START_UP + spent / self._workers) if spent else 1.0  # for each other, and the driver
        return max(ahead, 0.0) / self._workers * waits

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
