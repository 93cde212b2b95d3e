"""What runs on a Dask worker: units of a study, in a worker process like those of a local run.

That process has the threads and the environment that it would have in a local run, so results are the same; a trial
that ends it harms neither Dask nor other trials. Nothing here imports torch or Dask.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

import qunlearn
from qunlearn.errors import QunlearnError, ServiceError
from qunlearn.study.executors import LocalPool, Outcome, _Worker
from qunlearn.study.machines import this_machine
from qunlearn.study.store import Store, read_json
from qunlearn.study.task import Task, Unit

#: In the results folder, while a driver is at work: which run it is.
SIGN = ".cluster"
#: Seconds in which a shared file system shows what another machine has written.
PATIENCE = 60.0
#: Seconds between two looks at whether the driver is still there.
LOOK = 1.0
_ONE_AT_A_TIME = threading.Lock()
_host: _Host | None = None


class _Host(LocalPool):
    """The worker process beside this Dask worker; it stays for the next chunk, unless the run ends."""

    def __init__(self, order: dict[str, Any]) -> None:
        super().__init__(
            Store(order["root"]),
            order["folder"],
            workers=1,
            threads=order["threads"],
            modules=order["modules"],
            log=f"workers-{platform.node()}.log",
        )
        self.run_id: str = order["run"]

    def _answer(self) -> tuple[_Worker, str]:
        while True:
            with suppress(Empty):
                return self._answers.get(timeout=LOOK)
            if sign_of(self.store.root) != self.run_id:
                raise ServiceError(f"expected the run {self.run_id} to go on, got its end")


def run_chunk(order: dict[str, Any]) -> list[dict[str, Any]]:
    """Do the units of an order, and tell how each of their wanted tasks ended.

    What is done already, since a worker died after it, is not done again.

    Raises:
        ServiceError: where the run that gave the order has ended, or this machine cannot serve it.
    """
    global _host
    with _ONE_AT_A_TIME:
        if why := refusal(order):
            raise ServiceError(f"{platform.node()}: {why}")
        if _host is not None and _host.run_id != order["run"]:
            _host.close()
            _host = None
        _host = _host or _Host(order)
        try:
            return _work(_host, [Unit.from_dict(unit) for unit in order["units"]])
        except BaseException:
            _host.close()
            _host = None
            raise


def halt(run: str) -> None:
    """End the worker process at once, if it works for that run."""
    if _host is not None and _host.run_id == run:
        _host.close()


def probe(order: dict[str, Any]) -> dict[str, Any]:
    """The type of this machine, and why it cannot serve a run; empty where it can."""
    return {"machine": this_machine(), "host": platform.node(), "refused": refusal(order)}


def refusal(order: dict[str, Any]) -> str:
    """Why this machine cannot serve a run, with what to do; empty where it can."""
    if order["version"] != qunlearn.__version__:
        return f"expected qunlearn {order['version']}, as where the study was started, got {qunlearn.__version__}"
    if order["code"] != code(order["run"]):
        return "expected the same qunlearn as where the study was started, got other code; install it anew"
    if not _within(lambda: sign_of(Path(order["root"])) == order["run"], order["patience"]):
        return (
            f"expected to see the results folder {order['root']}, got none of this run; "
            "name an --out on a file system that all machines share"
        )
    if not os.access(order["root"], os.W_OK):
        return f"expected to write to the results folder {order['root']}, got no permission"
    if order["needs"] and order["folder"] not in sys.path:
        sys.path.append(order["folder"])
    missing = [name for name in order["needs"] if importlib.util.find_spec(name) is None]
    if missing:
        return f"expected the module {missing[0]!r} in {order['folder']} or installed, got none"
    return ""


def sign_of(root: Path) -> str:
    """Which run is at work in a results folder; empty where none is."""
    with suppress(OSError):
        return (root / SIGN).read_text(encoding="utf-8")
    return ""


@functools.lru_cache(maxsize=1)
def code(run: str) -> str:
    """A hash of the package's own source files, taken once a run."""
    root = Path(qunlearn.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        total.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return total.hexdigest()


def _work(host: _Host, units: list[Unit]) -> list[dict[str, Any]]:
    store, left = host.store, list[Unit]()
    found: list[Outcome] = []
    for unit in units:
        known = {task.key: outcome for task in unit.left if (outcome := _known(task, store)) is not None}
        found += known.values()
        rest = Unit(unit.tasks, unit.wanted - set(known))
        if rest.wanted:
            left.append(rest)
    for key in {key for unit in left for key in unit.needs}:
        if not _within(functools.partial(store.holds, key), PATIENCE):
            raise QunlearnError(f"expected {key} in {store.root}, got none within {PATIENCE:.0f} s")
    ended = {key for unit in left for key in (*unit.needs, *unit.after)}
    found += host.work(left, ended, frozenset())
    return [
        {"key": one.task.key, "status": one.status, "message": one.message, "seconds": one.seconds} for one in found
    ]


def _known(task: Task, store: Store) -> Outcome | None:
    """How a task ended before, on a worker that died later."""
    folder = store.folder(task.kind, task.key)
    if (folder / "result.json").is_file():
        return Outcome(task, "done", seconds=float(read_json(folder / "timing.json")["total_seconds"]))
    if store.failure(task.key).is_file():
        return Outcome(task, "failed", str(read_json(store.failure(task.key))["message"]))
    return None


def _within(condition: Any, seconds: float) -> bool:
    """Whether something holds within so many seconds."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= limit:
            return False
        time.sleep(0.2)
    return True
