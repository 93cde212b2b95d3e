"""Gates and channels as real matrices on Pauli expectation values.

The state of n wires is the vector of the expectation values of all 4**n Pauli strings, letters I, X, Y, Z counted 0 to
3, wire 0 most significant. On it, every one-wire gate or channel is a real 4 x 4 matrix (`Turn`), and every Clifford
gate and Pauli channel a signed, weighted permutation (`Move`). Two-wire gates with an angle become both:

    RZZ(a) = CX RZ(a) CX,    CRZ(a) = RZ(a/2) RZZ(-a/2),    CP(a) = RZ(a/2) x RZ(a/2) RZZ(-a/2)

up to a phase, RZ of RZZ on the target of CX, that of CRZ on its own target; RXX, RYY, CRX, CRY, CH are these in another
basis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qunlearn.quantum.channels import CHANNELS
from qunlearn.quantum.circuit import Angle, Channel, Gate
from qunlearn.quantum.engines.schedule import REWRITE, Turn
from qunlearn.quantum.gates import GATES, PAULI, Matrix, spectrum

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Move(NamedTuple):
    """new[i] = weight[i] * old[source[i]], over the ``4**wires`` strings of some wires."""

    wires: tuple[int, ...]
    source: Ints
    weight: Floats


class Spin(NamedTuple):
    """A turn of one wire; its terms are ``(3, 4, 4)`` real."""

    wire: int
    turn: Turn


def elements(step: Gate | Channel) -> Iterator[Spin | Move]:
    """What a gate or channel is made of, in the order of action."""
    if isinstance(step, Channel):
        yield _channel(step)
    elif len(step.wires) == 1:
        yield Spin(step.wires[0], _turn(step.name, step.angle))
    else:
        name, bases = REWRITE.get(step.name, (step.name, ()))
        turns = [transfer(basis) for basis in bases]
        yield from (Spin(wire, fixed(turn.T)) for wire, turn in zip(step.wires, turns, strict=False))
        yield from _core(replace(step, name=name))
        yield from (Spin(wire, fixed(turn)) for wire, turn in zip(step.wires, turns, strict=False))


def _channel(channel: Channel) -> Spin | Move:
    matrix = CHANNELS[channel.name].transfer(channel.strengths, len(channel.wires))
    if len(channel.wires) == 1:
        return Spin(channel.wires[0], fixed(matrix))
    return Move(channel.wires, np.arange(len(matrix)), np.diag(matrix))


def _core(gate: Gate) -> Iterator[Spin | Move]:
    """The elements of CX, CY, CZ, SWAP, RZZ, CRZ and CP."""
    if gate.angle is None:
        yield _clifford(gate.name, gate.wires)
        return
    first, second = gate.wires if gate.name != "rzz" else sorted(gate.wires)  # larger products are quicker on the first
    joint = gate.angle if gate.name == "rzz" else _times(gate.angle, -0.5)
    half = _turn("rz", _times(gate.angle, 0.5))
    if gate.name == "cp":
        yield Spin(first, half)
    yield _clifford("cx", (second, first))
    if gate.name != "rzz":  # commutes with the CX, and acts together with the other turn
        yield Spin(second, half)
    yield Spin(first, _turn("rz", joint))
    yield _clifford("cx", (second, first))


def _times(angle: Angle, factor: float) -> Angle:
    return replace(angle, scale=angle.scale * factor, offset=angle.offset * factor)


def _clifford(name: str, wires: tuple[int, ...]) -> Move:
    unitary = GATES[name].unitary
    assert unitary is not None
    found = monomial(transfer(unitary))
    assert found is not None
    return Move(wires, *found)


def fixed(matrix: Floats) -> Turn:
    """A turn by a constant matrix ``(4, 4)``."""
    return Turn(np.stack([np.zeros((4, 4)), np.zeros((4, 4)), matrix]))


def _turn(name: str, angle: Angle | None) -> Turn:
    """A one-wire gate as a turn."""
    if angle is None:
        unitary = GATES[name].unitary
        assert unitary is not None
        return fixed(transfer(unitary))
    terms = _terms(name)
    if not angle.constant:
        return Turn(terms, angle)
    return fixed(_clean(math.cos(angle.offset) * terms[0] + math.sin(angle.offset) * terms[1] + terms[2]))


@cache
def _terms(name: str) -> Floats:
    """The terms ``(3, 4, 4)`` of a one-wire gate with an angle, read off its matrix at three angles."""
    values, projectors = spectrum(name)
    start, quarter, half = (
        transfer(np.einsum("k,kij->ij", np.exp(-0.5j * angle * values), projectors))
        for angle in (0.0, math.pi / 2, math.pi)
    )
    constant = (start + half) / 2
    return _clean(np.stack([(start - half) / 2, quarter - constant, constant]))


def transfer(unitary: Matrix) -> Floats:
    """The Pauli transfer matrix ``(4**wires, 4**wires)`` of a gate on one or two wires."""
    paulis = np.stack(list(PAULI.values()))
    if len(unitary) == 4:
        paulis = np.einsum("aij,bkl->abikjl", paulis, paulis).reshape(16, 4, 4)
    moved = unitary @ paulis @ unitary.conj().T
    return _clean(np.einsum("aij,bji->ab", paulis, moved).real / len(unitary))


def _clean(matrix: Floats) -> Floats:
    """The matrix with rounding errors next to 0, 1 and -1 removed, so that what is exact stays exact."""
    near = np.round(matrix)
    return np.where(np.abs(matrix - near) < 1e-14, near, matrix) + 0.0


def monomial(matrix: Floats) -> tuple[Ints, Floats] | None:
    """(source, weight) of a matrix with at most one entry in every row and column, else None."""
    filled = matrix != 0
    if filled.sum(0).max() > 1 or filled.sum(1).max() > 1:
        return None
    source = np.where(filled.any(1), filled.argmax(1), -1)
    source[source < 0] = np.flatnonzero(~filled.any(0))  # empty rows take the empty columns, with weight 0
    return source, matrix[np.arange(len(matrix)), source]
