"""The driver's side of the measuring processes: one for each engine, watched for time and memory."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

FOLDER = Path(__file__).parents[1]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class PeerError(Exception):
    """An engine that is absent, failed, or was stopped."""


@dataclass(frozen=True)
class Limits:
    """What a process may use: seconds for an answer, and bytes."""

    seconds: float
    memory: float = field(default_factory=lambda: psutil.virtual_memory().available / 2)


LOADING = Limits(180)


class Hand:
    """A process that measures one engine, on as many cores as it may have threads."""

    def __init__(self, key: str, threads: int, log: IO[str]) -> None:
        self.key = key
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", key, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            cwd=FOLDER,
            env=environment,
        )
        pin(self._process.pid, threads)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with suppress(ValueError, OSError):  # closed by `stop`
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put("")

    def send(self, do: str, **order: Any) -> None:
        """Give an order, and do not wait."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end is noticed by `receive`
            self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self._process.stdin.flush()

    def receive(self, limits: Limits) -> dict[str, Any]:
        """The next answer.

        Raises:
            PeerError: where the engine is absent or failed, or had to be stopped, with the reason.
        """
        answer: dict[str, Any] = json.loads(self._line(limits))
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _line(self, limits: Limits) -> str:
        end = time.monotonic() + limits.seconds
        while time.monotonic() < end:
            with suppress(queue.Empty):
                line = self._lines.get(timeout=0.1)
                if line:
                    return line
                raise PeerError(f"its process ended with exit code {self._process.wait()}")
            if self.memory() > limits.memory:
                self.stop()
                raise PeerError(f"stopped at {limits.memory / 2**30:.1f} GiB, half of the memory that was free")
        self.stop()
        raise PeerError(f"stopped after {limits.seconds:.0f} s")

    def memory(self) -> float:
        """Bytes resident now."""
        try:
            return float(psutil.Process(self._process.pid).memory_info().rss)
        except psutil.Error:
            return 0.0

    @property
    def alive(self) -> bool:
        """Whether it can take orders."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


def pin(process: int, threads: int) -> None:
    """Leave a process that many of the cores that we may use, where the system can: JAX counts cores, not variables."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        with suppress(OSError):  # it has ended already
            os.sched_setaffinity(process, cores)


def core_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """A process for each engine, started when first needed and again after one had to be stopped."""

    def __init__(self, keys: Iterable[str], card: str, threads: int, log: IO[str]) -> None:
        self.card, self.threads, self._log = card, threads, log
        self.versions: dict[str, str] = {}
        self.absent: dict[str, str] = {}
        self._hands = {key: self._started(key) for key in keys}
        for key in list(self._hands):
            try:
                self.versions |= self._hands[key].receive(LOADING)["versions"]
            except PeerError as error:
                self.absent[key] = str(error)
                self._hands.pop(key).stop()

    def _started(self, key: str) -> Hand:
        hand = Hand(key, self.threads, self._log)
        hand.send("load", card=self.card)
        return hand

    @property
    def present(self) -> list[str]:
        """The engines that can be measured."""
        return list(self._hands)

    def hand(self, key: str) -> Hand:
        """The process of an engine."""
        if not self._hands[key].alive:
            self._hands[key] = self.fresh(key)
        return self._hands[key]

    def fresh(self, key: str) -> Hand:
        """A further process of an engine that is there. Raises `PeerError` where it cannot load."""
        hand = self._started(key)
        hand.receive(LOADING)
        return hand

    def close(self) -> None:
        """End all processes."""
        for hand in self._hands.values():
            hand.stop()
