"""Executors run the tasks of a study. Here: a pool of long-lived worker processes on this machine."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
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

    @property
    def workers(self) -> int:
        """How many units it runs at once."""
        ...

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


class Ledger:
    """The units that wait, and the keys of the tasks that have ended."""

    def __init__(self, units: Iterable[Unit], finished: AbstractSet[str], failed: AbstractSet[str]) -> None:
        self.waiting, self._done, self._failed = list(units), set(finished), set(failed)
        self._seen = -1  # so many failures when units were last looked through for what they need

    def note(self, outcome: Outcome) -> None:
        """Take note of how a task ended."""
        (self._done if outcome.status == "done" else self._failed).add(outcome.task.key)

    def ready(self) -> Iterator[Unit]:
        """The units that wait for nothing more, in order."""
        for unit in self.waiting:
            if self._done >= unit.needs and all(key in self._done or key in self._failed for key in unit.after):
                yield unit

    def give_up(self) -> list[tuple[Task, str]]:
        """Leave out the tasks that need a failed one, each with the reason; the others of their units do without."""
        if self._seen == len(self._failed):
            return []
        self._seen, found = len(self._failed), []
        for index, unit in enumerate(self.waiting):
            lost = unit.lost(self._failed)
            for task in (task for task in unit.left if task.key in lost):
                needed = next(key for key in task.needs if key in self._failed)
                found.append((task, f"a task that it needs failed ({needed})"))
            self.waiting[index] = unit.without(lost)
        self.waiting = [unit for unit in self.waiting if unit.wanted]
        return found

    def stuck(self) -> QunlearnError:
        """What to raise where units wait for what nobody does."""
        return QunlearnError(f"expected what {self.waiting[0].key} needs among the tasks")


class LocalPool:
    """Worker processes on this machine, each with a fixed number of threads; what they print goes to a file `log`."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        workers: int,
        threads: int,
        modules: Sequence[str] = (),
        log: str = "workers.log",
    ) -> None:
        self.store, self.workers, self._log = store, workers, store.root / log
        self._greeting = {
            "root": str(store.root.resolve()),
            "folder": str(folder),
            "threads": threads,
            "modules": list(modules),
        }
        self._answers: queue.Queue[tuple[_Worker, str]] = queue.Queue()
        self._pool: list[_Worker] = []
        self._tries: dict[str, int] = {}

    def run(self, units: Sequence[Unit], finished: AbstractSet[str], failed: AbstractSet[str]) -> Iterator[Outcome]:
        """See `Executor`. Units earlier in the list start earlier."""
        try:
            yield from self.work(units, finished, failed)
        finally:
            self.close()

    def work(self, units: Sequence[Unit], finished: AbstractSet[str], failed: AbstractSet[str]) -> Iterator[Outcome]:
        """As `run`, with worker processes that stay until `close`, for the units to come."""
        ledger = Ledger(units, finished, failed)
        with open(self._log, "a", encoding="utf-8") as log:
            while len(self._pool) < min(self.workers, len(ledger.waiting)):
                self._pool.append(self._start(log))
            while ledger.waiting or any(worker.unit for worker in self._pool):
                found = [self._failed(task, reason) for task, reason in ledger.give_up()]
                self._hand_out(ledger)
                if any(worker.unit for worker in self._pool):
                    found += self._next(ledger, log)
                elif ledger.waiting and not found:
                    raise ledger.stuck()
                for outcome in found:
                    ledger.note(outcome)
                    yield outcome

    def close(self) -> None:
        """End the processes now; what they had not finished is left undone."""
        for worker in self._pool:
            worker.stop()
        self._pool.clear()

    def _start(self, log: IO[str]) -> _Worker:
        return _Worker(self._greeting, log, self._answers)

    def _hand_out(self, ledger: Ledger) -> None:
        for worker in self._pool:
            if worker.unit is None and (unit := next(ledger.ready(), None)) is not None:
                ledger.waiting.remove(unit)
                worker.give(unit)

    def _failed(self, task: Task, message: str) -> Outcome:
        self.store.save_failure(task, message, "")
        return Outcome(task, "failed", message)

    def _answer(self) -> tuple[_Worker, str]:
        """The next line that a worker says, with who says it."""
        return self._answers.get()

    def _next(self, ledger: Ledger, log: IO[str]) -> list[Outcome]:
        """What the next line of a worker says; its end, if it has died."""
        worker, line = self._answer()
        if worker not in self._pool:
            return []
        if not line:
            worker.stop()
            self._pool[self._pool.index(worker)] = self._start(log)
            return self._after_death(worker.unit, worker.process.returncode, ledger) if worker.unit else []
        answer = json.loads(line)
        task = worker.answered(answer["key"])
        return [Outcome(task, answer["status"], answer.get("message", ""), answer.get("seconds", 0.0))]

    def _after_death(self, unit: Unit, code: int, ledger: Ledger) -> list[Outcome]:
        self._tries[unit.key] = self._tries.get(unit.key, 0) + 1
        if self._tries[unit.key] < TRIES:
            ledger.waiting.insert(0, unit)
            return []
        message = f"its worker process ended {TRIES} times, last with exit code {code}; see {self._log}"
        return [self._failed(task, message) for task in unit.left]
