"""The reference engine: a compiled program as differentiable tensor operations.

A pure function of (features, weights). Every operation is out of place and known to ``torch.func``, so
that vmap, grad, jvp, hessian and double backward work, on any device. Inside, a state is flat,
``(..., 2**qubits)``, with wire 0 most significant; leading axes are those of the features, if they enter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.errors import InputError, UnsupportedError
from qunlearn.quantum.circuit import Angle, Circuit, Factor
from qunlearn.quantum.engines.memory import check_memory
from qunlearn.quantum.engines.observe import Observer, make_observer
from qunlearn.quantum.engines.program import Block, Program, compile_circuit

Made = TypeVar("Made")


def expectations(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The expectation value of every observable: features ``(..., features)`` give ``(..., observables)``.

    Weights are ``(weights,)``; both may be float32 or float64, and the wider one is the type of everything
    that is computed. What reaches no observable gets a gradient of exactly zero.

    Raises:
        InputError: if the states need more memory than there is, or a sample cannot be amplitude-encoded.
        UnsupportedError: for a noisy circuit.
    """
    refuse_noise(circuit, "torch")
    features, weights = promote(features, weights)
    check_memory(circuit, features)
    return evaluate(compile_circuit(circuit, True), features, weights)


def evaluate(program: Program, features: Tensor, weights: Tensor) -> Tensor:
    """The values of a program's observables, ``(..., observables)``; features and weights are of one real type."""
    loaded = _load(program, features.dtype, features.device)
    values = loaded.observer(_run(loaded, features, weights, loaded.observer.skips_tail))
    return tie(values, program.circuit, loaded.angles, features, weights)


