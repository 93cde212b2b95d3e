"""What an engine runs: a circuit, compiled once into few large steps.

A program is a sequence of stages. A stage turns wires one by one (`Slot`: all runs of one-wire gates,
merged), then applies one monomial step (`Monomial`: every CZ, CX, CRZ, RZZ, ... that follows, merged into
one permutation and one phase for each basis state). Gates that are neither are brought to that form by a
change of basis: RXX = (H x H) RZZ (H x H), CRX = H CRZ H on the target, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.engines.schedule import IDENTITY, Draft, Schedule, Turn, fixed
from qunlearn.quantum.gates import Matrix
from qunlearn.quantum.gates import gate as gate_spec
from qunlearn.quantum.liveness import live_gates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BLOCK = 4  # wires turned by one matrix product, at most


class Slot(NamedTuple):
    """Matrices ``start`` to ``stop`` of a group ("weights" or "features"), one for each active wire."""

    group: str
    start: int
    stop: int


class Block(NamedTuple):
    """`size` neighbouring wires from `wire` on; `offset` is the place of the first among the active ones."""

    wire: int
    size: int
    offset: int


@dataclass(frozen=True, eq=False)
class Monomial:
    """new[i] = phase[i] * exp(i sum of angle * rate[i]) * old[permutation[i]], over the ``2**qubits`` basis states.

    Attributes:
        permutation: ``(2**qubits,)`` or None.
        phase: ``(2**qubits,)`` complex, or None.
        rates: for each group the first row of its angle table and the rates ``(rows, 2**qubits)``.
    """

    permutation: Ints | None
    phase: NDArray[np.complex128] | None
    rates: dict[str, tuple[int, Floats]]


@dataclass(frozen=True, eq=False)
class Stage:
    """Slots to multiply (the first acts first), the blocks in which to apply them, then a monomial step."""

    slots: tuple[Slot, ...]
    blocks: tuple[Block, ...]
    monomial: Monomial | None


@dataclass(eq=False)
class Table:
    """All angles of a group, and the matrices made of them.

    The first ``segments * length`` angles belong to the matrices, row after row; the rest to monomials.
    """

    angles: list[Angle] = field(default_factory=list)
    terms: Matrix = field(default_factory=lambda: np.zeros((0, 0, 3, 2, 2), dtype=np.complex128))


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled circuit; see the module's docstring."""

    circuit: Circuit
    stages: tuple[Stage, ...]
    tables: dict[str, Table]


@lru_cache(maxsize=256)
def compile_circuit(circuit: Circuit, prune: bool) -> Program:
    """The program of a circuit; with `prune`, without the gates that reach no observable."""
    gates: Iterable[Gate] = circuit.gates
    if prune:
        gates = [gate for gate, live in zip(circuit.gates, live_gates(circuit), strict=True) if live]
    return assemble(circuit, Schedule(circuit.qubits).run(gates))


def assemble(circuit: Circuit, drafts: list[Draft]) -> Program:
    """The program of drafted stages; what stands in them may read features beyond those of the circuit."""
    tables = {"weights": Table(), "features": Table()}
    segments: dict[str, list[list[Turn]]] = {"weights": [], "features": []}
    whole = [n == 0 and not circuit.amplitude for n in range(len(drafts))]  # the first acts on |0...0>: a product state
    laid = [lay_out(d.runs, segments, range(circuit.qubits) if w else None) for d, w in zip(drafts, whole, strict=True)]
    for group, table in tables.items():
        fill(table, segments[group], fixed(IDENTITY))
    stages = tuple(
        Stage(slots, blocks_of(wires, BLOCK), _merge(draft.gates, circuit.qubits, tables))
        for (slots, wires), draft in zip(laid, drafts, strict=True)
    )
    return Program(circuit, stages, tables)


def _group(angle: Angle | None) -> str:
    return "features" if angle is not None and angle.factors else "weights"


