"""Which gates and weights no expectation value depends on, read off the circuit without running it.

Three things kill a weight: its gate turns |0> on untouched wires by a phase alone; it stands outside the
backward light cone of the observables; or it commutes with all that the observables can become, as the
diagonal tail before a Z measurement does. The last two are one: each observable is carried backwards as the
set of Pauli letters it may have on every wire (a product of sets, so it may be too large, never too small).
Weights called dead here therefore have a gradient of exactly zero. Channels are no gates to leave out, but they change
what |0> and the letters become.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import numpy as np

from qunlearn.quantum.channels import CHANNELS
from qunlearn.quantum.circuit import Channel, Circuit, Gate
from qunlearn.quantum.gates import GATES, PAULI, Matrix, spectrum

_GENERIC = (0.7345, 2.1117)  # angles at which nothing vanishes by accident
_TINY = 1e-10


@cache
def live_gates(circuit: Circuit) -> tuple[bool, ...]:
    """For every gate, whether any observable depends on it; the others may be left out without a trace."""
    kept = tuple(range(len(circuit.gates))) if circuit.amplitude else _without_heads(circuit)
    alive = {position for word in circuit.observables for position in _reached(circuit, kept, word)}
    return tuple(position in alive for position in range(len(circuit.gates)))


def dead_weights(circuit: Circuit) -> tuple[int, ...]:
    """Indices of the weights, in order, on which no observable depends (also those that no gate uses)."""
    live = zip(circuit.gates, live_gates(circuit), strict=True)
    alive = {gate.angle.weight for gate, reaches in live if reaches and gate.angle is not None}
    return tuple(index for index in range(circuit.weights) if index not in alive)


def _without_heads(circuit: Circuit) -> tuple[int, ...]:
    """Positions of the gates that do more to |0...0> than turn its phase."""
    fresh, kept, position = [True] * circuit.qubits, [], -1
    for gate in circuit.steps:
        if isinstance(gate, Channel):
            for wire in gate.wires:
                fresh[wire] &= _keeps_zero(gate)
            continue
        position += 1
        at_zero = tuple(fresh[wire] for wire in gate.wires)
        idle, stays = _on_zero(gate.name, _key(gate), at_zero)
        if not idle:
            kept.append(position)
        for wire, stay in zip(gate.wires, stays, strict=True):
            fresh[wire] = stay
    return tuple(kept)


def _keeps_zero(channel: Channel) -> bool:
    """Whether the channel leaves wires in |0>, where every string of I and Z is 1, as they are."""
    transfer = CHANNELS[channel.name].transfer(channel.strengths, len(channel.wires))
    ground = np.array([1.0, 0.0, 0.0, 1.0])
    vector = ground if len(channel.wires) == 1 else np.kron(ground, ground)
    return bool(np.abs(transfer @ vector - vector).max() < _TINY)


@cache
def _on_zero(name: str, angle: float | None, fresh: tuple[bool, ...]) -> tuple[bool, tuple[bool, ...]]:
    """Whether the gate only turns the phase where its fresh wires are |0>, and which wires then stay |0>."""
    idle, stays = True, list(fresh)
    for matrix in _matrices(name, angle):
        wires = len(fresh)
        inputs = [i for i in range(2**wires) if not any(f and i >> (wires - 1 - k) & 1 for k, f in enumerate(fresh))]
        columns = matrix[:, inputs]
        phase = columns[inputs[0], 0]
        idle &= bool(np.abs(columns - phase * np.eye(2**wires)[:, inputs]).max() < _TINY)
        for wire in range(wires):
            raised = [i for i in range(2**wires) if i >> (wires - 1 - wire) & 1]
            stays[wire] &= bool(np.abs(columns[raised]).max() < _TINY)
    return idle, tuple(stays)


def _reached(circuit: Circuit, kept: tuple[int, ...], word: str) -> set[int]:
    """Positions of the gates that do not commute with what the observable has become, from the last gate back."""
    letters = [frozenset(letter) for letter in word]
    for wire, (zero, one) in enumerate(circuit.readout):
        if zero != one:  # read with a pull towards one side, so partly as a constant
            letters[wire] |= {"I"}
    reached, keep, position = set(), frozenset(kept), len(circuit.gates)
    for gate in reversed(circuit.steps):
        if isinstance(gate, Channel):
            _pull(gate, letters)
            continue
        position -= 1
        if position not in keep:
            continue
        now = tuple(letters[wire] for wire in gate.wires)
        commutes, before = _carried(gate.name, _key(gate), now)
        if commutes:
            continue
        reached.add(position)
        for wire, letter_set in zip(gate.wires, before, strict=True):
            letters[wire] = letter_set
    return reached


def _pull(channel: Channel, letters: list[frozenset[str]]) -> None:
    """The letters before a channel: a pull towards |0> makes I of Z; else a string stays what it is, or vanishes."""
    if CHANNELS[channel.name].transfer(channel.strengths, len(channel.wires))[-1, 0]:
        for wire in channel.wires:
            letters[wire] |= {"I"} if "Z" in letters[wire] else set()


@cache
def _carried(
    name: str, angle: float | None, letters: tuple[frozenset[str], ...]
) -> tuple[bool, tuple[frozenset[str], ...]]:
    """Whether the gate commutes with all products of `letters`, and the letters before it."""
    commutes, before = True, [set[str]() for _ in letters]
    for word in product(*(sorted(s) for s in letters)):
        for matrix in _matrices(name, angle):
            operator = _string(word)
            carried = matrix.conj().T @ operator @ matrix
            commutes &= bool(np.abs(carried - operator).max() < _TINY)
            for found in product("IXYZ", repeat=len(word)):
                if abs(np.trace(_string(found) @ carried)) > _TINY:
                    for wire, letter in enumerate(found):
                        before[wire].add(letter)
    return commutes, tuple(frozenset(s) for s in before)


@cache
def _string(letters: tuple[str, ...]) -> Matrix:
    """The matrix of a Pauli string, the first letter on the most significant wire."""
    matrix: Matrix = np.eye(1, dtype=np.complex128)
    for letter in letters:
        matrix = np.kron(matrix, PAULI[letter]).astype(np.complex128)
    return matrix


def _key(gate: Gate) -> float | None:
    """The angle of a gate, if it is a number."""
    return gate.angle.offset if gate.angle is not None and gate.angle.constant else None


def _matrices(name: str, angle: float | None) -> list[Matrix]:
    unitary = GATES[name].unitary
    if unitary is not None:
        return [unitary]
    # In numpy: a circuit may be compiled inside a torch.func transform, where no tensor of torch can be read.
    values, projectors = spectrum(name)
    angles = _GENERIC if angle is None else (math.remainder(angle, 4 * math.pi),)
    return [np.einsum("k,kij->ij", np.exp(-0.5j * value * values), projectors) for value in angles]
