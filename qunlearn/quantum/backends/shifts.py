"""Which coordinates to shift by how much, and how the values add up to derivatives of any order."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qunlearn.quantum.backends.opened import Opened

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plan:
    """The points around a sample at which a circuit is run.

    Attributes:
        shifts: ``(points, C)``, what each point adds to the coordinates.
        tables: for each order of derivative ``(positions**order, points)``: what each point counts.
    """

    shifts: Floats
    tables: tuple[csr_array, ...]

    def combine(self, values: Floats) -> list[Floats]:
        """Values ``(points, rows, observables)`` to derivatives ``(rows, observables, positions, ...)``, one an order.

        The axes of the positions are one of ``positions**order``.
        """
        points, rows, observables = values.shape
        flat = values.reshape(points, rows * observables)
        return [(table @ flat).T.reshape(rows, observables, table.shape[0]) for table in self.tables]


@lru_cache(maxsize=64)
def shift_plan(opened: Opened, positions: tuple[int, ...], orders: tuple[int, ...]) -> Plan:
    """The plan of the parameter-shift rule for derivatives of the given orders by the coordinates at `positions`."""
    points: dict[tuple[tuple[int, float], ...], int] = {}
    tables = []
    for order in orders:
        entries = []
        for chosen in itertools.product(range(len(positions)), repeat=order):
            row = sum(k * len(positions) ** power for power, k in enumerate(reversed(chosen)))
            # Mixed derivatives are the same in any order, so that they share their points.
            for weight, point in _terms(opened, tuple(sorted(positions[k] for k in chosen))):
                entries.append((weight, row, points.setdefault(point, len(points))))
        tables.append(entries)
    shifts = np.zeros((len(points), len(opened.shifted)))
    for point, number in points.items():
        for position, shift in point:
            shifts[number, position] = shift
    sizes = [(len(positions) ** order, len(points)) for order in orders]
    return Plan(shifts, tuple(_table(e, size) for e, size in zip(tables, sizes, strict=True)))


def _terms(opened: Opened, positions: tuple[int, ...]) -> list[tuple[float, tuple[tuple[int, float], ...]]]:
    """The coefficients and points of one mixed derivative; a point is its shifts other than zero by position."""
    found = []
    for terms in itertools.product(*(opened.shifted[position] for position in positions)):
        total: dict[int, float] = {}
        for position, (_, shift) in zip(positions, terms, strict=True):
            total[position] = round(total.get(position, 0.0) + shift, 12)
        point = tuple((position, shift) for position, shift in total.items() if shift)
        found.append((math.prod(coefficient for coefficient, _ in terms), point))
    return found


def _table(entries: list[tuple[float, int, int]], size: tuple[int, int]) -> csr_array:
    from scipy.sparse import csr_array  # a fifth of a second, for those who take gradients on a backend

    weights, rows, columns = (list(part) for part in zip(*entries, strict=True)) if entries else ([], [], [])
    return csr_array((np.array(weights, dtype=float), (rows, columns)), shape=size)
