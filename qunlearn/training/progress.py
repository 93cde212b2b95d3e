"""A bar with rate and time left on a terminal; nothing where there is none to look."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int, str], None]


@contextmanager
def shown(progress: Report | None, what: str) -> Iterator[Report | None]:
    """The given way to report, or else a bar on standard error if that is a terminal."""
    if progress is not None or not sys.stderr.isatty():
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs, {task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[known]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, known="", rate="")

        def report(done: int, total: int, known: str) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=total, known=known, rate=f"{speed:.1f}/s" if speed else "")

        yield report
