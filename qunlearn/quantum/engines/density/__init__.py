"""The density engine: noisy circuits exactly, as real vectors of ``4**qubits`` Pauli expectation values.

Half the memory of a complex density matrix, and an expectation value is an entry. What comes before the last gate with
features takes the samples' states forwards; what comes after it, which is the same for all samples, takes the
observables backwards, because there are fewer of them. Every operation is out of place and known to ``torch.func``, as
in the reference engine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.engines.density.program import Program, compile_circuit
from qunlearn.quantum.engines.memory import available_bytes
from qunlearn.quantum.engines.program import Block
from qunlearn.quantum.engines.torch_engine import (
    Angles,
    amplitudes,
    apart,
    as_constant,
    kron,
    load_angles,
    product_vector,
    promote,
    tie,
)

QUBITS = 8  # up to here "auto" takes it: cost and memory grow with 4**qubits

# From a wire's entries (00, 01, 10, 11) of a density matrix to I, X, Y / i, Z.
_ENTRIES = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, -1, 0], [1, 0, 0, -1]], dtype=float)
# From I, X, Y, Z to a wire's entries.
_TO_ENTRIES = np.array([[1, 0, 0, 1], [0, 1, -1j, 0], [0, 1, 1j, 0], [1, 0, 0, -1]]) / 2


def expectations(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The expectation value of every observable, noise and readout errors included.

    Features ``(..., features)`` give ``(..., observables)``; weights are ``(weights,)``. Both may be float32 or
    float64, on any device, and the wider type is that of everything computed. What reaches no observable gets a
    gradient of exactly zero.

    Raises:
        InputError: if the states need more memory than there is, or a sample cannot be amplitude-encoded.
    """
    features, weights = promote(features, weights)
    _check_memory(circuit, features)
    loaded = _load(compile_circuit(circuit, False), features.dtype, features.device)
    # Inside vmap no batch is seen: there too the observables go backwards, unless they are very many.
    early = len(circuit.observables) <= max(features.shape[:-1].numel(), 2 * circuit.qubits)
    values = _run(loaded, features, weights, early)
    return tie(values, circuit, loaded.angles, features, weights)


