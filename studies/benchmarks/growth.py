"""How time grows: fits, and predictions that keep a benchmark from starting what it cannot finish."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.jobs import Point

#: So many of the largest sizes are fitted apart: the small ones are overhead.
LAST = 3


def fit_base(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The base b of time ~ b^size, by least squares on log(time)."""
    return math.exp(_slope(sizes, np.log(times)))


def fit_power(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The exponent p of time ~ size^p, by least squares on both logarithms."""
    return _slope(np.log(sizes), np.log(times))


def _slope(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    if len(x) < 2:
        raise ValueError(f"expected at least 2 points to fit, got {len(x)}")
    return float(np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)[0])


def axis(times: Mapping[Point, float], name: str, centre: Point) -> tuple[list[int], list[float]]:
    """Sizes and times of the points that differ from the centre along one axis alone, sorted."""
    others = [other for other in ("qubits", "depth", "batch") if other != name]
    mine = sorted(point for point in times if all(getattr(point, o) == getattr(centre, o) for o in others))
    return [getattr(point, name) for point in mine], [times[point] for point in mine]


def growths(times: Mapping[Point, float], centre: Point) -> dict[str, tuple[float, float] | None]:
    """For each axis the growth over all points and over the `LAST` largest; None with fewer points than that.

    Qubits: the base of an exponential. Depth and batch: the exponent of a power.
    """
    found: dict[str, tuple[float, float] | None] = {}
    for name in ("qubits", "depth", "batch"):
        sizes, mine = axis(times, name, centre)
        fit = fit_base if name == "qubits" else fit_power
        enough = len(sizes) >= LAST
        found[name] = (fit(sizes, mine), fit(sizes[-LAST:], mine[-LAST:])) if enough else None
    return found


def predict(times: Mapping[Point, float], point: Point) -> float:
    """Time at a point from the nearest one measured: doubled by a qubit, linear in depth and batch; 0 if none is."""
    if not times:
        return 0.0
    near = min(times, key=lambda other: (_distance(other, point), other))
    growth = math.pow(2.0, point.qubits - near.qubits) * point.depth / near.depth * point.batch / near.batch
    return times[near] * growth


def predict_compiling(times: Mapping[Point, float], point: Point) -> float:
    """Time to compile from the nearest point measured: gates to the power of 2.3, whatever the batch; 0 if none is."""
    if not times:
        return 0.0
    near = min(times, key=lambda other: (_distance(other, point), other))
    return times[near] * math.pow(point.qubits * point.depth / (near.qubits * near.depth), 2.3)


def _distance(one: Point, other: Point) -> float:
    depths, batches = math.log2(one.depth / other.depth), math.log2(one.batch / other.batch)
    return abs(one.qubits - other.qubits) + abs(depths) + abs(batches)
