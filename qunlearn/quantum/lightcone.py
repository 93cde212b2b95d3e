"""Which gates of a circuit can change any of its expectation values."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import torch

from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.gates import PAULI, Matrix
from qunlearn.quantum.gates import gate as gate_spec

_Letters = tuple[frozenset[str], ...]


@cache
def live_gates(circuit: Circuit) -> tuple[bool, ...]:
    """For every gate, whether it can change an expectation value; the others drop out exactly.

    Each observable is followed backwards through the circuit as the set of Pauli letters that it may
    hold on each wire. A gate that commutes with all of them is dead: it lies outside the light cone, or
    in a tail that is diagonal in the measured basis.
    """
    live = np.zeros(len(circuit.gates), dtype=bool)
    for observable in circuit.observables:
        live |= _live_for(circuit, observable)
    return tuple(bool(alive) for alive in live)


def live_weights(circuit: Circuit) -> tuple[bool, ...]:
    """For every weight, whether it reaches an observable; the gradients of the others are exactly zero."""
    reached = {g.angle.weight for g, alive in zip(circuit.gates, live_gates(circuit), strict=True) if alive and g.angle}
    return tuple(index in reached for index in range(circuit.weights))


def _live_for(circuit: Circuit, observable: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    letters = [frozenset(letter) - {"I"} for letter in observable]
    live = np.zeros(len(circuit.gates), dtype=bool)
    for position in range(len(circuit.gates) - 1, -1, -1):
        gate = circuit.gates[position]
        before = tuple(letters[wire] for wire in gate.wires)
        live[position] = not _commutes(gate.name, before)
        if live[position]:
            for wire, found in zip(gate.wires, _conjugate(gate.name, before), strict=True):
                letters[wire] = found
    return live


@cache
def _commutes(name: str, letters: _Letters) -> bool:
    """Whether a gate, at every angle, commutes with each of the letters on each of its wires."""
    spec = gate_spec(name)
    matrix = spec.unitary if spec.generator is None else spec.generator
    assert matrix is not None
    for position, found in enumerate(letters):
        for letter in found:
            pauli = _string("I" * position + letter + "I" * (spec.wires - position - 1))
            if not np.allclose(matrix @ pauli, pauli @ matrix):
                return False
    return True


@cache
def _conjugate(name: str, letters: _Letters) -> _Letters:
    """The letters on each wire of U^dagger O U, for every O that the given letters can make."""
    generic = torch.tensor(0.7345, dtype=torch.float64)  # any angle that is no multiple of pi / 4
    unitary = gate_spec(name).matrix(generic).numpy()
    after: list[set[str]] = [set() for _ in letters]
    for word in product(*(sorted(found | {"I"}) for found in letters)):
        moved = unitary.conj().T @ _string("".join(word)) @ unitary
        for other in product("IXYZ", repeat=len(letters)):
            if abs(np.trace(_string("".join(other)) @ moved)) > 1e-9:
                for position, letter in enumerate(other):
                    after[position] |= set(letter) - {"I"}
    return tuple(frozenset(found) for found in after)


@cache
def _string(word: str) -> Matrix:
    matrix = np.eye(1, dtype=np.complex128)
    for letter in word:
        matrix = np.kron(matrix, PAULI[letter])
    return matrix
