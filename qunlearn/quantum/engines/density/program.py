"""A noisy circuit compiled into few large steps on the vector of Pauli expectation values.

Like the program of a pure circuit, it is a sequence of stages: first a real 4 x 4 matrix on every wire (all runs of
one-wire gates and channels, merged), then one signed, weighted permutation (every Clifford gate and Pauli channel that
follows, merged).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, reduce

import numpy as np

from qunlearn.quantum.circuit import Channel, Circuit, Gate
from qunlearn.quantum.engines.density.transfer import Floats, Ints, Move, Spin, elements, fixed, monomial
from qunlearn.quantum.engines.program import Block, Slot, Table, blocks_of, fill, lay_out
from qunlearn.quantum.engines.schedule import Turn, merged
from qunlearn.quantum.liveness import live_gates

BLOCK = 2  # wires turned by one matrix product; larger products cost more than the passes that they save


@dataclass(eq=False)
class Draft:
    """A stage: for each wire the run of turns, then the moves in program order."""

    runs: dict[int, list[Turn]] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Shuffle:
    """new[i] = weight[i] * old[source[i]] over all ``4**qubits`` strings; None for what changes nothing."""

    source: Ints | None
    weight: Floats | None


@dataclass(frozen=True, eq=False)
class Stage:
    """Slots of matrices to multiply (the first acts first), the blocks in which to apply them, then a shuffle."""

    slots: tuple[Slot, ...]
    blocks: tuple[Block, ...]
    shuffle: Shuffle


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled circuit.

    Attributes:
        circuit: what was compiled.
        stages: the first acts first.
        tables: angles and matrices of the groups "weights" and "features".
        start: ``(4**qubits,)``: |0...0>; for amplitude encoding the factor that each string's number of Y asks for.
        strings: ``(terms,)``, the strings that the observables need after the last stage's turns; its shuffle and
            the readout errors are part of them.
        mix: ``(terms, observables)``; an observable is the sum of mix times the strings' values.
        dense: whether `words` may be asked for.
    """

    circuit: Circuit
    stages: tuple[Stage, ...]
    tables: dict[str, Table]
    start: Floats
    strings: Ints
    mix: Floats
    dense: bool

    @property
    def words(self) -> Floats | None:
        """The observables as vectors ``(observables, 4**qubits)``; None for the readings of all wires."""
        if not self.dense:
            return None
        words = np.zeros((self.mix.shape[1], 4**self.circuit.qubits))
        words[:, self.strings] = self.mix.T
        return words

    @property
    def meeting(self) -> tuple[int, int]:
        """The stage, and the slot in it, before which the last matrix with features has acted."""
        places = [(n, k) for n, stage in enumerate(self.stages) for k, slot in enumerate(stage.slots)]
        found = [(n, k + 1) for n, k in places if self.stages[n].slots[k].group == "features"]
        return found[-1] if found else (0, 0)


class Schedule:
    """Puts every element into the earliest stage that the elements before it on its wires allow."""

    def __init__(self, qubits: int) -> None:
        self.drafts = [Draft()]
        self.level = [0] * qubits  # the stage that a wire has reached
        self.closed = [False] * qubits  # whether its shuffle has touched the wire

    def run(self, steps: Iterable[Gate | Channel]) -> list[Draft]:
        """The stages of a sequence of gates and channels, at least one."""
        for step in steps:
            for element in elements(step):
                if isinstance(element, Move):
                    self._move(element)
                else:
                    self._turn(element)
        return self.drafts

    def _move(self, move: Move) -> None:
        level = max(self.level[wire] for wire in move.wires)
        self.drafts[level].moves.append(move)
        for wire in move.wires:
            self.level[wire], self.closed[wire] = level, True

    def _turn(self, spin: Spin) -> None:
        wire, turn = spin
        if turn.constant and np.array_equal(turn.terms[2], np.eye(4)):
            return
        if self.closed[wire]:
            found = monomial(turn.terms[2]) if turn.constant else None
            if found is not None:  # a shuffle takes it along for nothing
                self.drafts[self.level[wire]].moves.append(Move((wire,), *found))
                return
            self.level[wire], self.closed[wire] = self.level[wire] + 1, False
            if self.level[wire] == len(self.drafts):
                self.drafts.append(Draft())
        run = self.drafts[self.level[wire]].runs.setdefault(wire, [])
        run.append(merged(run, turn))


