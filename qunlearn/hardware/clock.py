"""The wall clock and waiting, in one place, so that tests may replace both. Call them as ``clock.now()``."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds since 1970: times must mean the same to the process that goes on after this one was killed."""
    return time.time()


def wait(seconds: float) -> None:
    """Wait that long."""
    time.sleep(seconds)