def state(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The final state, complex: features ``(..., features)`` give ``(..., 2, ..., 2)``, axis i for wire i."""
    if circuit.noisy:
        raise UnsupportedError(
            "expected a circuit without noise, which alone has a pure final state; use circuit.without_noise()"
        )
    features, weights = promote(features, weights)
    check_memory(circuit, features)
    flat = final_state(compile_circuit(circuit, False), features, weights)
    return flat.reshape(*features.shape[:-1], *[2] * circuit.qubits)


def final_state(program: Program, features: Tensor, weights: Tensor) -> Tensor:
    """The final state of a program, flat and complex, ``(..., 2**qubits)``; inputs are of one real type."""
    loaded = _load(program, features.dtype, features.device)
    return tie(_run(loaded, features, weights, False), program.circuit, loaded.angles, features, weights)


def tie(values: Tensor, circuit: Circuit, angles: dict[str, Angles], features: Tensor, weights: Tensor) -> Tensor:
    """The values, tied by a zero to the batch and to inputs that do not enter, so that gradients exist."""
    if "features" not in angles and not circuit.amplitude:
        values = values + features[..., :0].sum(-1, keepdim=True)
    if all(table.weight is None for table in angles.values()):
        values = values + weights[:0].sum()
    return values


def refuse_noise(circuit: Circuit, engine: str) -> None:
    """Refuse a noisy circuit for an engine of pure states, with an `UnsupportedError`."""
    if circuit.noisy:
        raise UnsupportedError(
            f"expected a circuit without noise for engine {engine!r}, got {len(circuit.channels)} channels and "
            f"readout errors of {len(circuit.readout)} wires; use engine='auto' or 'density', or without_noise()"
        )


def promote(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their real types; anything but float32 and float64 counts as float32."""
    dtype = torch.promote_types(features.dtype, weights.dtype)
    dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    return features.to(dtype), weights.to(dtype)


@dataclass(frozen=True, eq=False)
class Angles:
    """The angles of a group as tensors: scale * product(sign * feature + shift) * weight + offset.

    Shapes: `factors` holds (index, sign, shift), each ``(angles,)``, for the first, second, ... factor.
    """

    scale: Tensor
    offset: Tensor
    weight: Tensor | None
    factors: tuple[tuple[Tensor, Tensor, Tensor], ...]

    def __call__(self, features: Tensor, weights: Tensor) -> Tensor:
        """The angles, ``(angles,)`` or ``(..., angles)``, in radians."""
        angles = self.scale
        if self.weight is not None:
            padded = torch.cat([weights, torch.ones_like(self.scale[:1])])  # the last stands for "no weight"
            angles = angles * padded.index_select(0, self.weight)
        for index, sign, shift in self.factors:
            angles = angles * (features.index_select(-1, index) * sign + shift)
        return angles + self.offset


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A program's constants on one device in one precision."""

    program: Program
    observer: Observer
    angles: dict[str, Angles]
    terms: dict[str, Tensor]  # (segments, length, 3, 2, 2) complex, as a real (3, segments, length, 2, 2, 2)
    permutations: tuple[Tensor | None, ...]
    phases: tuple[Tensor | None, ...]
    rates: tuple[dict[str, tuple[int, Tensor]], ...]


def _run(loaded: _Loaded, features: Tensor, weights: Tensor, skip_tail: bool) -> Tensor:
    """The final flat state, ``(..., 2**qubits)``, or ``(2**qubits,)`` if no features enter."""
    program = loaded.program
    angles = {group: table(features, weights) for group, table in loaded.angles.items()}
    slots = {group: iter(_slots(loaded, group, angles[group])) for group in loaded.terms}
    psi = None
    if program.circuit.amplitude:
        real = amplitudes(program.circuit, features)
        psi = torch.complex(real, torch.zeros_like(real))
    last = len(program.stages) - 1
    for number, stage in enumerate(program.stages):
        turns = [next(slots[slot.group]) for slot in stage.slots]
        if turns:
            wires = functools.reduce(lambda before, after: after @ before, turns).unbind(-3)
            psi = _product_state(wires) if psi is None else _apply(psi, wires, stage.blocks, program.circuit.qubits)
        assert psi is not None
        if stage.monomial is not None and not (skip_tail and number == last):
            psi = _monomial(psi, loaded, number, angles)
    assert psi is not None
    return psi


def _slots(loaded: _Loaded, group: str, angles: Tensor) -> tuple[Tensor, ...]:
    """The matrices of a group slot by slot, each ``(..., wires, 2, 2)`` complex: merged runs of one-wire gates."""
    terms = loaded.terms[group]
    segments, length = terms.shape[1:3]
    mine = angles if angles.shape[-1] == segments * length else angles[..., : segments * length]
    turn = mine.reshape(*angles.shape[:-1], segments, length, 1, 1, 1)
    single = torch.view_as_complex(turn.cos() * terms[0] + turn.sin() * terms[1] + terms[2])
    merged = functools.reduce(lambda before, after: after @ before, single.unbind(-3))
    sizes = [slot.stop - slot.start for stage in loaded.program.stages for slot in stage.slots if slot.group == group]
    return torch.split_with_sizes(merged, sizes, -3)


def _product_state(wires: tuple[Tensor, ...]) -> Tensor:
    """The state that one matrix a wire, each ``(..., 2, 2)``, makes of |0...0>: a product of first columns."""
    return product_vector([matrix[..., 0] for matrix in wires])


def product_vector(parts: Sequence[Tensor]) -> Tensor:
    """The vector ``(..., d**wires)`` of a product, from one vector ``(..., d)`` a wire."""
    parts = list(parts)
    while len(parts) > 1:
        pairs = [(a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2) for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(parts) & ~1 :]
    return parts[0]


def _apply(psi: Tensor, wires: tuple[Tensor, ...], blocks: tuple[Block, ...], qubits: int) -> Tensor:
    """The state after one matrix on each active wire, block by block."""
    for block in blocks:
        merged = functools.reduce(kron, wires[block.offset : block.offset + block.size])
        psi = _turn(psi, merged, block, qubits)
    return psi


def kron(left: Tensor, right: Tensor) -> Tensor:
    """The Kronecker product of two matrices with leading axes ``(..., d, d)``."""
    return (left[..., :, None, :, None] * right[..., None, :, None, :]).flatten(-2).flatten(-3, -2)


def _turn(psi: Tensor, matrix: Tensor, block: Block, qubits: int) -> Tensor:
    """The state with a block's matrix, ``(..., 2**size, 2**size)``, applied to its wires."""
    left, size, right = 2**block.wire, 2**block.size, 2 ** (qubits - block.wire - block.size)
    lead = psi.shape[:-1]
    if right == 1:  # one large product, without a copy of the state
        turned = psi.reshape(*lead, left, size) @ matrix.mT
    elif left == 1:
        turned = matrix @ psi.reshape(*lead, size, right)
    else:
        turned = matrix.unsqueeze(-3) @ psi.reshape(*lead, left, size, right)
    return turned.reshape(*turned.shape[: turned.dim() - (2 if 1 in (left, right) else 3)], 2**qubits)


def _monomial(psi: Tensor, loaded: _Loaded, number: int, angles: dict[str, Tensor]) -> Tensor:
    """The state after a stage's permutation and phases."""
    permutation, phase = loaded.permutations[number], loaded.phases[number]
    if permutation is not None:
        psi = psi.index_select(-1, permutation)
    if phase is not None:
        psi = psi * phase
    for group, (first, rates) in loaded.rates[number].items():
        turn = angles[group].narrow(-1, first, rates.shape[0]) @ rates
        psi = psi * torch.complex(turn.cos(), turn.sin())
    return psi


def amplitudes(circuit: Circuit, features: Tensor) -> Tensor:
    """The circuit's features as amplitudes, padded with zeros and normalised; ``(..., 2**qubits)`` real."""
    features = features[..., : circuit.features]  # a program may read more features than its circuit has
    largest = check_amplitudes(features)
    scaled = features / largest  # so that neither tiny nor huge features leave the range of their type
    padded = torch.nn.functional.pad(scaled, (0, 2**circuit.qubits - circuit.features))
    normalised: Tensor = padded / torch.linalg.vector_norm(padded, dim=-1, keepdim=True)
    return normalised


def check_amplitudes(features: Tensor) -> Tensor:
    """The largest magnitude of every sample, ``(..., 1)``; refuses samples of zeros, which are no state."""
    largest = features.abs().amax(-1, keepdim=True).detach()
    try:
        zero = (largest.reshape(-1) == 0).nonzero()
    except RuntimeError:  # inside vmap values cannot be looked at: there a zero vector gives NaN
        return largest
    if len(zero):
        raise InputError(
            f"expected samples with at least one feature other than zero for amplitude encoding, got a zero vector as "
            f"sample {int(zero[0])}; remove it or add an offset"
        )
    return largest


@functools.lru_cache(maxsize=512)
def _load(program: Program, dtype: torch.dtype, device: torch.device) -> _Loaded:
    """The constants of a program."""
    return apart(_make, program, dtype, device)


def apart(make: Callable[..., Made], *given: Any) -> Made:
    """What a function makes, as tensors that no mode or transform of the caller owns: these belong to a thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make, *given).result()


def _make(program: Program, dtype: torch.dtype, device: torch.device) -> _Loaded:
    put = functools.partial(as_constant, dtype=dtype, device=device)
    monomials = [stage.monomial for stage in program.stages]
    tables = {group: table for group, table in program.tables.items() if table.angles}
    return _Loaded(
        program,
        make_observer(program, dtype, device),
        {group: load_angles(table.angles, program.circuit.weights, put) for group, table in tables.items()},
        {group: _load_terms(table.terms, put) for group, table in tables.items() if table.terms.size},
        tuple(None if m is None or m.permutation is None else put(m.permutation) for m in monomials),
        tuple(None if m is None or m.phase is None else put(m.phase) for m in monomials),
        tuple({} if m is None else {g: (n, put(r)) for g, (n, r) in m.rates.items()} for m in monomials),
    )


def as_constant(array: NDArray[Any], *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An array in the engine's precision: real as `dtype`, complex as the complex type to it, integers as they are."""
    wide = {"c": dtype.to_complex(), "f": dtype}.get(array.dtype.kind, torch.int64)
    return torch.as_tensor(array).to(device=device, dtype=wide)


def _load_terms(terms: NDArray[Any], put: Callable[[NDArray[Any]], Tensor]) -> Tensor:
    """Terms ``(segments, length, 3, 2, 2)`` complex as a real ``(3, segments, length, 2, 2, 2)``."""
    return torch.view_as_real(put(np.ascontiguousarray(np.moveaxis(terms, 2, 0))))


def load_angles(angles: list[Angle], weights: int, put: Callable[[NDArray[Any]], Tensor]) -> Angles:
    """A group's angles as constants; `put` makes a tensor of an array."""
    most = max(len(angle.factors) for angle in angles)
    columns = []
    for place in range(most):
        # An angle with fewer factors is filled up with 0 * feature + 1.
        rows = [a.factors[place] if place < len(a.factors) else Factor(0, 0.0, 1.0) for a in angles]
        columns.append(
            (
                put(np.array([row.feature for row in rows])),
                put(np.array([row.sign for row in rows], dtype=float)),
                put(np.array([row.shift for row in rows], dtype=float)),
            )
        )
    used = any(angle.weight is not None for angle in angles)
    weight = put(np.array([weights if a.weight is None else a.weight for a in angles])) if used else None
    scale, offset = ([a.scale if not a.constant else 0.0 for a in angles], [a.offset for a in angles])
    return Angles(put(np.array(scale, dtype=float)), put(np.array(offset, dtype=float)), weight, tuple(columns))
