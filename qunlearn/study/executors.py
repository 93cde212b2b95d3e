"""Executors run the tasks of a study. Here: a pool of long-lived worker processes on this machine."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from qunlearn.errors import QunlearnError
from qunlearn.study.store import Store
from qunlearn.study.task import Task

#: A task whose worker dies is tried so many times.
TRIES = 2
#: Seconds until a worker process has imported torch and made its first split, for estimates.
START_UP = 3.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """How a task ended; `seconds` as the worker measured them."""

    task: Task
    status: Literal["done", "failed"]
    message: str = ""
    seconds: float = 0.0


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Executor(Protocol):
    """Whatever can run tasks."""

    def run(self, tasks: Sequence[Task], finished: set[str]) -> Iterator[Outcome]:
        """Run the tasks, each after those that it needs, and give every outcome as it comes.

        `finished` are the keys that are there already.
        """
        ...


class _Worker:
    """A worker process, with a thread that puts what it answers, and its end, into the driver's queue."""

    def __init__(self, greeting: dict[str, Any], log: IO[str], answers: queue.Queue[tuple[_Worker, str]]) -> None:
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(greeting["threads"]))}
        self.task: Task | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qunlearn.study.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver alone
        )
        self._send(greeting)
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    def give(self, task: Task) -> None:
        """Send a task."""
        self.task = task
        self._send(task.to_dict())

    def stop(self) -> None:
        """End the process now; what it had not finished is left undone."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _send(self, data: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # its death is noticed where its answers are read
            self.process.stdin.write(json.dumps(data) + "\n")
            self.process.stdin.flush()

    def _listen(self, answers: queue.Queue[tuple[_Worker, str]]) -> None:
        assert self.process.stdout is not None
        with suppress(ValueError, OSError):  # closed by `stop`
            for line in self.process.stdout:
                answers.put((self, line))
        answers.put((self, ""))


class LocalPool:
    """Worker processes on this machine, each with a fixed number of threads."""

    def __init__(self, store: Store, folder: Path, *, workers: int, threads: int, modules: Sequence[str] = ()) -> None:
        self.store, self.workers = store, workers
        self._greeting = {
            "root": str(store.root.resolve()),
            "folder": str(folder),
            "threads": threads,
            "modules": list(modules),
        }
        self._answers: queue.Queue[tuple[_Worker, str]] = queue.Queue()
        self._tries: dict[str, int] = {}

    def run(self, tasks: Sequence[Task], finished: set[str]) -> Iterator[Outcome]:
        """See `Executor`. Tasks earlier in the list start earlier; a task whose needs failed fails too."""
        waiting, done, failed = list(tasks), set(finished), set[str]()
        pool: list[_Worker] = []
        with open(self.store.root / "workers.log", "a", encoding="utf-8") as log:
            try:
                pool += [self._start(log) for _ in range(min(self.workers, len(waiting)))]
                while waiting or any(worker.task for worker in pool):
                    yield from self._cascade(waiting, failed)
                    self._hand_out(pool, waiting, done)
                    if not any(worker.task for worker in pool):
                        if waiting and failed.isdisjoint(waiting[0].needs):
                            raise QunlearnError(f"expected what {waiting[0].key} needs among the tasks")
                        continue
                    outcome = self._next(pool, waiting, log)
                    if outcome is not None:
                        (done if outcome.status == "done" else failed).add(outcome.task.key)
                        yield outcome
            finally:
                for worker in pool:
                    worker.stop()

    def _start(self, log: IO[str]) -> _Worker:
        return _Worker(self._greeting, log, self._answers)

    def _hand_out(self, pool: list[_Worker], waiting: list[Task], done: set[str]) -> None:
        for worker in pool:
            ready = next((task for task in waiting if done.issuperset(task.needs)), None)
            if worker.task is None and ready is not None:
                waiting.remove(ready)
                worker.give(ready)

    def _cascade(self, waiting: list[Task], failed: set[str]) -> Iterator[Outcome]:
        for task in [task for task in waiting if not failed.isdisjoint(task.needs)]:
            waiting.remove(task)
            needed = next(key for key in task.needs if key in failed)
            message = f"a task that it needs failed ({needed})"
            self.store.save_failure(task, message, "")
            yield Outcome(task, "failed", message)

    def _next(self, pool: list[_Worker], waiting: list[Task], log: IO[str]) -> Outcome | None:
        worker, line = self._answers.get()
        if worker not in pool:
            return None
        task = worker.task
        if not line:
            worker.stop()
            pool[pool.index(worker)] = self._start(log)
            return self._after_death(task, worker.process.returncode, waiting) if task else None
        answer = json.loads(line)
        assert task is not None
        worker.task = None
        return Outcome(task, answer["status"], answer.get("message", ""), answer.get("seconds", 0.0))

    def _after_death(self, task: Task, code: int, waiting: list[Task]) -> Outcome | None:
        self._tries[task.key] = self._tries.get(task.key, 0) + 1
        if self._tries[task.key] < TRIES:
            waiting.insert(0, task)
            return None
        log = self.store.root / "workers.log"
        message = f"its worker process ended {TRIES} times, last with exit code {code}; see {log}"
        self.store.save_failure(task, message, "")
        return Outcome(task, "failed", message)
