r"""Quantum Fisher information: how fast a circuit's states move with its weights, whatever is measured on them.

The Fubini-Study metric of the state psi(theta; x), averaged over samples x,

.. math:: g_{ij} = \operatorname{mean}_x \operatorname{Re}\bigl[\langle\partial_i\psi|\partial_j\psi\rangle
                   - \langle\partial_i\psi|\psi\rangle\langle\psi|\partial_j\psi\rangle\bigr],

gives the mean infidelity of a small move, ``1 - |<psi(theta)|psi(theta + d)>|^2 = d^T g d + O(d^3)``, and the quantum
Fisher information 4 g. Everything here is of the circuit without noise, whose states are pure, and in float64.

Source: Provost and Vallee 1980, Commun. Math. Phys. 76, 289 (the metric); Meyer 2021, arXiv 2103.15191 (circuits).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from qunlearn.errors import InputError, UnknownNameError, UnsupportedError
from qunlearn.quantum import engines
from qunlearn.quantum.circuit import Angle, Circuit, Gate
from qunlearn.quantum.gates import spectrum
from qunlearn.quantum.layer import weights_by_depth
from qunlearn.quantum.states import fidelity

Blocks = Literal["full", "layer", "diagonal"]
BLOCKS: tuple[Blocks, ...] = ("full", "layer", "diagonal")
NUMBERS = 1 << 22  # amplitudes of derivatives that are held at once


def state_jacobian(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    """The derivatives of the final states by every weight, complex ``(batch, weights, 2**qubits)``; exact.

    No automatic differentiation: the derivative of a gate is a sum of the gate at shifted angles, and so is that of the
    state; all shifts run at once. Wire 0 is most significant.

    Args:
        circuit: without noise.
        features: ``(batch, features)``.
        weights: ``(weights,)``, radians.

    Raises:
        UnsupportedError: for a noisy circuit.
    """
    return _slopes(circuit, features, weights, range(circuit.weights))


def metric_tensor(circuit: Circuit, features: Tensor, weights: Tensor, *, blocks: Blocks = "full") -> Tensor:
    """The mean Fubini-Study metric over samples, ``(weights, weights)`` float64; see the module.

    Args:
        circuit: without noise.
        features: ``(batch, features)``, at least one sample.
        weights: ``(weights,)``, radians.
        blocks: ``"full"``; ``"layer"``: pairs of weights in different layers are left at 0 (before the first and after
            the last layer count as layers); ``"diagonal"``. What is computed is exact in each.

    Raises:
        InputError: for features of another shape, or none.
        UnsupportedError: for a noisy circuit.
    """
    if blocks not in BLOCKS:
        raise UnknownNameError("blocks of the metric tensor", blocks, BLOCKS)
    if features.dim() != 2 or features.shape[1] != circuit.features or len(features) == 0:
        raise InputError(
            f"expected features of shape (batch, {circuit.features}) with at least one sample, "
            f"got {tuple(features.shape)}"
        )
    features, weights = features.detach().double(), weights.detach().double()
    metric = torch.zeros(circuit.weights, circuit.weights, dtype=torch.float64, device=weights.device)
    groups = list(weights_by_depth(circuit).values()) if blocks == "layer" else [range(circuit.weights)]
    for group in (group for group in groups if len(group)):
        place = torch.tensor(list(group), device=weights.device)
        size = max(1, NUMBERS // (len(group) * 2**circuit.qubits))
        for rows in torch.split(features, size):
            found = _block(circuit, rows, weights, group, blocks == "diagonal") / len(features)
            metric[place[:, None], place] += found
    return metric


def quantum_fisher(circuit: Circuit, features: Tensor, weights: Tensor, *, blocks: Blocks = "full") -> Tensor:
    """The mean quantum Fisher information over samples, 4 times `metric_tensor`: ``(weights, weights)`` float64."""
    return 4 * metric_tensor(circuit, features, weights, blocks=blocks)


def shift_fisher_diagonal(circuit: Circuit, features: Tensor, weights: Tensor) -> Tensor:
    r"""The diagonal of `quantum_fisher` as a quantum computer would find it, ``(weights,)`` float64.

    .. math:: F_{kk} = \operatorname{mean}_x \bigl(1 - |\langle\psi(\theta; x)|\psi(\theta + \pi e_k; x)\rangle|^2\bigr)

    for angles as they stand in the gate; a weight that the circuit multiplies by s moves by pi / s, and counts s^2
    times. One more state for each weight, and an overlap.

    Raises:
        UnsupportedError: for a weight in several gates, one that a feature multiplies, or one of a gate whose generator
            has other than two eigenvalues, such as a controlled rotation: there the identity does not hold.

    Source: Kumar and Chongder, arXiv 2608.17069; it is 1 - <P>^2 at the gate's place.
    """
    scales = _scales(circuit)
    features, weights = features.detach().double(), weights.detach().double()
    here, found = engines.state(circuit, features, weights), torch.zeros_like(weights)
    for index, scale in scales.items():
        moved = weights.clone()
        moved[index] += math.pi / scale
        found[index] = scale**2 * (1 - fidelity(here, engines.state(circuit, features, moved)).mean())
    return found


def overlap_circuits(circuit: Circuit, blocks: Blocks) -> int:
    """How many circuits the metric tensor of one sample takes on a quantum computer, as state overlaps.

    One for each weight (a shift by pi), four for each pair (shifts by pi / 2; controlled rotations would take more).
    Source: Mari, Bromley and Killoran 2021, arXiv 2008.06517, for Pauli rotations.
    """
    if blocks == "diagonal":
        return circuit.weights
    sizes = [len(group) for group in weights_by_depth(circuit).values()] if blocks == "layer" else [circuit.weights]
    return sum(size + 2 * size * (size - 1) for size in sizes)


def shifted_states(circuit: Circuit) -> int:
    """How many states beside its own the derivatives of one sample's state take here."""
    return sum(len(turn.terms) for turn in _unfolded(circuit)[1])


