"""Gates put into stages, each as early as the gates before it allow.

A stage is a run of one-wire gates on every wire, then two-wire gates that are all monomial: one entry in
every row and column of the matrix, so that any number of them is one permutation and one phase a state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qunlearn.quantum.circuit import Angle, Gate
from qunlearn.quantum.gates import Matrix
from qunlearn.quantum.gates import gate as gate_spec

IDENTITY = np.eye(2, dtype=np.complex128)
_H = np.array([[1, 1], [1, -1]], dtype=np.complex128) / math.sqrt(2)
_SH = np.diag([1, 1j]) @ _H  # brings Z to Y
_TILT = np.array([[math.cos(math.pi / 8), -math.sin(math.pi / 8)], [math.sin(math.pi / 8), math.cos(math.pi / 8)]])
# gate -> monomial gate, and on each wire the basis B in which it is that one: gate = B monomial B^dagger
REWRITE: dict[str, tuple[str, tuple[Matrix, Matrix]]] = {
    "crx": ("crz", (IDENTITY, _H)),
    "cry": ("crz", (IDENTITY, _SH)),
    "rxx": ("rzz", (_H, _H)),
    "ryy": ("rzz", (_SH, _SH)),
    "ch": ("cz", (IDENTITY, _TILT.astype(np.complex128))),
}


class Turn(NamedTuple):
    """A one-wire factor: cos(angle) terms[0] + sin(angle) terms[1] + terms[2]; ``(3, 2, 2)``, or real ``(3, 4, 4)``."""

    terms: NDArray[Any]
    angle: Angle | None = None

    @property
    def constant(self) -> bool:
        """Whether nothing but terms[2] is left."""
        return self.angle is None


@dataclass(eq=False)
class Draft:
    """A stage: for each wire the run of turns, then the monomial gates in program order."""

    runs: dict[int, list[Turn]] = field(default_factory=dict)
    gates: list[Gate] = field(default_factory=list)


class Schedule:
    """Puts every gate into the earliest stage that the gates before it on its wires allow."""

    def __init__(self, qubits: int) -> None:
        self.drafts = [Draft()]
        self.level = [0] * qubits  # the stage that a wire has reached
        self.closed = [False] * qubits  # whether its monomial step has touched the wire

    def run(self, gates: Iterable[Gate | tuple[int, Turn]]) -> list[Draft]:
        """The stages of a sequence of gates, at least one; a (wire, turn) stands for a one-wire gate of no table."""
        for gate in gates:
            if isinstance(gate, tuple):
                self._turn(*gate)
                continue
            if len(gate.wires) == 1:
                self._turn(gate.wires[0], _as_turn(gate))
                continue
            name, bases = REWRITE.get(gate.name, (gate.name, (IDENTITY, IDENTITY)))
            for wire, basis in zip(gate.wires, bases, strict=True):
                self._turn(wire, fixed(basis.conj().T))
            self._join(replace(gate, name=name))
            for wire, basis in zip(gate.wires, bases, strict=True):
                self._turn(wire, fixed(basis))
        return [d for n, d in enumerate(self.drafts) if n == 0 or d.gates or d.runs]

    def _join(self, gate: Gate) -> None:
        level = max(self.level[wire] for wire in gate.wires)
        self.drafts[level].gates.append(gate)
        for wire in gate.wires:
            self.level[wire], self.closed[wire] = level, True

    def _turn(self, wire: int, turn: Turn) -> None:
        if _is_identity(turn):
            return
        if self.closed[wire]:
            self.level[wire] += 1
            self.closed[wire] = False
            if self.level[wire] == len(self.drafts):
                self.drafts.append(Draft())
        run = self.drafts[self.level[wire]].runs.setdefault(wire, [])
        turn = merged(run, turn)
        if not _is_identity(turn):
            run.append(turn)
        elif not run and self.level[wire] > 0:
            # Two changes of basis have cancelled: the wire is back in the stage before.
            del self.drafts[self.level[wire]].runs[wire]
            self.level[wire], self.closed[wire] = self.level[wire] - 1, True


def merged(run: list[Turn], turn: Turn) -> Turn:
    """The turn, joined with the last one of the run, which then leaves it, where one of the two is constant."""
    if not run or not (turn.constant or run[-1].constant):
        return turn
    last = run.pop()
    left = turn.terms[2] if turn.constant else turn.terms
    right = last.terms if turn.constant else last.terms[2]
    return Turn(left @ right, last.angle or turn.angle)


def _is_identity(turn: Turn) -> bool:
    return turn.constant and bool(np.abs(turn.terms[2] - IDENTITY).max() < 1e-15)


def fixed(matrix: Matrix) -> Turn:
    """A turn by a constant matrix ``(2, 2)``."""
    return Turn(np.stack([np.zeros((2, 2)), np.zeros((2, 2)), matrix]).astype(np.complex128))


def _as_turn(gate: Gate) -> Turn:
    """A one-wire gate as a turn: exp(-i a G / 2) for a Pauli G, or the phase gate."""
    spec = gate_spec(gate.name)
    if spec.unitary is not None:
        return fixed(spec.unitary)
    assert spec.generator is not None
    assert gate.angle is not None
    values = np.linalg.eigvalsh(spec.generator)
    middle, half = values.mean() / 2, (values[1] - values[0]) / 4
    pauli = (spec.generator / 2 - middle * IDENTITY) / half
    if abs(middle) > 1e-12:  # the phase gate, diag(1, exp(i a))
        terms = np.stack([np.diag([0, 1]), np.diag([0, 1j]), np.diag([1, 0])]).astype(np.complex128)
        return _constant_folded(terms, gate.angle)
    terms = np.stack([IDENTITY, -1j * pauli, np.zeros((2, 2))])
    return _constant_folded(terms, replace(gate.angle, scale=gate.angle.scale * half, offset=gate.angle.offset * half))


def _constant_folded(terms: Matrix, angle: Angle) -> Turn:
    if not angle.constant:
        return Turn(terms, angle)
    return fixed(math.cos(angle.offset) * terms[0] + math.sin(angle.offset) * terms[1] + terms[2])
