"""A circuit as the flat arrays that the kernel reads.

The gates are scheduled as for every engine: runs of one-wire gates on each wire, and monomial steps between
them. Here a run becomes one `2 x 2` matrix a wire, a product of *segments* that take their angles from weights alone
(made once for all samples) or also from features (made for each sample); a segment is a product of *turns*. A monomial
step becomes instructions: signs or phases from a table, a permutation from a table, or diagonal gates with angles.

Bit `place` p of a basis state's index belongs to wire ``qubits - 1 - p``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.engines.fused.simd import BYTES, LANE_BITS
from qunlearn.quantum.engines.program import pieces
from qunlearn.quantum.engines.schedule import Draft, Schedule, Turn
from qunlearn.quantum.gates import gate as gate_spec
from qunlearn.quantum.liveness import live_gates

PRODUCT, TURNS, SIGNS, PHASES, PERMUTE, ROTATE = range(6)  # kinds of instructions


class Tape(NamedTuple):
    """What the kernel reads; integers are int64, numbers are of the engine's real type.

    Attributes:
        sizes: qubits with idle ones added until a state fills a vector, features, weights, whether the state starts
            as amplitudes, how many observables are strings of I and Z, the most segments of a gate, the most turns of
            a segment, how many segments the gates that depend on features have, whether weights multiply features.
        steps: ``(steps, 3)``: kind, then begin and end of a range (of gates, of diagonal gates) or the row of a table.
        gates: ``(gates, 3)``: place, begin and end of its segments.
        own: indices of the gates that depend on features.
        segments: ``(segments, 3)``: begin and end of its turns, whether it depends on features.
        turns: ``(turns,)``: its angle, or -1.
        terms: ``(turns, 24)``: cos(angle) T0 + sin(angle) T1 + T2, each ``(2, 2, re im)``.
        angles: ``(angles, 3)``: its weight or -1, begin and end of its factors.
        lines: ``(angles, 2)``: scale, offset.
        factors: ``(factors,)``: the feature.
        slopes: ``(factors, 2)``: sign, shift.
        rotations: ``(diagonal gates, 4)``: its angle, its two places, whether it depends on features.
        rates: ``(diagonal gates, 4)``: the phase is angle times that, by the two bits.
        signs: ``(tables, states)``.
        phases: ``(tables, 2, states)``: real and imaginary parts.
        orders: ``(tables, states)``: state i comes from there.
        strings: ``(observables, 3)``: bits that are flipped, bits that are signed, number of Y; those of I and Z first.
        masks: ``(lane bits, 2, lanes)``: 1 in the lanes in which the bit is 0, and in which it is 1.
        lane_signs: ``(lanes, lanes)``: -1 to the number of common ones of row and column.
    """

    sizes: NDArray[np.int64]
    steps: NDArray[np.int64]
    gates: NDArray[np.int64]
    own: NDArray[np.int64]
    segments: NDArray[np.int64]
    turns: NDArray[np.int64]
    terms: NDArray[Any]
    angles: NDArray[np.int64]
    lines: NDArray[Any]
    factors: NDArray[np.int64]
    slopes: NDArray[Any]
    rotations: NDArray[np.int64]
    rates: NDArray[Any]
    signs: NDArray[Any]
    phases: NDArray[Any]
    orders: NDArray[np.int64]
    strings: NDArray[np.int64]
    masks: NDArray[Any]
    lane_signs: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Compiled:
    """A tape, and what its caller needs to know.

    Attributes:
        tape: see `Tape`.
        states: numbers in a state, ``2**qubits`` with idle qubits added.
        lanes: numbers in a vector.
        order: for every observable of the circuit its place among the tape's strings; None if unchanged.
        work: multiply-adds that a sample takes forwards, about.
    """

    tape: Tape
    states: int
    lanes: int
    order: NDArray[np.int64] | None
    work: int


@lru_cache(maxsize=256)
def compile_tape(circuit: Circuit, itemsize: int) -> Compiled:
    """The tape of a circuit for real numbers of 4 or 8 bytes, without gates that reach no observable."""
    live = [gate for gate, reaches in zip(circuit.gates, live_gates(circuit), strict=True) if reaches]
    return _Writer(circuit, LANE_BITS[itemsize]).write(Schedule(circuit.qubits).run(live), itemsize)


@dataclass
class _Rows:
    """The growing rows of a tape."""

    steps: list[tuple[int, int, int]] = field(default_factory=list)
    gates: list[tuple[int, int, int]] = field(default_factory=list)
    segments: list[tuple[int, int, int]] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    terms: list[NDArray[Any]] = field(default_factory=list)
    angles: list[Angle] = field(default_factory=list)
    rotations: list[tuple[int, int, int, int]] = field(default_factory=list)
    rates: list[NDArray[Any]] = field(default_factory=list)
    tables: dict[int, dict[bytes, NDArray[Any]]] = field(default_factory=lambda: {SIGNS: {}, PHASES: {}, PERMUTE: {}})


class _Writer:
    """Writes the tape of one circuit."""

    def __init__(self, circuit: Circuit, lane_bits: int) -> None:
        self.circuit, self.qubits = circuit, max(circuit.qubits, lane_bits)
        self.rows = _Rows()
        self.states = np.arange(2**self.qubits)

    def write(self, drafts: list[Draft], itemsize: int) -> Compiled:
        """The tape of the stages."""
        for number, draft in enumerate(drafts):
            self._turns(draft, PRODUCT if number == 0 and not self.circuit.amplitude else TURNS)
            for group in _runs_of_a_kind(draft.gates):
                self._monomial(group)
        return self._pack(np.float32 if itemsize == 4 else np.float64)

    def _turns(self, draft: Draft, kind: int) -> None:
        """A matrix for every wire that turns; as the first step for every wire, the last wire foremost."""
        begin = len(self.rows.gates)
        wires = range(self.circuit.qubits) if kind == PRODUCT else sorted(draft.runs)
        for wire in sorted(wires, reverse=True):
            first = len(self.rows.segments)
            for group, turns in pieces(draft.runs.get(wire, [])) or [("weights", [])]:
                self._segment(turns, group == "features")
            self.rows.gates.append((self.circuit.qubits - 1 - wire, first, len(self.rows.segments)))
        if len(self.rows.gates) > begin:
            self.rows.steps.append((kind, begin, len(self.rows.gates)))

    def _segment(self, turns: list[Turn], own: bool) -> None:
        begin = len(self.rows.turns)
        for turn in turns:
            self.rows.turns.append(-1 if turn.angle is None else self._angle(turn.angle))
            self.rows.terms.append(np.stack([turn.terms.real, turn.terms.imag], -1).reshape(24))
        self.rows.segments.append((begin, len(self.rows.turns), int(own)))

    def _angle(self, angle: Angle) -> int:
        self.rows.angles.append(angle)
        return len(self.rows.angles) - 1

    def _monomial(self, gates: list[Gate]) -> None:
        """Gates that are all fixed, or all diagonal with an angle."""
        if gates[0].angle is not None and not gates[0].angle.constant:
            begin = len(self.rows.rotations)
            for gate in gates:
                assert gate.angle is not None
                generator = gate_spec(gate.name).generator
                assert generator is not None
                first, second = (self.circuit.qubits - 1 - wire for wire in gate.wires)
                self.rows.rotations.append((self._angle(gate.angle), first, second, int(bool(gate.angle.factors))))
                self.rows.rates.append(-np.real(np.diag(generator)) / 2)
            self.rows.steps.append((ROTATE, begin, len(self.rows.rotations)))
            return
        order, phase = self._merged(gates)
        if not np.array_equal(order, self.states):
            self._table(PERMUTE, order)
        if np.abs(phase.imag).max() > 1e-15:
            self._table(PHASES, np.stack([phase.real, phase.imag]))
        elif np.abs(phase - 1).max() > 1e-15:
            self._table(SIGNS, phase.real)

    def _table(self, kind: int, table: NDArray[Any]) -> None:
        """A step that reads a table; equal tables are kept once."""
        known = self.rows.tables[kind]
        row = list(known).index(table.tobytes()) if table.tobytes() in known else len(known)
        known.setdefault(table.tobytes(), table)
        self.rows.steps.append((kind, row, row + 1))

    def _merged(self, gates: list[Gate]) -> tuple[NDArray[np.int64], NDArray[np.complex128]]:
        """Fixed gates as one step: new[i] = phase[i] * old[order[i]]."""
        order, phase = self.states, np.ones(len(self.states), dtype=np.complex128)
        for gate in gates:
            places = [self.circuit.qubits - 1 - wire for wire in gate.wires]
            matrix = _matrix(gate)
            local = sum(((self.states >> place) & 1) << (len(places) - 1 - k) for k, place in enumerate(places))
            source = np.argmax(np.abs(matrix), axis=1)[local]  # the one entry of each row
            moved = self.states
            for k, place in enumerate(places):
                moved = (moved & ~(1 << place)) | (((source >> (len(places) - 1 - k)) & 1) << place)
            phase, order = matrix[local, source] * phase[moved], order[moved]
        return order, phase

    def _pack(self, real: type) -> Compiled:
        rows, circuit = self.rows, self.circuit
        factors = [factor for angle in rows.angles for factor in angle.factors]
        ends = np.cumsum([0, *(len(angle.factors) for angle in rows.angles)])
        diagonal = [k for k, word in enumerate(circuit.observables) if set(word) <= {"I", "Z"}]
        order = [*diagonal, *(k for k in range(len(circuit.observables)) if k not in diagonal)]
        most = [
            max((end - begin for _, begin, end in rows.gates), default=0),
            max((end - begin for begin, end, _ in rows.segments), default=0),
        ]
        lanes = BYTES // np.dtype(real).itemsize
        bits = [(np.arange(lanes) >> place) & 1 for place in range(LANE_BITS[np.dtype(real).itemsize])]
        own = [g for g, (_, begin, end) in enumerate(rows.gates) if any(rows.segments[s][2] for s in range(begin, end))]
        parts = sum(rows.gates[g][2] - rows.gates[g][1] for g in own)
        scaled = any(angle.factors and angle.weight is not None for angle in rows.angles)
        sizes = [self.qubits, circuit.features, circuit.weights, circuit.amplitude, len(diagonal), *most, parts, scaled]
        tape = Tape(
            _ints(sizes, 0),
            _ints(rows.steps, 3),
            _ints(rows.gates, 3),
            _ints(own, 0),
            _ints(rows.segments, 3),
            _ints(rows.turns, 0),
            np.array(rows.terms, dtype=real).reshape(-1, 24),
            _ints([(-1 if a.weight is None else a.weight, *ends[i : i + 2]) for i, a in enumerate(rows.angles)], 3),
            np.array([(angle.scale, angle.offset) for angle in rows.angles], dtype=real).reshape(-1, 2),
            _ints([factor.feature for factor in factors], 0),
            np.array([(factor.sign, factor.shift) for factor in factors], dtype=real).reshape(-1, 2),
            _ints(rows.rotations, 4),
            np.array(rows.rates, dtype=real).reshape(-1, 4),
            self._stacked(SIGNS, real),
            self._stacked(PHASES, real, 2),
            self._stacked(PERMUTE, np.int64),
            _ints([_string(circuit.observables[k]) for k in order], 3),
            np.stack([[1 - bit, bit] for bit in bits]).astype(real),
            np.prod([1 - 2 * np.outer(bit, bit) for bit in bits], axis=0).astype(real),
        )
        unchanged = order == list(range(len(order)))
        work = len(self.states) * (8 * len(rows.gates) + 4 * len(rows.rotations) + 2 * len(rows.steps) + 2 * len(order))
        return Compiled(tape, len(self.states), lanes, None if unchanged else np.argsort(order), work)

    def _stacked(self, kind: int, number: type, *inner: int) -> NDArray[Any]:
        tables = list(self.rows.tables[kind].values())
        return np.array(tables, dtype=number).reshape(len(tables), *inner, len(self.states))


def _runs_of_a_kind(gates: Iterable[Gate]) -> list[list[Gate]]:
    """Gates in order, grouped into runs of fixed ones and runs of diagonal ones with an angle."""
    groups: list[list[Gate]] = []
    kinds: list[bool] = []
    for gate in gates:
        fixed = gate.angle is None or gate.angle.constant
        if not kinds or kinds[-1] != fixed:
            groups.append([])
            kinds.append(fixed)
        groups[-1].append(gate)
    return groups


def _matrix(gate: Gate) -> NDArray[np.complex128]:
    """The matrix of a fixed gate with one entry in every row."""
    spec = gate_spec(gate.name)
    if gate.angle is None:
        assert spec.unitary is not None
        return spec.unitary
    assert spec.generator is not None
    return np.diag(np.exp(-0.5j * gate.angle.offset * np.diag(spec.generator)))


def _string(word: str) -> tuple[int, int, int]:
    """A Pauli string: (bits that it flips, bits that sign it, number of Y)."""
    bits = {letters: int("".join(str(int(c in letters)) for c in word), 2) for letters in ("XY", "YZ")}
    return bits["XY"], bits["YZ"], word.count("Y")


def _ints(rows: Any, width: int) -> NDArray[np.int64]:
    array = np.array(rows, dtype=np.int64)
    return array.reshape(-1, width) if width else array.reshape(-1)
