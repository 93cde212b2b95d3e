"""The workers of a Dask cluster, to which a study's units are sent.

The driver knows what waits for what, and sends units that are ready, cheap ones in chunks, one chunk a worker. Results
lie in the results folder, on a file system that all machines share, so every model is computed once. Dask moves what
dead workers had; a unit that kills several is set aside.
"""

from __future__ import annotations

import itertools
import math
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import qunlearn
from qunlearn.errors import InputError, ServiceError
from qunlearn.files import write_bytes
from qunlearn.study import host
from qunlearn.study.executors import TRIES, Ledger, Outcome
from qunlearn.study.grid import StudyConfig
from qunlearn.study.machines import mixture, note_machines
from qunlearn.study.store import Store
from qunlearn.study.task import Task, Unit

#: Seconds of work that are sent to a worker at once, and the most units.
CHUNK = 10.0
MOST = 20
#: Seconds between two looks at which workers are there.
LOOK = 2.0
#: Seconds after which jobs that have ended are asked for again.
RENEW = 60.0
#: Seconds in which a worker must see the results folder.
SEES = 10.0

Say = Callable[[str], None]


class DaskPool:
    """The workers of a Dask cluster; see `Executor`."""

    def __init__(
        self,
        store: Store,
        study: StudyConfig,
        client: Any,
        seconds: Mapping[str, float],
        *,
        limit: int | None = None,
        renew: Callable[[], object] | None = None,
        say: Say = print,
    ) -> None:
        self.store, self.client, self.say = store, client, say
        self._seconds, self._limit, self._renew = seconds, limit, renew
        plugins, factory = study.settings.plugins.modules, study.settings.model.factory
        self._order: dict[str, Any] = {
            "run": uuid.uuid4().hex,
            "root": str(store.root.resolve()),
            "folder": str(study.folder),
            "threads": study.settings.run.threads,
            "modules": list(plugins),
            "needs": [*plugins, *([factory.partition(":")[0]] if factory else [])],
            "version": qunlearn.__version__,
            "patience": SEES,
        }
        self._order["code"] = host.code(self._order["run"])
        self._good: dict[str, dict[str, Any]] = {}  # workers that may serve, by address
        self._refused: dict[str, str] = {}
        self._flying: dict[Any, list[Unit]] = {}  # by future
        self._landed: queue.Queue[Any] = queue.Queue()
        self._alone: set[str] = set()  # units that are sent alone, since a worker died of their chunk
        self._tries: dict[str, int] = {}
        self._complaints: set[str] = set()
        self._numbers = itertools.count()
        self._looked = self._renewed = 0.0
        self._useless = False  # whether the last look found none but refused workers, and no more are to come

    @property
    def workers(self) -> int:
        """How many work at once: those that are expected, or those that are there."""
        return self._limit or max(1, len(self._good))

    def check(self, patience: float | None) -> None:
        """Wait for workers (None: as long as it takes), and check those that are there.

        Raises:
            InputError: where none come in time, or one cannot serve, with the reason.
        """
        write_bytes(self.store.root / host.SIGN, self._order["run"].encode())  # `close` takes it away
        if patience is None:
            self.say("Waiting for jobs to start")
        start = time.monotonic()
        while not self._there():
            if patience is not None and time.monotonic() > start + patience:
                raise InputError(
                    f"expected workers at {self.client.scheduler.address}, got none within {patience:.0f} s; start "
                    f"some with: dask worker {self.client.scheduler.address} --nthreads 1"
                )
            time.sleep(0.1)
        self._look()
        if self._refused:
            told = [f"  worker {address}, {why}" for address, why in self._refused.items()]
            raise InputError("\n".join(["expected workers that can serve this study, got others", *told]))
        self.say(f"{len(self._good)} workers are there")
        if sentence := mixture(self.store.root):
            self.say(sentence)

    def run(self, units: Sequence[Unit], finished: AbstractSet[str], failed: AbstractSet[str]) -> Iterator[Outcome]:
        """See `Executor`.

        Raises:
            InputError: for a unit that needs a GPU where no worker offers one.
            ServiceError: where the scheduler is lost, or no worker can serve any more; what was finished is kept.
        """
        self._check_gpus(units)
        ledger = Ledger(units, finished, failed)
        while ledger.waiting or self._flying:
            found = [self._failed(task, reason) for task, reason in ledger.give_up()]
            if time.monotonic() > self._looked + LOOK:
                self._look()
            self._send(ledger)
            if self._flying:
                found += self._next(ledger)
            elif ledger.waiting and not found:
                if next(ledger.ready(), None) is None:
                    raise ledger.stuck()
                if self._useless:
                    raise self._none_serves()
                time.sleep(0.1)  # for a worker to come
            for outcome in found:
                ledger.note(outcome)
                yield outcome

    def close(self) -> None:
        """End what is at work now; what was not finished is left undone."""
        if host.sign_of(self.store.root) == self._order["run"]:
            (self.store.root / host.SIGN).unlink()
        if self.client.status == "running":
            self.client.cancel(list(self._flying), force=True)
            self.client.run(host.halt, self._order["run"], workers=list(self._good), on_error="ignore")
        self._flying.clear()

    def _there(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.client.scheduler_info()["workers"]
        return found

    def _look(self) -> None:
        """Forget workers that are gone, check those that have come, ask again for jobs that have ended."""
        there = self._there()
        # Those refused in an earlier look: whoever refused because it was dying is gone by now.
        more = self._renew is not None and len(there) < self.workers
        self._useless = bool(there) and set(there) <= set(self._refused) and not more
        self._good = {address: there[address] for address in self._good if address in there}
        if new := [address for address in there if address not in self._good and address not in self._refused]:
            # The version first: where there is no qunlearn, nothing of it could be unpickled.
            from importlib import metadata

            versions = self.client.run(metadata.version, "qunlearn", workers=new, on_error="return")
            absent = [address for address in new if not isinstance(versions.get(address), str)]
            probes = self.client.run(
                host.probe, self._order, workers=[one for one in new if one not in absent], on_error="return"
            )
            self._refused |= dict.fromkeys(absent, "expected qunlearn to be installed there, got none")
            for address, found in probes.items():
                why = found["refused"] if isinstance(found, dict) else f"expected an answer, got {found!r}"
                if not why:
                    self._good[address] = there[address]
                else:
                    self._refused[address] = f"on {found['host']}: {why}" if isinstance(found, dict) else why
            if self._looked:  # the first look's are told together, see `check`
                for address in new:
                    if address in self._refused:
                        self.say(f"not used: worker {address}, {self._refused[address]}")
            note_machines(self.store.root, [probes[one]["machine"] for one in probes if one in self._good])
        self._looked = time.monotonic()
        if self._renew and len(there) < self.workers and self._looked > self._renewed + RENEW:
            self._renewed = self._looked
            self._renew()

    def _check_gpus(self, units: Sequence[Unit]) -> None:
        if any(map(_on_gpu, units)) and not any(map(_has_gpu, self._good.values())):
            raise InputError(
                'expected a Dask worker with the resource GPU for device "cuda", got none; start one for each GPU, '
                f"with: dask worker {self.client.scheduler.address} --nthreads 1 --resources GPU=1"
            )

    def _send(self, ledger: Ledger) -> None:
        """Give out a chunk for every idle worker, no more: so none waits at a worker, and who dies of it is known."""
        free = min(len(self._good), self._limit or len(self._good)) - len(self._flying)
        gpus = sum(map(_has_gpu, self._good.values())) - sum(_on_gpu(chunk[0]) for chunk in self._flying.values())
        if free <= 0:
            return
        ready = list(itertools.islice(ledger.ready(), 2 * MOST * free))
        for number in range(free):
            fitting = [unit for unit in ready if _on_gpu(unit)] if number < gpus else []
            fitting = fitting or [unit for unit in ready if not _on_gpu(unit)]
            if chunk := self._chunk(fitting, free):
                sent = {unit.key for unit in chunk}
                ready = [unit for unit in ready if unit.key not in sent]
                ledger.waiting = [unit for unit in ledger.waiting if unit.key not in sent]
                self._submit(chunk)

    def _chunk(self, ready: Sequence[Unit], idle: int) -> list[Unit]:
        """The first units, as many as take `CHUNK` seconds, but not so many that other workers have none."""
        share = sum(map(self._cost, ready)) / (2 * idle)
        chunk: list[Unit] = []
        for unit in ready[: max(1, math.ceil(len(ready) / idle))]:
            full = sum(map(self._cost, chunk)) + self._cost(unit) > min(CHUNK, share) or len(chunk) == MOST
            if chunk and (full or unit.key in self._alone):
                break
            chunk.append(unit)
            if unit.key in self._alone:
                break
        return chunk

    def _cost(self, unit: Unit) -> float:
        return sum(self._seconds.get(task.key, 0.0) for task in unit.tasks)

    def _submit(self, chunk: list[Unit]) -> None:
        # Dask chooses the worker, and another one should that die; a chunk that prefers one would wait for it forever.
        future = self.client.submit(
            host.run_chunk,
            {**self._order, "units": [unit.to_dict() for unit in chunk]},
            key=f"{chunk[0].tasks[0].kind}-{self._order['run']}-{next(self._numbers)}",
            resources={"GPU": 1} if _on_gpu(chunk[0]) else None,
            pure=False,
        )
        self._flying[future] = chunk
        future.add_done_callback(self._landed.put)

    def _next(self, ledger: Ledger) -> list[Outcome]:
        """What a chunk says that has ended; nothing where none ends for a while."""
        try:
            future = self._landed.get(timeout=LOOK)
        except queue.Empty:
            if self.client.status != "running":
                raise self._lost() from None
            return []
        chunk = self._flying.pop(future)
        tasks = {task.key: task for unit in chunk for task in unit.left}
        if future.status == "lost":  # its worker died with the answer; what it had done is found in the results folder
            ledger.waiting[:0] = chunk
            return []
        if future.status not in ("finished", "error"):
            raise self._lost()
        try:
            answers: list[dict[str, Any]] = future.result()
        except Exception as error:
            return self._after_error(chunk, error, ledger)
        return [Outcome(tasks[one["key"]], one["status"], one["message"], one["seconds"]) for one in answers]

    def _after_error(self, chunk: list[Unit], error: Exception, ledger: Ledger) -> list[Outcome]:
        """Units of a chunk are tried again one by one; one that fails alone is set aside."""
        from distributed import KilledWorker

        killed = isinstance(error, KilledWorker)
        if isinstance(error, ServiceError):  # a worker that came later, or no longer can serve; the next may
            ledger.waiting[:0] = chunk
            if str(error) not in self._complaints:
                self.say(f"tried elsewhere: {error}")
            self._complaints.add(str(error))
            time.sleep(0.1)
            self._good.clear()  # which one it was is not known, so all are checked again
            self._look()
            return []
        if len(chunk) > 1:
            self._alone |= {unit.key for unit in chunk}
            ledger.waiting[:0] = chunk
            return []
        (unit,) = chunk
        self._tries[unit.key] = self._tries.get(unit.key, 0) + 1
        if not killed and self._tries[unit.key] < TRIES:
            ledger.waiting.insert(0, unit)
            return []
        message = f"{type(error).__name__}: {error}"
        if killed:
            last = getattr(getattr(error, "last_worker", None), "address", "unknown")
            message = (
                f"set aside: it killed {getattr(error, 'allowed_failures', 3) + 1} Dask workers, the last at {last} "
                "(too little memory?); see their logs"
            )
        return [self._failed(task, message) for task in unit.left]

    def _failed(self, task: Task, message: str) -> Outcome:
        if self.store.holds(task.key):  # the worker died after it was done
            return Outcome(task, "done")
        self.store.save_failure(task, message, "")
        return Outcome(task, "failed", message)

    def _none_serves(self) -> ServiceError:
        told = [
            f"  worker {address}, {self._refused[address]}" for address in self._there() if address in self._refused
        ]
        said = "expected a worker that can serve this study, got none but those below; what was finished is kept, so "
        return ServiceError("\n".join([f"{said}mend what they say and run the study again", *told]))

    def _lost(self) -> ServiceError:
        return ServiceError(
            "expected the Dask scheduler to stay, got its end; what was finished is kept, so run the study again"
        )


def _on_gpu(unit: Unit) -> bool:
    return str(unit.tasks[0].settings["run"]["device"]).startswith("cuda")


def _has_gpu(worker: Mapping[str, Any]) -> bool:
    return bool(worker["resources"].get("GPU", 0) >= 1)
