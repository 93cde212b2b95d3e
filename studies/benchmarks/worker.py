"""A process that measures one engine: orders as JSON lines on stdin, answers on stdout.

    python -m benchmarks.worker KEY THREADS        (in the folder `studies`)

Orders: ``load`` (the libraries, with a small circuit; their versions), ``prepare`` (a circuit; makes one step, untimed,
and writes its outcome to a file), ``time`` (steps for some seconds), ``memory`` (how far a prepared step lifts the peak
of this process's memory).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import traceback
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.jobs import Point, circuit_of, inputs_of
from benchmarks.peers import PEERS, Peer, Step

MIB = 2.0**20
SMALL = Point(4, 1, 2)


class Bench:
    """One engine with the step that it prepared last."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.step: Step | None = None

    def load(self, order: dict[str, Any]) -> dict[str, Any]:
        """Make a step of a small circuit, so that libraries and compiled code are loaded; the versions."""
        versions = self.peer.versions()
        circuit = circuit_of(order["card"], SMALL)
        self.peer.prepare(circuit, inputs_of(circuit, SMALL.batch))()
        return {"versions": versions}

    def prepare(self, order: dict[str, Any]) -> dict[str, Any]:
        """Prepare a circuit and make the first step, whose outcome is kept; ``seconds`` are those of both."""
        self.step = None
        point = Point(*order["point"])
        circuit = circuit_of(order["card"], point)
        inputs = inputs_of(circuit, point.batch)
        start = time.perf_counter()
        self.step = self.peer.prepare(circuit, inputs)
        outcome = self.step()
        seconds = time.perf_counter() - start
        np.savez(order["outcome"], values=outcome[0], features=outcome[1], weights=outcome[2])
        return {"seconds": seconds}

    def time(self, order: dict[str, Any]) -> dict[str, Any]:
        """Milliseconds of every step: as many as fit into the seconds, at least one, after one for the caches."""
        assert self.step is not None
        first = _timed(self.step)
        if first > order["seconds"]:
            return {"milliseconds": [first * 1e3]}
        found: list[float] = []
        end = time.perf_counter() + order["seconds"]
        while not found or time.perf_counter() < end:
            found.append(_timed(self.step) * 1e3)
        return {"milliseconds": found}

    def memory(self, order: dict[str, Any]) -> dict[str, Any]:
        """MiB by which the peak of resident memory during two steps is above what was there before them.

        Code is loaded and the circuit compiled before: by a step of a small circuit with that batch, and one of the
        circuit with one sample; or where compiling is a matter of its own, by that.
        """
        point = Point(*order["point"])
        circuit = circuit_of(order["card"], point)
        if not self.peer.compiles:
            small = circuit_of(order["card"], SMALL)
            self.peer.prepare(small, inputs_of(small, point.batch))()
            self.peer.prepare(circuit, inputs_of(circuit, 1))()
        step = self.peer.prepare(circuit, inputs_of(circuit, point.batch))
        before = _settle()
        step()
        step()
        return {"mib": max(0.0, (_peak() - before) / MIB)}


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _settle() -> float:
    """Give free memory back, start the count of the peak anew where the system can; bytes resident now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return float(psutil.Process().memory_info().rss)


def _peak() -> float:
    """Highest resident memory so far, bytes. Not `getrusage`: on Linux a child starts with the peak of its parent."""
    if sys.platform == "linux":
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) * 1024
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


def serve(key: str, threads: int) -> None:
    """Obey orders until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    bench = Bench(PEERS[key])
    for line in sys.stdin:
        order = json.loads(line)
        _answer(answers, lambda order=order: getattr(bench, order["do"])(order))


def _answer(answers: Any, work: Any) -> None:
    try:
        answer = work()
    except PackageNotFoundError as error:
        answer = {"error": f"{error.name} is not installed"}
    except Exception as error:  # one engine's trouble is reported, and the others go on
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
