"""The life of a process, and its death at any step that another process could notice.

What a process does inside itself is lost when it is killed; what remains are requests that left and files that got
their names. So it is enough to die right before and right after each of these: `Mortal` counts them, and ends the
process, or what stands for one, at the one that was chosen.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class KilledError(BaseException):
    """Stands for kill -9 where the process is the test's own; nobody catches it."""


def stop_here() -> None:
    """Death in the test's own process."""
    raise KilledError


def kill_self() -> None:
    """Death of a real process, of which nothing runs any more: no handler, no ``finally``."""
    os.kill(os.getpid(), signal.SIGKILL)


class Mortal:
    """Counts the steps of a process that others can notice, and ends it at one of them.

    Args:
        at: the step to die at, from 0; None for a process that lives.
        die: how.
    """

    def __init__(self, at: int | None = None, die: Callable[[], None] = stop_here) -> None:
        self.at, self.die = at, die
        self.steps: list[str] = []
        self.dead = False
        self._thread = threading.get_ident()

    def step(self, what: str) -> None:
        """One step; a process that is dead takes none."""
        if threading.get_ident() != self._thread:  # of the service, where it runs in the same process
            return
        if self.dead or len(self.steps) == self.at:
            self.dead = True
            self.die()
        self.steps.append(what)

    @contextmanager
    def watched(self) -> Iterator[Mortal]:
        """Count requests, answers, and files that get or lose their names, before and after each."""
        from urllib3.connection import HTTPConnection

        with pytest.MonkeyPatch.context() as patch:
            for name in ("replace", "rename", "unlink", "mkdir"):
                patch.setattr(os, name, self._around(getattr(os, name), name))
            patch.setattr(HTTPConnection, "request", self._requesting(HTTPConnection.request))
            patch.setattr(HTTPConnection, "getresponse", self._after(HTTPConnection.getresponse, "answer"))
            yield self

    def _around(self, call: Any, name: str) -> Any:
        return self._after(self._before(call, f"before {name}"), f"after {name}")

    def _requesting(self, call: Any) -> Any:
        def wrapped(connection: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            self.step(f"{method} {url}")
            return call(connection, method, url, *args, **kwargs)

        return wrapped

    def _before(self, call: Any, what: str) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.step(what)
            return call(*args, **kwargs)

        return wrapped

    def _after(self, call: Any, what: str) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            self.step(what)
            return result

        return wrapped