@lru_cache(maxsize=16)  # each may hold some MB
def compile_circuit(circuit: Circuit, readings: bool) -> Program:
    """The program of a circuit, without the gates that reach no observable.

    With `readings` its observables are the probabilities of all ``2**qubits`` readings, and no gate is left out.
    """
    live = (True,) * len(circuit.gates) if readings else live_gates(circuit)
    drafts = Schedule(circuit.qubits).run(_living(circuit, live))
    segments: dict[str, list[list[Turn]]] = {"weights": [], "features": []}
    stages = []
    for number, draft in enumerate(drafts):
        whole = range(circuit.qubits) if number == 0 and not circuit.amplitude else None  # a product state
        slots, wires = lay_out(draft.runs, segments, whole)
        stages.append(Stage(slots, blocks_of(wires, BLOCK), _as_one(draft.moves, circuit.qubits)))
    tables = {"weights": Table(), "features": Table()}
    for group, table in tables.items():
        fill(table, segments[group], fixed(np.eye(4)))
    strings, mix = _readings(circuit) if readings else _observables(circuit)
    last = stages[-1].shuffle
    mix = mix if last.weight is None else mix * last.weight[strings, None]
    strings = strings if last.source is None else last.source[strings]
    return Program(circuit, tuple(stages), tables, _start(circuit), strings, mix, not readings)


def _living(circuit: Circuit, live: tuple[bool, ...]) -> Iterator[Gate | Channel]:
    """Gates and channels in the order of action, without dead gates."""
    alive = iter(live)
    return (step for step in circuit.steps if isinstance(step, Channel) or next(alive))


def _start(circuit: Circuit) -> Floats:
    """I and Z are 1 in |0...0>; the entries of real amplitudes are to be multiplied by the real part of i per Y."""
    wire = np.array([1, 1, 1j, 1]) if circuit.amplitude else np.array([1, 0, 0, 1])
    return reduce(np.kron, [wire] * circuit.qubits).real.astype(float)


def _as_one(moves: list[Move], qubits: int) -> Shuffle:
    """All moves of a stage as one."""
    strings = np.arange(4**qubits)
    source, weight = strings, np.ones(4**qubits)
    for move in moves:
        local = np.zeros_like(strings)
        for wire in move.wires:
            local = 4 * local + _letter(strings, wire, qubits)
        moved = strings
        for position, wire in enumerate(reversed(move.wires)):
            place = 4 ** (qubits - 1 - wire)
            change = ((move.source[local] >> (2 * position)) & 3) - _letter(strings, wire, qubits)
            moved = moved + change * place
        source, weight = source[moved], move.weight[local] * weight[moved]
    return Shuffle(
        None if np.array_equal(source, strings) else source,
        None if np.array_equal(weight, np.ones_like(weight)) else weight,
    )


def _letter(strings: Ints, wire: int, qubits: int) -> Ints:
    """The letter, 0 to 3, of every string on a wire."""
    return (strings >> (2 * (qubits - 1 - wire))) & 3


def _observables(circuit: Circuit) -> tuple[Ints, Floats]:
    """The strings ``(terms,)`` that the observables need, and how they mix, ``(terms, observables)``.

    A readout error makes of a measured letter P the sum (one - zero) I + (1 - zero - one) P, with zero the
    probability of reading 1 for 0, and one that of reading 0 for 1.
    """
    columns: list[dict[int, float]] = []
    for word in circuit.observables:
        terms = {0: 1.0}
        for letter, (zero, one) in zip(word, _pairs(circuit), strict=True):
            parts = [(0, one - zero), ("IXYZ".index(letter), 1 - zero - one)] if letter != "I" else [(0, 1.0)]
            terms = {4 * string + k: share * part for string, share in terms.items() for k, part in parts if part}
        columns.append(terms)
    strings = np.array(sorted({string for terms in columns for string in terms}), dtype=np.int64)
    mix = [[terms.get(int(string), 0.0) for terms in columns] for string in strings]
    return strings, np.array(mix, dtype=float).reshape(len(strings), len(columns))


def _readings(circuit: Circuit) -> tuple[Ints, Floats]:
    """The ``2**qubits`` strings of I and Z, and how they mix to the probabilities of what is read."""
    strings, mix = np.zeros(1, dtype=np.int64), np.eye(1)
    for zero, one in _pairs(circuit):
        strings = (4 * strings[:, None] + np.array([0, 3])).reshape(-1)
        read = np.array([[1 - zero, one], [zero, 1 - one]])
        mix = np.kron(mix, np.array([[0.5, 0.5], [0.5, -0.5]]) @ read.T)
    return strings, mix


def _pairs(circuit: Circuit) -> tuple[tuple[float, float], ...]:
    """The readout error of every wire."""
    return circuit.readout or ((0.0, 0.0),) * circuit.qubits
