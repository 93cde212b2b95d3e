"""What goes wrong in real life, as numbers: how often each fault strikes a request, drawn from one seeded generator."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

# What may strike one request. "before": the service has done nothing; "after": it has done what was asked.
STRIKES = (
    "lost_before",
    "lost_after",
    "error_before",
    "error_after",
    "garbled_after",
    "echo_before",
    "echo_after",
    "throttled",
    "delayed",
)
# What is only scripted: the account may not submit; the job is too large.
REFUSALS = ("denied", "too_large")


@dataclass(frozen=True)
class Faults:
    """How often what goes wrong.

    The first nine are probabilities for one request; at most one of them strikes it.

    Args:
        lost_before: The connection ends, and the service has done nothing.
        lost_after: The service does what was asked, and the connection ends without an answer.
        error_before: An answer 500, 502, 503 or 504, and nothing done.
        error_after: The same answer, but what was asked has been done.
        garbled_after: What was asked has been done, but the answer is a page of some machine on the way.
        echo_before: The answer to the submission of a job is that to the former one, and nothing done.
        echo_after: The same, but the job has been accepted.
        throttled: An answer 429, and nothing done.
        delayed: The answer comes after ``delay`` seconds of the service's clock.
        delay: Seconds, see above.
        repeated: Probability that a reading request is answered as it was before, where that is less than ``stale``
            seconds ago, and that a listing names its jobs twice.
        stale: Seconds, see above.
        failed: Probability that a job fails.
        cancelled: Probability that a job is cancelled by the operator of the machine.
        listing_delay: A job is listed so many seconds after it was accepted, or up to so many where ``jitter`` is set.
        jitter: Whether the delay of the listing is drawn anew for each job, between 0 and ``listing_delay``.
        seed: Of all draws.
    """

    lost_before: float = 0.0
    lost_after: float = 0.0
    error_before: float = 0.0
    error_after: float = 0.0
    garbled_after: float = 0.0
    echo_before: float = 0.0
    echo_after: float = 0.0
    throttled: float = 0.0
    delayed: float = 0.0
    delay: float = 5.0
    repeated: float = 0.0
    stale: float = 30.0
    failed: float = 0.0
    cancelled: float = 0.0
    listing_delay: float = 0.0
    jitter: bool = False
    seed: int = 0

    @classmethod
    def drawn(cls, seed: int, listing_delay: float) -> Faults:
        """A mixture: each kind is absent in about half of the mixtures, and frequent in the others."""
        generator = np.random.default_rng(seed)
        present = generator.random(len(STRIKES)) < 0.5
        rates = generator.uniform(0.05, 0.25, len(STRIKES)) * present
        rates *= min(1.0, 0.5 / max(rates.sum(), 1e-9))
        often: dict[str, Any] = {name: float(rate) for name, rate in zip(STRIKES, rates, strict=True)}
        often |= {name: float(generator.uniform(0, 0.4) * (generator.random() < 0.5)) for name in ("repeated",)}
        often |= {
            name: float(generator.uniform(0, 0.3) * (generator.random() < 0.5)) for name in ("failed", "cancelled")
        }
        return cls(**often, delay=float(generator.uniform(1, 20)), listing_delay=listing_delay, jitter=True, seed=seed)


@dataclass
class Fate:
    """Draws what strikes which request; what was scripted for jobs' submissions comes before what is drawn."""

    faults: Faults = field(default_factory=Faults)
    scripted: deque[str] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng(self.faults.seed)
        self._lock = threading.Lock()

    def script(self, strikes: Iterable[str]) -> None:
        """Set what strikes the next submissions: names of `STRIKES` or `REFUSALS`, or "" for nothing."""
        for strike in strikes:
            if strike not in ("", *STRIKES, *REFUSALS):
                raise ValueError(f"expected one of {STRIKES + REFUSALS}, got {strike!r}")
            self.scripted.append(strike)

    def strike(self, *, submission: bool) -> str:
        """What strikes this request, "" for nothing."""
        with self._lock:
            if submission and self.scripted:
                return self.scripted.popleft()
            draw = self._generator.random()
            for name in STRIKES:
                draw -= getattr(self.faults, name)
                if draw < 0:
                    return name
            return ""

    def happens(self, probability: float) -> bool:
        """One draw."""
        with self._lock:
            return bool(self._generator.random() < probability)

    def status(self) -> int:
        """One of the statuses of a server in trouble."""
        with self._lock:
            return int(self._generator.choice([500, 502, 503, 504]))

    def until_listed(self) -> float:
        """Seconds from accepting a job to listing it."""
        with self._lock:
            share = self._generator.random() if self.faults.jitter else 1.0
        return float(share * self.faults.listing_delay)


class SimulatedClock:
    """A clock that nobody waits for: waiting moves it on."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self._time = start
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since the epoch."""
        with self._lock:
            return self._time

    def wait(self, seconds: float) -> None:
        """Move on."""
        with self._lock:
            self._time += max(0.0, seconds)


def named(faults: Faults) -> str:
    """The faults that are on, for the message of a failing run."""
    return ", ".join(
        f"{part.name}={getattr(faults, part.name)}" for part in fields(faults) if getattr(faults, part.name)
    )