def _block(circuit: Circuit, features: Tensor, weights: Tensor, group: Sequence[int], diagonal: bool) -> Tensor:
    """The sum over samples of the metric of some weights, ``(group, group)``."""
    states = engines.state(circuit, features, weights).flatten(1)
    slopes = _slopes(circuit, features, weights, group)
    along = (slopes @ states.conj()[..., None]).squeeze(-1)  # <psi|d_k psi>, (batch, group)
    if diagonal:
        return torch.diag((slopes.abs().square().sum(-1) - along.abs().square()).sum(0))
    rows = slopes.transpose(0, 1).flatten(1)
    found = (rows.conj() @ rows.mT - along.mH @ along).real
    return (found + found.mT) / 2


def _slopes(circuit: Circuit, features: Tensor, weights: Tensor, group: Sequence[int]) -> Tensor:
    """The derivatives of states by some weights, ``(batch, group, 2**qubits)``."""
    wide, turns = _unfolded(circuit)
    terms = [(turn, term) for turn in turns if turn.weight in group for term in turn.terms]
    slopes = engines.state(circuit, features, weights).flatten(1)[:, None, :] * torch.zeros_like(
        weights[list(group), None]
    )
    if not terms:
        return slopes
    shifts = torch.zeros(len(terms), len(turns)).to(weights)
    for row, (turn, (_, shift)) in enumerate(terms):
        shifts[row, turn.number] = shift

    def states(shift: Tensor) -> Tensor:
        return engines.state(wide, features, torch.cat([weights, shift])).flatten(1)

    moved = torch.vmap(states, out_dims=1)(shifts)
    rates = torch.stack([coefficient * _rate(turn.angle, features) for turn, (coefficient, _) in terms], 1)
    place = torch.tensor([list(group).index(turn.weight) for turn, _ in terms], device=weights.device)
    return slopes.index_add(1, place, moved * rates[..., None].to(weights))


class _Turn(NamedTuple):
    """A gate that a weight turns: its place among them, its angle, and the (coefficient, shift) of `_terms`."""

    number: int
    weight: int
    angle: Angle
    terms: tuple[tuple[float, float], ...]


@functools.lru_cache(maxsize=64)
def _unfolded(circuit: Circuit) -> tuple[Circuit, tuple[_Turn, ...]]:
    """The circuit with every gate that a weight turns followed by the same gate with an angle of its own."""
    gates: list[Gate] = []
    turns: list[_Turn] = []
    for gate in circuit.gates:
        gates.append(gate)
        if gate.angle is not None and gate.angle.weight is not None:
            gates.append(replace(gate, angle=Angle(weight=circuit.weights + len(turns))))
            turns.append(_Turn(len(turns), gate.angle.weight, gate.angle, _terms(gate.name)))
    return replace(circuit, gates=tuple(gates), weights=circuit.weights + len(turns)), tuple(turns)


def _terms(name: str) -> tuple[tuple[float, float], ...]:
    """(coefficient, shift) of a gate: the sum of coefficient * exp(-i (angle + shift) G / 2) is its derivative.

    For eigenvalues m, -m and perhaps 0 of the generator G: ``-i v / 2`` is ``m / 2 * exp(-i pi v / 2m)`` for v = m, -m,
    and ``m / 4`` times the difference of that and its conjugate for 0 as well.
    """
    values, _ = spectrum(name)
    most = float(abs(values).max())
    assert all(math.isclose(abs(value), most) or value == 0 for value in values), name
    shift = math.pi / most
    return ((most / 4, shift), (-most / 4, -shift)) if 0 in values else ((most / 2, shift),)


def _rate(angle: Angle, features: Tensor) -> Tensor:
    """How fast an angle turns with its weight, ``(batch,)``."""
    found = torch.full_like(features[:, :1].sum(1), angle.scale)
    for factor in angle.factors:
        found = found * (features[:, factor.feature] * factor.sign + factor.shift)
    return found


def _scales(circuit: Circuit) -> dict[int, float]:
    """The scale of every weight that turns something; refuses those for which the shift by pi is not the derivative."""
    scales: dict[int, float] = {}
    for gate in circuit.gates:
        if gate.angle is None or gate.angle.weight is None:
            continue
        values, _ = spectrum(gate.name)
        why = ""
        if gate.angle.weight in scales:
            why = "it turns several gates"
        elif gate.angle.factors:
            why = "a feature multiplies it"
        elif len(values) != 2 or not math.isclose(values[1] - values[0], 2):
            why = f"the generator of {gate} has {len(values)} eigenvalues"
        if why:
            raise UnsupportedError(
                f"expected Pauli rotations with a weight each for the shift by pi, got weight {gate.angle.weight}, "
                f"of which {why}; take quantum_fisher, which is exact for every circuit"
            )
        scales[gate.angle.weight] = gate.angle.scale
    return {index: scale for index, scale in scales.items() if scale}
