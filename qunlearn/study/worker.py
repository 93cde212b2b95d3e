"""A worker process: takes tasks as JSON lines on stdin, answers on stdout, and ends when its driver does.

By hand: ``python -m qunlearn.study.worker failed/KEY.json`` repeats a failed unit and shows what happens.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Task


def prepare(threads: int, folder: str, modules: list[str]) -> None:
    """Fix the number of threads, and import the user's modules, which may lie in the study's folder."""
    import torch

    torch.set_num_threads(threads)
    from qunlearn.study.plugins import import_plugins

    import_plugins(folder, modules)


def perform(task: Task, store: Store, folder: str) -> dict[str, Any]:
    """Run one task and keep its outcome, good or bad; what to tell the driver."""
    from qunlearn.study.trial import run_task

    start = time.perf_counter()
    try:
        run_task(task, store, folder)
    except Exception as error:  # a failing trial is kept apart and the others go on
        message = f"{type(error).__name__}: {error}"
        store.save_failure(task, message, traceback.format_exc())
        return {"key": task.key, "status": "failed", "message": message}
    return {"key": task.key, "status": "done", "seconds": time.perf_counter() - start}


def serve() -> None:
    """Answer tasks until stdin ends, which it does when the driver ends, however it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a print in the user's code must not be taken for an answer
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()
    greeting = json.loads(lines.get())
    prepare(greeting["threads"], greeting["folder"], greeting["modules"])
    store = Store(greeting["root"])
    while True:
        answer = perform(Task.from_dict(json.loads(lines.get())), store, greeting["folder"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _listen(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)  # also in the middle of a task: what is not yet renamed into place is not used


def repeat(path: Path) -> None:
    """Run the failed unit of a ``failed/KEY.json`` again, in this process, without saving its failure."""
    report = read_json(path)
    task, root = Task.from_dict(report["task"]), path.resolve().parent.parent
    plan = read_json(root / "plan.json")
    prepare(task.settings["run"]["threads"], plan["folder"], task.settings["plugins"]["modules"])
    from qunlearn.study.trial import run_task

    run_task(task, Store(root), plan["folder"])
    print(f"{task.title}: done")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        repeat(Path(sys.argv[1]))
    else:
        serve()
