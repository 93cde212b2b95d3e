"""What other programs took of the processor meanwhile: it is not lost by all engines alike."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil

#: Share of the processor that is let pass.
QUIET = 0.03


class Others:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.monotonic(), _busy(), _own()

    def share(self) -> float:
        """The share of all cores that was used by others, from 0 to 1; what a host takes away counts as well."""
        seconds = (time.monotonic() - self._start) * (psutil.cpu_count() or 1)
        return max(0.0, (_busy() - self._busy - (_own() - self._own)) / seconds)

    def sentences(self) -> list[str]:
        """A sentence where others took more than a little."""
        return sentences(self.share())


def sentences(share: float) -> list[str]:
    """What to say about a share."""
    if share <= QUIET:
        return []
    return [f"Other programs used {share:.0%} of the processor meanwhile, so this is no closing figure."]


def _busy() -> float:
    """Seconds that all cores together have not been idle."""
    times = psutil.cpu_times()._asdict()
    return float(sum(times.get(name, 0.0) for name in ("user", "system", "irq", "softirq", "steal")))


def _own() -> float:
    """CPU seconds of this process, of its children that have ended, and of those that run."""
    me = psutil.Process()
    used = sum(me.cpu_times()[:4])
    for child in me.children(recursive=True):
        with suppress(psutil.Error):
            used += sum(child.cpu_times()[:4])
    return float(used)
