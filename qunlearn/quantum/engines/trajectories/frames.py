"""Errors as further features: a Pauli string that strikes in the middle is moved to the end of the circuit.

Behind a Clifford gate a Pauli string is another one; behind a rotation it is itself, if the rotation turns by the
opposite angle wherever the two anticommute; before an observable it is a sign. So a run with Pauli errors is the
circuit without them, with the signs of its angles as further features and signs of its observables: it costs what a
sample costs, and every engine runs it. The tilts of damping stay on their wires, behind the diagonal gates that they
commute with, so that they merge with the gates that follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from qunlearn.quantum.circuit import Angle, Channel, Circuit, Factor, Gate
from qunlearn.quantum.engines.schedule import Turn
from qunlearn.quantum.engines.trajectories.branches import Floats, Ints, Lottery, branches_of, pauli_matrix
from qunlearn.quantum.gates import gate as gate_spec
from qunlearn.quantum.sampling import Basis, basis_gates

Bits = NDArray[np.uint8]
_TINY = 1e-12
_INVERSE = {"h": "h", "s": "sdg", "sdg": "s"}
_TILT = math.sqrt(2) * np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 0], [0, 0]]], dtype=np.complex128)


@dataclass(frozen=True, eq=False)
class Framed:
    """A circuit with its channels as further features; bits say which Pauli string strikes in each channel.

    Attributes:
        lottery: of the channels.
        bits: for each channel the strings of its branches, ``(branches, 2 * wires)``: whether X and whether Z acts,
            wire by wire.
        tilts: for each channel that tilts, its index, and the tilts ``(branches,)``.
        steps: the gates, and tilts as (wire, turn). The further features are the angles of tilts, then signs, 1 or -1.
        leaned: which tilts change their sign with each bit, ``(bits, tilts)``.
        turned: which angles change their sign with each bit, ``(bits, signs)``.
        measured: which observables change their sign with each bit, ``(bits, observables)``.
        flipped: which wires are measured flipped with each bit, ``(bits, qubits)``.
    """

    lottery: Lottery
    bits: tuple[Bits, ...]
    tilts: tuple[tuple[int, Floats], ...]
    steps: tuple[Gate | tuple[int, Turn], ...]
    leaned: Bits
    turned: Bits
    measured: Bits
    flipped: Bits

    def further(self, branches: Ints) -> Floats:
        """The further features ``(rows, tilts + signs)`` of branches ``(rows, channels)``."""
        strings = self._strings(branches)
        angles = np.zeros((len(branches), len(self.tilts)))
        for place, (channel, tilts) in enumerate(self.tilts):
            angles[:, place] = tilts[branches[:, channel]]
        angles = math.pi / 4 + angles * _signs(strings, self.leaned)
        return np.concatenate([angles, _signs(strings, self.turned)], 1)

    def signs(self, branches: Ints) -> Floats:
        """What the values of observables are multiplied by, ``(rows, observables)``."""
        return _signs(self._strings(branches), self.measured)

    def flips(self, branches: Ints) -> Ints:
        """What is added to the outcomes, bit by bit, ``(rows,)``."""
        places = 1 << np.arange(self.flipped.shape[1])[::-1]
        found: Ints = (_signs(self._strings(branches), self.flipped) < 0) @ places
        return found

    def _strings(self, branches: Ints) -> NDArray[np.float32]:
        """The bits ``(rows, bits)`` of branches ``(rows, channels)``."""
        columns = [table[branches[:, k]] for k, table in enumerate(self.bits)]
        return np.concatenate([np.zeros((len(branches), 0)), *columns], 1).astype(np.float32)


def _signs(strings: NDArray[np.float32], table: Bits) -> Floats:
    """1 or -1 for every column of a table ``(bits, columns)``, for strings ``(rows, bits)``: ``(rows, columns)``."""
    odd = (strings @ table.astype(np.float32)).astype(np.int64) & 1
    return np.where(odd, -1.0, 1.0)


def frame(circuit: Circuit, everything: bool) -> Framed:
    """A circuit with its channels as further features; only what an observable may depend on, or `everything`."""
    steps = circuit.steps if everything else _light_cone(circuit)
    found = [(step, branches_of(step)) for step in steps if isinstance(step, Channel)]
    tables = tuple(np.stack([_word_bits(word) for word in branches.words]) for _, branches in found)
    tilts = tuple((k, branches.tilts) for k, (_, branches) in enumerate(found) if branches.tilts.any())
    moving = _Frame(circuit, sum(table.shape[1] for table in tables), len(tilts))
    for step in steps:
        if isinstance(step, Channel):
            moving.strike(step)
        else:
            moving.pass_gate(step)
    return Framed(
        Lottery(tuple(branches.shares for _, branches in found)),
        tables,
        tilts,
        moving.finished(),
        moving.columns(moving.leans),
        moving.columns(moving.signs),
        moving.columns([moving.against(word, range(circuit.qubits)) for word in circuit.observables]),
        moving.columns(moving.x),
    )


def _light_cone(circuit: Circuit) -> list[Gate | Channel]:
    """Gates and channels on wires from which an observable is reached."""
    reached = {wire for word in circuit.observables for wire, letter in enumerate(word) if letter != "I"}
    kept: list[Gate | Channel] = []
    for step in reversed(circuit.steps):
        if reached.intersection(step.wires):
            kept.append(step)
            reached.update(step.wires if isinstance(step, Gate) else ())
    return kept[::-1]


def _word_bits(word: str) -> Bits:
    """(whether X, whether Z acts) for each letter, one after another."""
    return np.array([bit for letter in word for bit in (letter in "XY", letter in "ZY")], dtype=np.uint8)


class _Frame:
    """The Pauli string in front of the gates still to come, as X and Z on every wire: each a sum of bits, mod 2."""

    def __init__(self, circuit: Circuit, bits: int, tilts: int) -> None:
        self.x = [np.zeros(bits, dtype=np.uint8) for _ in range(circuit.qubits)]
        self.z = [np.zeros(bits, dtype=np.uint8) for _ in range(circuit.qubits)]
        self.used = 0
        self.steps: list[Gate | tuple[int, Turn]] = []
        self.waiting: list[list[Turn]] = [[] for _ in range(circuit.qubits)]
        self.leans: list[Bits] = []
        self.signs: list[Bits] = []
        self.known: dict[bytes, int] = {}
        self.first_tilt = circuit.features
        self.first_sign = circuit.features + tilts

    def finished(self) -> tuple[Gate | tuple[int, Turn], ...]:
        """All steps, and the tilts that were still waiting."""
        for wire in range(len(self.waiting)):
            self._release(wire)
        return tuple(self.steps)

    def _release(self, wire: int) -> None:
        self.steps.extend((wire, turn) for turn in self.waiting[wire])
        self.waiting[wire].clear()

    def columns(self, rows: list[Bits]) -> Bits:
        """Sums of bits side by side, ``(bits, sums)``."""
        return np.stack(rows, 1) if rows else np.zeros((len(self.x[0]), 0), dtype=np.uint8)

    def strike(self, channel: Channel) -> None:
        """A channel: two bits of its own on each wire, and before them its tilt, turned by the string in front."""
        if branches_of(channel).tilts.any():
            (wire,) = channel.wires
            angle = Angle(factors=(Factor(self.first_tilt + len(self.leans)),))
            self.waiting[wire].append(Turn(_TILT, angle))
            self.leans.append(self.x[wire].copy())
        for wire in channel.wires:
            self.x[wire][self.used] ^= 1
            self.z[wire][self.used + 1] ^= 1
            self.used += 2

    def against(self, word: str, wires: Sequence[int]) -> Bits:
        """Whether the string anticommutes with a Pauli string on some wires."""
        found = np.zeros_like(self.x[0])
        for letter, wire in zip(word, wires, strict=True):
            if letter in "XY":
                found ^= self.z[wire]
            if letter in "ZY":
                found ^= self.x[wire]
        return found

    def pass_gate(self, gate: Gate) -> None:
        """Move the string behind a gate."""
        for place, wire in enumerate(gate.wires):
            if not _keeps_z(gate.name, place):
                self._release(wire)
        if not any(self.x[wire].any() or self.z[wire].any() for wire in gate.wires):
            self.steps.append(gate)
            return
        for part in _parts(gate):
            image = _clifford(part.name) if part.angle is None else None
            if image is not None:
                self._conjugate(image, part.wires)
                self.steps.append(part)
            else:
                self._turn(part)

    def _conjugate(self, image: Bits, wires: tuple[int, ...]) -> None:
        before = [bits for wire in wires for bits in (self.x[wire], self.z[wire])]
        after = [_sum([b for b, used in zip(before, row, strict=True) if used], before[0]) for row in image]
        for place, wire in enumerate(wires):
            self.x[wire], self.z[wire] = after[2 * place], after[2 * place + 1]

    def _turn(self, gate: Gate) -> None:
        """A rotation about a Pauli string: its angle takes a sign."""
        angle = gate.angle
        assert angle is not None
        flips = self.against({"rx": "X", "ry": "Y", "rz": "Z", "rzz": "ZZ"}[gate.name], gate.wires)
        if not flips.any():
            self.steps.append(gate)
            return
        place = self.known.setdefault(flips.tobytes(), len(self.signs))
        if place == len(self.signs):
            self.signs.append(flips)
        sign = Factor(self.first_sign + place)
        if not angle.constant:
            turned = replace(angle, factors=(*angle.factors, sign), offset=0.0)
            self.steps.append(replace(gate, angle=turned))
        if angle.offset:
            self.steps.append(replace(gate, angle=Angle(angle.offset, (sign,))))


def _sum(parts: list[Bits], like: Bits) -> Bits:
    return np.bitwise_xor.reduce(np.stack(parts), 0) if parts else np.zeros_like(like)


def _parts(gate: Gate) -> Iterator[Gate]:
    """A gate as Clifford gates and rotations RX, RY, RZ and RZZ, up to a global phase."""
    if gate.name in ("t", "tdg"):
        gate = replace(gate, name="p", angle=Angle(offset=math.pi / 4 if gate.name == "t" else -math.pi / 4))
    if gate.name == "ch":  # H = RY(pi/4) Z RY(-pi/4)
        for sign in (-1, 0, 1):
            turn = Gate("ry", gate.wires[1:], Angle(offset=sign * math.pi / 4), gate.layer)
            yield turn if sign else replace(gate, name="cz")
        return
    if gate.angle is None:
        yield gate
        return
    for word, share in _strings(gate.name):
        angle = replace(gate.angle, scale=gate.angle.scale * share, offset=gate.angle.offset * share)
        wires = tuple(wire for wire, letter in zip(gate.wires, word, strict=True) if letter != "I")
        letters = word.replace("I", "")
        if len(letters) == 1:
            yield Gate(f"r{letters.lower()}", wires, angle, gate.layer)
            continue
        turns = [replace(turn, wires=(wires[turn.wires[0]],)) for turn in basis_gates(Basis(letters, ()))]
        yield from turns
        yield Gate("rzz", wires, angle, gate.layer)
        yield from (replace(turn, name=_INVERSE[turn.name]) for turn in reversed(turns))


@cache
def _strings(name: str) -> tuple[tuple[str, float], ...]:
    """A generator as a sum of commuting Pauli strings, without the identity."""
    generator, wires = gate_spec(name).generator, gate_spec(name).wires
    assert generator is not None
    words = ["".join(word) for word in product("IXYZ", repeat=wires)]
    shares = [(word, float(np.trace(pauli_matrix(word) @ generator).real) / 2**wires) for word in words]
    return tuple((word, share) for word, share in shares[1:] if abs(share) > _TINY)


@cache
def _keeps_z(name: str, place: int) -> bool:
    """Whether a gate commutes with Z on one of its wires."""
    spec = gate_spec(name)
    matrix = spec.unitary if spec.generator is None else spec.generator
    assert matrix is not None
    z = pauli_matrix("I" * place + "Z" + "I" * (spec.wires - 1 - place))
    return bool(np.abs(matrix @ z - z @ matrix).max() < _TINY)


@cache
def _clifford(name: str) -> Bits | None:
    """What a fixed gate makes of X and Z on its wires, as a matrix of bits ``(after, before)``, or None."""
    unitary, wires = gate_spec(name).unitary, gate_spec(name).wires
    assert unitary is not None
    columns = []
    for place in range(wires):
        for letter in "XZ":
            moved = unitary @ pauli_matrix("I" * place + letter + "I" * (wires - 1 - place)) @ unitary.conj().T
            words = ("".join(word) for word in product("IXYZ", repeat=wires))
            images = [word for word in words if abs(np.trace(pauli_matrix(word) @ moved)) > _TINY]
            if len(images) > 1:
                return None
            columns.append(_word_bits(images[0]))
    return np.stack(columns, 1)
