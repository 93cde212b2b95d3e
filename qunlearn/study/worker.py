"""A worker process: takes units as JSON lines on stdin, answers on stdout, and ends when its driver does.

By hand: ``python -m qunlearn.study.worker failed/KEY.json`` repeats a failed task and shows what happens.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Task, Unit, units_of


def prepare(threads: int, folder: str, modules: list[str]) -> None:
    """Fix the number of threads, and import the user's modules, which may lie in the study's folder."""
    import torch

    torch.set_num_threads(threads)
    from qunlearn.study.plugins import import_plugins

    import_plugins(folder, modules)


def perform(unit: Unit, store: Store, folder: str) -> Iterator[dict[str, Any]]:
    """Run the tasks of a unit and keep their outcomes, good or bad; what to tell the driver of each."""
    from qunlearn.study.trial import run_unit

    for ended in run_unit(unit, store, folder):
        answer: dict[str, Any] = {"key": ended.task.key, "status": "done", "seconds": ended.seconds}
        if ended.error is not None:
            message = f"{type(ended.error).__name__}: {ended.error}"
            store.save_failure(ended.task, message, "".join(traceback.format_exception(ended.error)))
            answer = {"key": ended.task.key, "status": "failed", "message": message}
        yield answer


def serve() -> None:
    """Answer units, a line a task, until stdin ends, which it does when the driver ends, however it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a print in the user's code must not be taken for an answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    greeting = json.loads(lines.get())
    prepare(greeting["threads"], greeting["folder"], greeting["modules"])
    store = Store(greeting["root"])
    while True:
        for answer in perform(Unit.from_dict(json.loads(lines.get())), store, greeting["folder"]):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # also in the middle of a task: what is not yet renamed into place is not used


def repeat(path: Path) -> None:
    """Run the failed task of a ``failed/KEY.json`` again, in this process, without saving its failure.

    Tasks that are computed together with it are computed, too.
    """
    report = read_json(path)
    task, root = Task.from_dict(report["task"]), path.resolve().parent.parent
    plan, store = read_json(root / "plan.json"), Store(root)
    prepare(task.settings["run"]["threads"], plan["folder"], task.settings["plugins"]["modules"])
    from qunlearn.study.trial import run_unit

    others = (Task.from_dict(other) for other in plan["tasks"] if other["unit"] == task.unit)
    (unit,) = units_of(others, {task.key})
    unit = unit.without(unit.lost(set(store.failures())) - {task.key})
    for ended in run_unit(unit, store, plan["folder"]):
        if ended.error is not None:
            raise ended.error
    print(f"{task.title}: done")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        repeat(Path(sys.argv[1]))
    else:
        serve()