def lay_out(
    runs: dict[int, list[Turn]], segments: dict[str, list[list[Turn]]], whole: range | None
) -> tuple[tuple[Slot, ...], list[int]]:
    """Reserve a matrix for every active wire, in as few slots as possible; in a `whole` stage for every wire.

    Returns the slots, and the active wires.
    """
    wires = list(whole) if whole else sorted(wire for wire, run in runs.items() if run)
    cut = [pieces(runs.get(wire, [])) for wire in wires]
    orders = [("weights", "features"), ("features", "weights")]
    lengths = [max((len(p) + (bool(p) and p[0][0] != order[0]) for p in cut), default=0) for order in orders]
    best = int(np.argmin(lengths))
    slots = []
    for number in range(max(lengths[best], int(whole is not None))):
        group = orders[best][number % 2]
        start = len(segments[group])
        for piece in cut:
            segments[group].append(piece.pop(0)[1] if piece and piece[0][0] == group else [])
        slots.append(Slot(group, start, start + len(wires)))
    return tuple(slots), wires


def pieces(run: list[Turn]) -> list[tuple[str, list[Turn]]]:
    """A run cut where its turns change between features and weights."""
    found: list[tuple[str, list[Turn]]] = []
    for turn in run:
        if not found or found[-1][0] != _group(turn.angle):
            found.append((_group(turn.angle), []))
        found[-1][1].append(turn)
    return found


def blocks_of(wires: list[int], largest: int) -> tuple[Block, ...]:
    """Neighbouring wires together, in blocks of nearly equal size up to the largest."""
    spans: list[list[int]] = []
    for wire in wires:
        if not spans or wire != spans[-1][-1] + 1:
            spans.append([])
        spans[-1].append(wire)
    blocks, offset = [], 0
    for span in spans:
        for part in np.array_split(span, -(-len(span) // largest)):
            blocks.append(Block(int(part[0]), len(part), offset))
            offset += len(part)
    return tuple(blocks)


def fill(table: Table, segments: list[list[Turn]], identity: Turn) -> None:
    """Angles and terms of all segments, filled up with identities to one length."""
    length = max((len(segment) for segment in segments), default=0) or min(1, len(segments))
    filler = Angle(scale=0.0, factors=(), weight=None)
    rows = [segment + [identity] * (length - len(segment)) for segment in segments]
    table.angles = [turn.angle or filler for row in rows for turn in row]
    if rows:
        table.terms = np.stack([np.stack([turn.terms for turn in row]) for row in rows])


def _merge(gates: list[Gate], qubits: int, tables: dict[str, Table]) -> Monomial | None:
    """All monomial gates of a stage as one step; their angles are added to the tables."""
    if not gates:
        return None
    states = np.arange(2**qubits)
    order, phase = states, np.ones(2**qubits, dtype=np.complex128)
    rates: dict[str, list[Floats]] = {group: [] for group in tables}
    first = {group: len(table.angles) for group, table in tables.items()}
    for gate in gates:
        spec, local = gate_spec(gate.name), _local(states, gate.wires, qubits)
        if gate.angle is None:
            assert spec.unitary is not None
            source = np.argmax(np.abs(spec.unitary), axis=1)[local]  # the one entry of each row
            moved = _with_local(states, gate.wires, qubits, source)
            phase, order = spec.unitary[local, source] * phase[moved], order[moved]
            rates = {group: [row[moved] for row in rows] for group, rows in rates.items()}
            continue
        assert spec.generator is not None
        row = -np.real(np.diag(spec.generator))[local] / 2
        if gate.angle.constant:
            phase = phase * np.exp(1j * gate.angle.offset * row)
        else:
            tables[_group(gate.angle)].angles.append(gate.angle)
            rates[_group(gate.angle)].append(row)
    return Monomial(
        None if np.array_equal(order, states) else order,
        None if np.abs(phase - 1).max() < 1e-15 else phase,
        {group: (first[group], np.stack(rows)) for group, rows in rates.items() if rows},
    )


def _local(states: Ints, wires: tuple[int, ...], qubits: int) -> Ints:
    """For every basis state, the index that its bits on `wires` make, the first wire most significant."""
    local = np.zeros_like(states)
    for wire in wires:
        local = 2 * local + ((states >> (qubits - 1 - wire)) & 1)
    return local


def _with_local(states: Ints, wires: tuple[int, ...], qubits: int, local: Ints) -> Ints:
    """The basis states with the bits on `wires` replaced by those of `local`."""
    for position, wire in enumerate(reversed(wires)):
        place = qubits - 1 - wire
        states = (states & ~(1 << place)) | (((local >> position) & 1) << place)
    return states
