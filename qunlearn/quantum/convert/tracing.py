"""How the angles of a foreign circuit depend on its parameters, found by running it at chosen points.

Every angle of ours is affine in each parameter: f = a * prod_k (v_k - r_k) + c over the parameters v_k that
it depends on. With D_i = f(p + e_i) - f(p) and D_ij the mixed second difference, all exact for such f,

    r_j = p_j - D_i / D_ij,    a = D_ij / prod_{k != i, j} (p_k - r_k),    c = f(p) - a * prod_k (p_k - r_k).

What was found is checked at further random points, so a function outside this family is refused, never
approximated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import UnsupportedError
from qunlearn.quantum.circuit import Angle, Circuit, Factor, Gate
from qunlearn.quantum.convert.angles import evaluate

Vector = NDArray[np.float64]
Row = tuple[str, tuple[int, ...], float | None]
TOLERANCE = 1e-9
_REACHES = (-1.0, 3.0, -4.0)  # of the points where the result is checked


@dataclass(frozen=True)
class Trace:
    """One run: the gates with numbers for angles, and what else the run showed."""

    rows: tuple[Row, ...]
    qubits: int
    observables: tuple[str, ...]
    amplitude: bool = False

    def angles(self) -> Vector:
        """The angles ``(gates,)`` in radians, 0 for gates without one."""
        return np.array([row[2] or 0.0 for row in self.rows], dtype=np.float64)

    def shape(self) -> tuple[object, ...]:
        """All that must not depend on the parameters."""
        return tuple(row[:2] for row in self.rows), self.qubits, self.observables, self.amplitude


@dataclass
class Tracer:
    """Runs ``run(features, weights)`` at points around a base point and remembers the angles.

    Args:
        run: from features ``(features,)`` and weights ``(weights,)``, float64, to a `Trace`.
        features: how many features.
        weights: how many weights.
    """

    run: Callable[[Vector, Vector], Trace]
    features: int
    weights: int
    _known: dict[tuple[int, ...], Vector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(20190529)
        self.base = self._point()
        self.first = self._trace(self.base)
        self._known[()] = self.first.angles()
        self.moves = self.rng.uniform(0.5, 1.5, (2, len(self.base)))
        self.swings = np.stack([self._angles(self.base + move) - self.moved() for move in self.moves])

    def _point(self) -> Vector:
        return self.rng.uniform(0.3, 1.3, self.features + self.weights)

    def _trace(self, point: Vector) -> Trace:
        return self.run(point[: self.features], point[self.features :])

    def _angles(self, point: Vector) -> Vector:
        trace = self._trace(point)
        if trace.shape() != self.first.shape():
            raise UnsupportedError(
                "expected the same gates for all features and weights, got gates that change with their values; "
                "build one circuit for each case"
            )
        return trace.angles()

    def moved(self, *indices: int) -> Vector:
        """The angles ``(gates,)`` with the parameters `indices` raised by 1 from the base point."""
        if indices not in self._known:
            point = self.base.copy()
            point[list(indices)] += 1
            self._known[indices] = self._angles(point)
        return self._known[indices]

    def circuit(self) -> Circuit:
        """The circuit that the runs show. Raises `UnsupportedError` for angles outside the family above."""
        found = [self._gate(number) for number in range(len(self.first.rows))]
        self._check(found)
        trace = self.first
        return Circuit(
            trace.qubits, tuple(found), trace.observables, self.features, self.weights, amplitude=trace.amplitude
        )

    def _gate(self, number: int) -> Gate:
        name, wires, value = self.first.rows[number]
        return Gate(name, wires, None if value is None else self._angle(number, value))

    def _angle(self, number: int, here: float) -> Angle:
        first, second = self.swings[:, number]
        if max(abs(first), abs(second)) < TOLERANCE:
            return Angle(offset=here)
        # Two random moves of all parameters at once: if the angle depends on one parameter, as most do, the
        # ratio of its changes tells which; only else are the parameters moved one by one.
        apart = np.abs(first * self.moves[1] - second * self.moves[0])
        matches = np.flatnonzero(apart <= TOLERANCE * (abs(first) + abs(second)))
        if len(matches) != 1:
            return self._product(number, self._depends(number), here)
        only = int(matches[0])
        slope = float(first / self.moves[0, only])
        turn = slope * self.base[only]
        return self._build(_tidy(slope), {only: 0.0}, _tidy(here - turn, abs(turn)))

    def _depends(self, number: int) -> list[int]:
        here = self.moved()[number]
        found = [i for i in range(len(self.base)) if abs(self.moved(i)[number] - here) > TOLERANCE]
        if len(found) < 2:
            raise self._refusal(number)
        return found

    def _refusal(self, number: int) -> UnsupportedError:
        name, wires, _ = self.first.rows[number]
        return UnsupportedError(f"gate {number} ({name}{list(wires)}): {_FAMILY}")

    def _product(self, number: int, depends: list[int], here: float) -> Angle:
        roots = {j: self._root(number, depends[0] if j != depends[0] else depends[1], j, here) for j in depends}
        product = math.prod(self.base[k] - root for k, root in roots.items())
        first = depends[0]
        slope = float(self.moved(first)[number]) - here
        scale = slope * (self.base[first] - roots[first]) / product
        return self._build(_tidy(scale), roots, _tidy(here - scale * product, abs(scale * product)))

    def _root(self, number: int, i: int, j: int, here: float) -> float:
        single = float(self.moved(i)[number]) - here
        mixed = float(self.moved(*sorted((i, j)))[number]) - float(self.moved(j)[number]) - single
        if abs(mixed) < TOLERANCE:
            raise self._refusal(number)
        return _tidy(self.base[j] - single / mixed)

    def _build(self, scale: float, roots: dict[int, float], offset: float) -> Angle:
        """The angle scale * prod(v_k - root_k) + offset; a positive root r is written as r - v."""
        factors, weight = [], None
        for index, root in roots.items():
            if index < self.features:
                sign = -1.0 if root > 0 else 1.0
                scale *= sign
                factors.append(Factor(index, sign, abs(root)))
            elif root != 0 or weight is not None:
                raise UnsupportedError(f"expected at most one weight, as a plain factor, in an angle; {_FAMILY}")
            else:
                weight = index - self.features
        return Angle(scale, tuple(factors), weight, offset)

    def _check(self, gates: list[Gate]) -> None:
        for reach in _REACHES:
            point = reach * self._point()
            features, weights = point[: self.features], point[self.features :]
            got = self._angles(point)
            for number, gate in enumerate(gates):
                if gate.angle is None:
                    continue
                expected = evaluate(gate.angle, features.__getitem__, weights.__getitem__)
                if not abs(got[number] - expected) <= TOLERANCE * max(1.0, abs(expected)):
                    raise self._refusal(number)


_FAMILY = (
    "expected an angle of the form scale * product(sign * feature + shift) * weight + offset, got something else; "
    "compute other angles before the circuit and pass them as features"
)


def all_z(qubits: int) -> tuple[str, ...]:
    """Z on every wire: what is observed where a source says nothing."""
    return tuple("I" * wire + "Z" + "I" * (qubits - wire - 1) for wire in range(qubits))


def _tidy(value: float, size: float = 0.0) -> float:
    """The value without the rounding of differences: a number of 12 digits, or such a multiple of pi, if near.

    `size` is how large the numbers were whose difference it is, if larger than the value.
    """
    near = 2e-14 * max(abs(value), size)
    if abs(value) < max(near, 1e-12):
        return 0.0
    for unit in (1.0, math.pi):
        short = float(f"{value / unit:.12g}") * unit
        if abs(short - value) <= near:
            return short
    return float(value)