def probabilities(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The probability of every reading: features ``(..., features)`` give ``(..., 2**qubits)``.

    Wire 0 is most significant; readout errors are included. Arguments and errors are those of `expectations`.
    """
    features, weights = promote(features, weights)
    _check_memory(circuit, features)
    loaded = _load(compile_circuit(circuit, True), features.dtype, features.device)
    values = _run(loaded, features, weights, False)
    return tie(values, circuit, loaded.angles, features, weights)


def density_matrices(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The states at the end of a circuit, noise included: complex ``(..., 2**qubits, 2**qubits)``.

    Wire 0 is most significant. Readout errors, which strike what is read and not the state, are left out. Arguments and
    errors are those of `expectations`.
    """
    features, weights = promote(features, weights)
    _check_memory(circuit, features)
    loaded = _load(compile_circuit(circuit, True), features.dtype, features.device)
    state = _forwards(loaded, features, weights)
    state = tie(_shuffle(state, loaded.sources[-1], loaded.factors[-1]), circuit, loaded.angles, features, weights)
    # From a wire's I, X, Y, Z to its entries 00, 01, 10, 11; then all first indices before all second ones.
    turn = torch.as_tensor(_TO_ENTRIES, device=state.device).to(state.dtype.to_complex())
    entries, qubits = state.to(turn.dtype), circuit.qubits
    for wire in range(qubits):
        entries = _turn(entries, turn, Block(wire, 1, wire), qubits)
    lead = state.shape[:-1]
    axes = [len(lead) + 2 * wire + side for side in (0, 1) for wire in range(qubits)]
    found = entries.reshape(*lead, *[2] * (2 * qubits)).permute(*range(len(lead)), *axes)
    return found.reshape(*lead, 2**qubits, 2**qubits)


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A program's constants on one device in one precision.

    Attributes:
        program: what they belong to.
        angles: of each group.
        terms: of each group, ``(3, segments, length, 4, 4)``.
        sources: of each stage's shuffle, or None.
        inverses: the permutations the other way round.
        factors: the weights of each stage's shuffle, or None.
        start: ``(4**qubits,)``: |0...0>; with amplitude encoding what each entry is multiplied by.
        entries: `_ENTRIES`.
        strings: of the program.
        mix: of the program.
        words: ``(observables, 4**qubits)``: the observables before the last shuffle.
    """

    program: Program
    angles: dict[str, Angles]
    terms: dict[str, Tensor]
    sources: tuple[Tensor | None, ...]
    inverses: tuple[Tensor | None, ...]
    factors: tuple[Tensor | None, ...]
    start: Tensor
    entries: Tensor
    strings: Tensor
    mix: Tensor
    words: Tensor | None


def _run(loaded: _Loaded, features: Tensor, weights: Tensor, early: bool) -> Tensor:
    """The observables' values; with `early`, states and observables meet after the last turn with features."""
    program = loaded.program
    if not early:
        return _forwards(loaded, features, weights).index_select(-1, loaded.strings) @ loaded.mix
    slots = _slots(loaded, features, weights)
    stage, slot = program.meeting
    state = _state(loaded, features, slots, stage, slot)
    assert loaded.words is not None
    words = loaded.words
    for number in reversed(range(stage, len(program.stages))):
        if number < len(program.stages) - 1:
            factors = loaded.factors[number]
            words = _shuffle(words if factors is None else words * factors, loaded.inverses[number], None)
        turns = slots[number][slot if number == stage else 0 :]
        if turns:
            wires = [matrix.mT for matrix in _product(turns)]
            words = _apply(words, wires, program.stages[number].blocks, program.circuit.qubits)
    return state @ words.mT


def _forwards(loaded: _Loaded, features: Tensor, weights: Tensor) -> Tensor:
    """The states before the last shuffle."""
    slots = _slots(loaded, features, weights)
    return _state(loaded, features, slots, len(slots) - 1, len(slots[-1]))


def _state(loaded: _Loaded, features: Tensor, slots: list[list[Tensor]], stage: int, slot: int) -> Tensor:
    """The states after so many slots of a stage."""
    state = amplitude_vector(loaded, features) if loaded.program.circuit.amplitude else None
    for number in range(stage + 1):
        state = _turn_state(loaded, number, slots[number][: slot if number == stage else None], state)
        if number < stage:
            state = _shuffle(state, loaded.sources[number], loaded.factors[number])
    assert state is not None
    return state


def _turn_state(loaded: _Loaded, number: int, turns: list[Tensor], state: Tensor | None) -> Tensor:
    """The state after a stage's turns; None before the first stage stands for |0...0>."""
    if not turns:
        return loaded.start if state is None else state
    wires = _product(turns)
    if state is not None:
        return _apply(state, wires, loaded.program.stages[number].blocks, loaded.program.circuit.qubits)
    return product_vector([matrix[..., 0] + matrix[..., 3] for matrix in wires])  # |0> is I + Z


def _product(turns: list[Tensor]) -> list[Tensor]:
    """One matrix ``(..., 4, 4)`` a wire; the first turn acts first."""
    return list(functools.reduce(lambda before, after: after @ before, turns).unbind(-3))


def _slots(loaded: _Loaded, features: Tensor, weights: Tensor) -> list[list[Tensor]]:
    """The matrices of every stage, slot by slot, each ``(..., wires, 4, 4)``: merged runs of one-wire elements."""
    angles, merged = {group: table(features, weights) for group, table in loaded.angles.items()}, {}
    for group, terms in loaded.terms.items():
        turn = angles[group].reshape(*angles[group].shape[:-1], *terms.shape[1:3], 1, 1)
        single = turn.cos() * terms[0] + turn.sin() * terms[1] + terms[2]
        merged[group] = functools.reduce(lambda before, after: after @ before, single.unbind(-3))
    return [
        [merged[slot.group].narrow(-3, slot.start, slot.stop - slot.start) for slot in stage.slots]
        for stage in loaded.program.stages
    ]


def _apply(vectors: Tensor, wires: list[Tensor], blocks: tuple[Block, ...], qubits: int) -> Tensor:
    """Vectors ``(..., 4**qubits)`` after one matrix on each active wire, block by block."""
    for block in blocks:
        matrix = functools.reduce(kron, wires[block.offset : block.offset + block.size])
        vectors = _turn(vectors, matrix, block, qubits)
    return vectors


def _turn(vectors: Tensor, matrix: Tensor, block: Block, qubits: int) -> Tensor:
    """The vectors with a block's matrix, ``(..., 4**size, 4**size)``, applied to its wires."""
    left, size, right = 4**block.wire, 4**block.size, 4 ** (qubits - block.wire - block.size)
    lead = vectors.shape[:-1]
    if size == 4 and right < 64 and matrix.dim() == 2:  # many tiny products are slow: a copy makes one of them
        rows = vectors.reshape(lead.numel() * left, size, right).transpose(0, 1)
        turned = (matrix @ rows.flatten(1)).reshape(rows.shape).transpose(0, 1)
        return turned.reshape(*lead, 4**qubits)
    if right == 1:  # one large product, without a copy of the vectors
        turned = vectors.reshape(*lead, left, size) @ matrix.mT
        return turned.flatten(-2)
    turned = matrix.unsqueeze(-3) @ vectors.reshape(*lead, left, size, right)
    return turned.flatten(-3)


def _shuffle(vectors: Tensor, source: Tensor | None, factors: Tensor | None) -> Tensor:
    """The vectors, permuted and then multiplied."""
    if source is not None:
        vectors = vectors.index_select(-1, source)
    return vectors if factors is None else vectors * factors


def amplitude_vector(loaded: _Loaded, features: Tensor) -> Tensor:
    """The Pauli vector, ``(..., 4**qubits)``, of amplitude-encoded samples."""
    qubits = loaded.program.circuit.qubits
    real = amplitudes(loaded.program.circuit, features)
    lead = real.dim() - 1
    matrix = (real.unsqueeze(-1) * real.unsqueeze(-2)).reshape(*real.shape[:-1], *[2] * (2 * qubits))
    order = [lead + axis for wire in range(qubits) for axis in (wire, qubits + wire)]  # a wire's two indices together
    vector = matrix.permute(*range(lead), *order).flatten(lead)
    for wire in range(qubits):
        vector = _turn(vector, loaded.entries, Block(wire, 1, wire), qubits)
    return vector * loaded.start


@functools.lru_cache(maxsize=16)
def _load(program: Program, dtype: torch.dtype, device: torch.device) -> _Loaded:
    """The constants of a program."""
    return apart(_make, program, dtype, device)


def _make(program: Program, dtype: torch.dtype, device: torch.device) -> _Loaded:
    put = functools.partial(as_constant, dtype=dtype, device=device)
    tables = {group: table for group, table in program.tables.items() if table.angles}
    sources = [stage.shuffle.source for stage in program.stages]
    factors = [stage.shuffle.weight for stage in program.stages]
    words = None if program.words is None else put(program.words)
    return _Loaded(
        program,
        {group: load_angles(table.angles, program.circuit.weights, put) for group, table in tables.items()},
        {group: put(np.moveaxis(table.terms, 2, 0).copy()) for group, table in tables.items()},
        tuple(None if source is None else put(source) for source in sources),
        tuple(None if source is None else put(np.argsort(source)) for source in sources),
        tuple(None if weight is None else put(weight) for weight in factors),
        put(program.start),
        put(_ENTRIES),
        put(program.strings),
        put(program.mix),
        words,
    )


def _check_memory(circuit: Circuit, features: Tensor) -> None:
    """Refuse what does not fit: three vectors of ``4**qubits`` numbers a sample and observable, and the program.

    Three, because a step reads one, writes another, and keeps one for the gradient at the least.
    """
    rows = features.shape[:-1].numel()
    number = 8 if features.dtype == torch.float64 else 4
    needed = (3 * (rows + len(circuit.observables)) * number + 16 * len(circuit.gates)) * 4**circuit.qubits
    if needed < 2**28:
        return  # not worth asking the system on every call
    there = available_bytes(features.device)
    if needed > there:
        raise InputError(
            f"expected density matrices that fit into {there / 2**30:.1f} GiB of memory, got {circuit.qubits} qubits "
            f"and a batch of {rows}: about {needed / 2**30:.4g} GiB for {rows} * 4**{circuit.qubits} numbers of "
            f"{number} bytes, the observables and the program; use fewer qubits, smaller batches, or trajectories"
        )
