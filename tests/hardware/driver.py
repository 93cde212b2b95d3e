"""A process that has imported everything, and makes children of itself: each one true process, that may be killed.

Reads one order a line (JSON) and answers with one line: ``code`` (negative: the signal that ended the child) and, of
children that lived, ``steps``. Run as ``python driver.py``; `Driver` does so.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A second of waiting takes a child so long.
HASTE = 0.02
BEGAN = time.time()


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (-9: killed), its steps if it lived, and what it printed."""

    code: int
    steps: list[str]
    output: str


class Driver:
    """The driver, seen from the tests; a context.

    Args:
        folder: where children write what they print; their home.

    Attributes:
        environment: what children find in theirs beside what every process needs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}
        root = Path(__file__).parents[2]
        inherited = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        path = {"PYTHONPATH": str(root), "HOME": str(folder), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**inherited, **path},
        )

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)

    def cli(self, *words: str, environment: Mapping[str, str | None] | None = None) -> Ended:
        """``python -m qunlearn words...``; variables whose value is None are taken away."""
        return self._order({"cli": list(words), "environment": {**self.environment, **(environment or {})}})

    def call(self, name: str, folder: Path, *, at: int | None = None, **options: Any) -> Ended:
        """``qunlearn.hardware.name(folder, **options)``, killed at a step if that is given."""
        order = {"call": name, "folder": str(folder), "options": options, "at": at}
        return self._order({**order, "environment": self.environment})

    def _order(self, order: dict[str, Any]) -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        output = self.folder / "output.txt"
        self._process.stdin.write(json.dumps({**order, "output": str(output)}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ended(answer["code"], answer["steps"], output.read_text())


def main() -> None:
    """Serve until the orders end."""
    import_all()
    for line in sys.stdin:
        order = json.loads(line)
        steps = Path(order["output"]).with_name("steps.txt")
        steps.write_text("[]")
        child = os.fork()
        if child == 0:
            os._exit(live(order, steps))
        _, status = os.waitpid(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "steps": json.loads(steps.read_text())}
        print(json.dumps(answer), flush=True)


def import_all() -> None:
    """What takes seconds, once for all children."""
    for name in (
        "pandas",
        "qiskit_ibm_runtime.executor_sampler",
        "qiskit_ibm_runtime.fake_provider.executor.run_quantum_program",
        "qunlearn.cli",
        "qunlearn.hardware",
        "qunlearn.quantum.backends.mitigation",
        "qunlearn.quantum.backends.transpiling",
        "qunlearn.study.hardware_report",
        "qunlearn.study.results",
        "qunlearn.study.trial",
        "rich.table",
        "sklearn.linear_model",
    ):
        importlib.import_module(name)


def live(order: dict[str, Any], steps: Path) -> int:
    """The life of a child: its exit code."""
    with open(order["output"], "w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    for name, value in order.get("environment", {}).items():
        os.environ.pop(name, None)
        os.environ.update({} if value is None else {name: value})
    try:
        if "cli" in order:
            sys.argv = ["qunlearn", *order["cli"]]
            runpy.run_module("qunlearn", run_name="__main__", alter_sys=True)
        else:
            called(order, steps)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
    return 0


def called(order: dict[str, Any], steps: Path) -> None:
    """One function of the package, its steps counted, in haste."""
    import qunlearn.hardware
    from tests.hardware.life import Mortal, kill_self

    call: Callable[..., Any] = getattr(qunlearn.hardware, order["call"])
    hasten()
    with Mortal(order["at"], kill_self).watched() as mortal:
        call(Path(order["folder"]), **order["options"])
        taken = list(mortal.steps)
    steps.write_text(json.dumps(taken))


def hasten() -> None:
    """A clock that runs faster, the same in all children, and on which waiting takes less."""
    from qunlearn.hardware import clock

    faster: dict[str, Callable[..., Any]] = {
        "now": lambda: BEGAN + (time.time() - BEGAN) / HASTE,
        "wait": lambda seconds: time.sleep(seconds * HASTE),
    }
    for name, replacement in faster.items():
        setattr(clock, name, replacement)


if __name__ == "__main__":
    main()
