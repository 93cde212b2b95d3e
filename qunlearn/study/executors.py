"""Executors run the tasks of a study. Here: a pool of long-lived worker processes on this machine."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from qunlearn.errors import QunlearnError
from qunlearn.study.store import Store
from qunlearn.study.task import Task, Unit

#: A unit whose worker dies is tried so many times.
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

    def run(self, units: Sequence[Unit], finished: AbstractSet[str], failed: AbstractSet[str]) -> Iterator[Outcome]:
        """Run the units, each after the tasks that it needs, and give the outcome of every wanted task as it comes.

        `finished` and `failed` are the keys of which that is known already; what needs a failed task fails.
        """
        ...


class _Worker:
    """A worker process, with a thread that puts what it answers, and its end, into the driver's queue."""

    def __init__(self, greeting: dict[str, Any], log: IO[str], answers: queue.Queue[tuple[_Worker, str]]) -> None:
        environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(greeting["threads"]))}
        self.unit: Unit | None = None  # what is still to be answered of it
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

    def give(self, unit: Unit) -> None:
        """Send a unit."""
        self.unit = unit
        self._send(unit.to_dict())

    def answered(self, key: str) -> Task:
        """Take note that a task of the unit has ended."""
        assert self.unit is not None
        task = next(task for task in self.unit.left if task.key == key)
        self.unit = Unit(self.unit.tasks, self.unit.wanted - {key})
        if not self.unit.wanted:
            self.unit = None
        return task

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

    def run(self, units: Sequence[Unit], finished: AbstractSet[str], failed: AbstractSet[str]) -> Iterator[Outcome]:
        """See `Executor`. Units earlier in the list start earlier."""
        waiting, ended = list(units), {"done": set(finished), "failed": set(failed)}
        pool: list[_Worker] = []
        with open(self.store.root / "workers.log", "a", encoding="utf-8") as log:
            try:
                pool += [self._start(log) for _ in range(min(self.workers, len(waiting)))]
                while waiting or any(worker.unit for worker in pool):
                    found = self._give_up(waiting, ended["failed"])
                    self._hand_out(pool, waiting, ended["done"], ended["failed"])
                    if any(worker.unit for worker in pool):
                        found += self._next(pool, waiting, log)
                    elif waiting and not found:
                        raise QunlearnError(f"expected what {waiting[0].key} needs among the tasks")
                    for outcome in found:
                        ended[outcome.status].add(outcome.task.key)
                        yield outcome
            finally:
                for worker in pool:
                    worker.stop()

    def _start(self, log: IO[str]) -> _Worker:
        return _Worker(self._greeting, log, self._answers)

    def _hand_out(self, pool: list[_Worker], waiting: list[Unit], done: set[str], failed: set[str]) -> None:
        for worker in pool:
            if worker.unit is not None:
                continue
            ready = next(
                (unit for unit in waiting if done >= unit.needs and all(k in done or k in failed for k in unit.after)),
                None,
            )
            if ready is not None:
                waiting.remove(ready)
                worker.give(ready)

    def _give_up(self, waiting: list[Unit], failed: set[str]) -> list[Outcome]:
        """Leave out the tasks that need a failed one; the others of their units do without them."""
        found = []
        for index, unit in enumerate(waiting):
            lost = unit.lost(failed)
            for task in (task for task in unit.left if task.key in lost):
                needed = next(key for key in task.needs if key in failed)
                found.append(self._failed(task, f"a task that it needs failed ({needed})"))
            waiting[index] = unit.without(lost)
        waiting[:] = [unit for unit in waiting if unit.wanted]
        return found

    def _failed(self, task: Task, message: str) -> Outcome:
        self.store.save_failure(task, message, "")
        return Outcome(task, "failed", message)

    def _next(self, pool: list[_Worker], waiting: list[Unit], log: IO[str]) -> list[Outcome]:
        """What the next line of a worker says; its end, if it has died."""
        worker, line = self._answers.get()
        if worker not in pool:
            return []
        if not line:
            worker.stop()
            pool[pool.index(worker)] = self._start(log)
            return self._after_death(worker.unit, worker.process.returncode, waiting) if worker.unit else []
        answer = json.loads(line)
        task = worker.answered(answer["key"])
        return [Outcome(task, answer["status"], answer.get("message", ""), answer.get("seconds", 0.0))]

    def _after_death(self, unit: Unit, code: int, waiting: list[Unit]) -> list[Outcome]:
        self._tries[unit.key] = self._tries.get(unit.key, 0) + 1
        if self._tries[unit.key] < TRIES:
            waiting.insert(0, unit)
            return []
        log = self.store.root / "workers.log"
        message = f"its worker process ended {TRIES} times, last with exit code {code}; see {log}"
        return [self._failed(task, message) for task in unit.left]
