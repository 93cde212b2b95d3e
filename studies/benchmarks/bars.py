"""The bars: what was promised, what was found, whether it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.jobs import Point
from benchmarks.peers import OURS, PEERS

State = Literal["met", "not met", "not measured", "shown"]
BASE = Point(8, 2, 64)
DEEP = Point(12, 8, 64)
MEMORY = (Point(12, 4, 64), Point(12, 64, 64))
#: By engine and point.
Times = Mapping[tuple[str, Point], float]


@dataclass(frozen=True)
class Bar:
    """A ratio that is to be at least (or at most) so much; without a bound it is only shown.

    Attributes:
        title: what is compared with what.
        value: the ratio found; None where it was not measured.
        bound: the bar; None for a figure beside the bars.
        at_most: whether the bar is an upper one.
        detail: the figures behind it, or why there are none.
        partial: whether something is missing that could change the ratio.
    """

    title: str
    value: float | None
    bound: float | None = None
    at_most: bool = False
    detail: str = ""
    partial: bool = False

    @property
    def state(self) -> State:
        """Whether it is met."""
        if self.value is None or not math.isfinite(self.value) or self.partial:
            return "not measured"
        if self.bound is None:
            return "shown"
        return "met" if (self.value <= self.bound if self.at_most else self.value >= self.bound) else "not met"


def speed_bar(title: str, times: Times, ours: str, peer: str, point: Point, bound: float | None) -> Bar:
    """How many times longer a peer takes at a point."""
    mine, theirs = times.get((ours, point)), times.get((peer, point))
    if mine is None or theirs is None:
        absent = " and ".join(PEERS[key].title for key, time in ((ours, mine), (peer, theirs)) if time is None)
        return Bar(title, None, bound, detail=f"no time of {absent}")
    return Bar(title, theirs / mine, bound, detail=f"{theirs:.3g} ms, ours {mine:.3g} ms")


def best_peer_bar(title: str, times: Times, point: Point, bound: float) -> Bar:
    """How many times longer the quickest peer takes at a point; names the peers without a time.

    It is not decided without TensorCircuit-NG, which is the quickest elsewhere.
    """
    peers = {key: times[key, point] for key in PEERS if key not in OURS and (key, point) in times}
    if not peers:
        return Bar(title, None, bound, detail="no time of any peer")
    best = min(peers, key=peers.__getitem__)
    found = speed_bar(title, times, "fused", best, point, bound)
    left = [PEERS[key].title for key in PEERS if key not in OURS and key not in peers]
    without = f"; without {', '.join(left)}" if left else ""
    partial = ("tensorcircuit", point) not in times
    return Bar(title, found.value, bound, detail=f"{PEERS[best].title}: {found.detail}{without}", partial=partial)


def speed_bars(times: Times) -> list[Bar]:
    """The bars on a step's time, from median milliseconds."""
    rows = [
        ("fused", "pennylane", BASE, 70.0),
        ("fused", "tensorcircuit", BASE, 5.0),
        ("fused", "tensorcircuit", Point(8, 2, 512), 7.0),
        ("fused", "tensorcircuit", Point(8, 2, 4096), 7.0),
    ]
    found = [
        speed_bar(f"{PEERS[ours].title} against {PEERS[peer].title}: {point}", times, ours, peer, point, bound)
        for ours, peer, point, bound in rows
    ]
    found.append(best_peer_bar(f"{PEERS['fused'].title} against the best peer: {DEEP}", times, DEEP, 3.0))
    rest = [("torch", "pennylane", BASE, 12.0), ("fused", "tensorcircuit-z", BASE, None)]
    found += [
        speed_bar(f"{PEERS[ours].title} against {PEERS[peer].title}: {point}", times, ours, peer, point, bound)
        for ours, peer, point, bound in rest
    ]
    return found


def memory_bar(shallow: float | None, deep: float | None) -> Bar:
    """Peak memory of a step at depth 64 against depth 4, in MiB."""
    title = "peak memory of a step, depth 64 against depth 4 (12 qubits, batch 64)"
    if shallow is None or deep is None:
        return Bar(title, None, 1.2, at_most=True, detail="the fused engine is not there")
    ratio = deep / shallow if shallow else math.inf if deep else 1.0
    return Bar(title, ratio, 1.2, at_most=True, detail=f"{deep:.2f} MiB, {shallow:.2f} MiB")


def import_bars(seconds: Mapping[str, float]) -> list[Bar]:
    """The time of `import qunlearn` against `import torch`, from medians; beside it, with every public name loaded."""
    found = []
    for what, bound in (("import qunlearn", 1.5), ("import qunlearn, every name", None)):
        ratio = seconds[what] / seconds["import torch"]
        detail = f"{seconds[what]:.2f} s, {seconds['import torch']:.2f} s"
        found.append(Bar(f"{what} against import torch", ratio, bound, at_most=True, detail=detail))
    return found
