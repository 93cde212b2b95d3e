"""Measuring a point: every engine prepares, is checked against ours, then all take turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.crew import Crew, Limits, PeerError
from benchmarks.growth import predict, predict_compiling
from benchmarks.jobs import Point
from benchmarks.peers import OURS, PEERS

#: Largest difference to ours, relative to the largest value (at least 1): single precision over thousands of gates.
TOLERANCE = 5e-4
Outcome = Mapping[str, npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Effort:
    """How much is spent on a point.

    Attributes:
        rounds: turns of every engine.
        seconds: of a turn.
        step: seconds that a step may be predicted to take; what is slower is left out, and named.
        preparing: the same for preparing (compiling).
    """

    rounds: int
    seconds: float
    step: float
    preparing: float


@dataclass
class Measured:
    """What was found for one engine at one point; `note` says why there are no times."""

    peer: str
    point: Point
    milliseconds: list[float] = field(default_factory=list)
    preparing: float | None = None
    mib: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """Milliseconds of a step, NaN where none was timed."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """A quantile of the milliseconds, NaN where there are none."""
        return float(np.quantile(self.milliseconds, share)) if self.milliseconds else float("nan")


class Meter:
    """Measures points with a crew, and keeps what was found."""

    def __init__(self, crew: Crew, effort: Effort, scratch: Path) -> None:
        self.crew, self.effort, self._scratch = crew, effort, scratch
        self.found: dict[tuple[str, Point], Measured] = {}

    def medians(self, peer: str) -> dict[Point, float]:
        """Median milliseconds of an engine by point."""
        return {point: one.median for (key, point), one in self.found.items() if key == peer and one.milliseconds}

    def measure(self, point: Point, only: Sequence[str] | None = None) -> None:
        """Time all engines of the crew (or some) at a point."""
        keys = [key for key in self.crew.present if (only is None or key in only) and (key, point) not in self.found]
        rows = {key: Measured(key, point) for key in keys}
        self.found |= {(key, point): row for key, row in rows.items()}
        able = [key for key in keys if self._affordable(rows[key])]
        able = self._prepare({key: rows[key] for key in able})
        able = self._agreeing({key: rows[key] for key in able})
        for turn in range(self.effort.rounds):
            for key in able[turn % max(1, len(able)) :] + able[: turn % max(1, len(able))]:
                self._time(rows[key])

    def _affordable(self, row: Measured) -> bool:
        step = predict(self.medians(row.peer), row.point) / 1e3
        known = {p: one.preparing for (key, p), one in self.found.items() if key == row.peer and one.preparing}
        preparing = predict_compiling(known, row.point) if PEERS[row.peer].compiles else 0.0
        if step > self.effort.step:
            row.note = f"left out: a step would take about {step:.0f} s"
        elif preparing > self.effort.preparing:
            row.note = f"left out: compiling would take about {preparing:.0f} s"
        return not row.note

    def _prepare(self, rows: Mapping[str, Measured]) -> list[str]:
        """Those that could prepare: first what compiles, all at once, then the others one after another."""
        compiling = [key for key in rows if PEERS[key].compiles]
        for group in (compiling, *([key] for key in rows if key not in compiling)):
            for key in group:
                order = {"card": self.crew.card, "point": _numbers(rows[key].point), "outcome": str(self._file(key))}
                self.crew.hand(key).send("prepare", **order)
            for key in group:
                self._receive_prepared(rows[key])
        return [key for key in rows if not rows[key].note]

    def _receive_prepared(self, row: Measured) -> None:
        allowed = 3 * (self.effort.preparing if PEERS[row.peer].compiles else self.effort.step) + 20
        try:
            row.preparing = self.crew.hand(row.peer).receive(Limits(allowed))["seconds"]
        except PeerError as error:
            row.note = str(error)

    def _agreeing(self, rows: Mapping[str, Measured]) -> list[str]:
        """Those whose values and gradients are ours; the others are not timed."""
        reference = next((key for key in OURS if key in rows), None)
        if reference is None:
            for row in rows.values():
                row.note = "not timed: none of our engines is there to be compared with"
            return []
        expected = dict(np.load(self._file(reference)))
        for key, row in rows.items():
            off = difference(expected, dict(np.load(self._file(key))))
            if off > TOLERANCE:
                row.note = f"REFUSED: its values or gradients differ from ours by {off:.1e}"
        return [key for key in rows if not rows[key].note]

    def _time(self, row: Measured) -> None:
        if row.note or self._enough(row.milliseconds):
            return
        hand = self.crew.hand(row.peer)
        hand.send("time", seconds=self.effort.seconds)
        try:
            row.milliseconds += hand.receive(Limits(4 * self.effort.step + 20))["milliseconds"]
        except PeerError as error:
            row.note, row.milliseconds = str(error), []

    def _enough(self, milliseconds: Sequence[float]) -> bool:
        """Whether slow steps have had ten times the share of time of the quick ones."""
        share = self.effort.rounds * self.effort.seconds
        return len(milliseconds) >= 3 and sum(milliseconds) > 10e3 * share

    def memory(self, point: Point, keys: Sequence[str]) -> None:
        """Peak memory at a point, each engine in a fresh process of its own, as many at once as there are cores.

        What takes longer than a minute to prepare is not prepared again for it.
        """
        mine = [self.found[key, point] for key in keys if (key, point) in self.found]
        wanted = [row for row in mine if not row.note and row.mib is None and (row.preparing or 0) < 60]
        with ThreadPoolExecutor(self.crew.threads) as pool:
            list(pool.map(self._memory, wanted))

    def _memory(self, row: Measured) -> None:
        with suppress(PeerError):
            row.mib = self.memory_once(row.peer, row.point)

    def memory_once(self, key: str, point: Point) -> float:
        """MiB of one engine at a point, in a fresh process. Raises `PeerError`."""
        hand = self.crew.fresh(key)
        try:
            hand.send("memory", card=self.crew.card, point=_numbers(point))
            return float(hand.receive(Limits(4 * (self.effort.step + self.effort.preparing) + 20))["mib"])
        finally:
            hand.stop()

    def _file(self, key: str) -> Path:
        return self._scratch / f"{key}.npz"


def difference(ours: Outcome, theirs: Outcome) -> float:
    """The largest difference of values and gradients, each relative to its largest entry (at least 1); inf if shapes
    differ or something is not finite."""
    if any(ours[name].shape != theirs[name].shape for name in ours):
        return float("inf")
    worst = [np.abs(ours[name] - theirs[name]).max() / max(1.0, np.abs(ours[name]).max()) for name in ours]
    return float(max(worst)) if np.isfinite(worst).all() else float("inf")


def _numbers(point: Point) -> list[int]:
    return [point.qubits, point.depth, point.batch]
