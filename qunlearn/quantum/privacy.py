"""Quantum differential privacy of noisy circuits: how well what is read can tell neighbouring inputs apart.

All of it speaks of states that enter a circuit when it is used, never of the data that its weights were trained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.quantum.channels import channel as channel_spec
from qunlearn.quantum.circuit import Channel, Circuit, Gate
from qunlearn.quantum.engines import density
from qunlearn.quantum.gates import PAULI, Matrix
from qunlearn.quantum.gates import gate as gate_spec

QUBITS = 10  # effects are matrices of 4**qubits numbers, and there is one for every reading
SUBSETS = 8  # readings of which `input_delta` takes every subset
_ROUNDING = 1e-12  # eigenvalues of an effect below this share of the largest are zero


def input_epsilon(
    circuit: Circuit, weights: Tensor | ArrayLike, distance: float, *, wires: Sequence[int] | None = None
) -> float:
    r"""The exact epsilon of quantum differential privacy of what is read from a noisy circuit, one shot.

    .. math:: \epsilon = \max_A \ln\bigl(1 + d\,(\kappa_A - 1)\bigr), \qquad
              \kappa_A = \frac{\lambda_{\max}(M'_A)}{\lambda_{\min}(M'_A)}, \quad M'_A = \mathcal E^\dagger(M_A)

    No two states at trace distance d that enter the channel E give any set A of readings probabilities whose ratio
    exceeds exp(epsilon), and some two do. Since the largest (least) eigenvalue of a sum is at most (at least) the sum
    of theirs, no set has a larger kappa than the worst of its single readings, and those are all that is looked at.

    E is what follows the last gate that takes features: before it lie the inputs' states, prepared as they may be,
    with any noise on the way, and d is their distance there. So it is the same for all inputs also where a circuit
    takes its features several times; noise before the last of them can make d smaller, and is not in epsilon. With S
    shots epsilon is S times as large (basic composition).

    Args:
        circuit: at most 10 qubits.
        weights: ``(weights,)``, radians.
        distance: d, trace distance of neighbours, above 0 and at most 1; 1 takes any two states for neighbours.
        wires: that are read, all in one shot and in the computational basis, readout errors included; None for the
            wires of the observables.

    Returns:
        Epsilon in nats; infinity where a reading is impossible for one state and not for another.

    Raises:
        InputError: for a distance out of range, wires that are not there, too many qubits, or, without `wires`,
            observables that are not read in the computational basis.

    Source: Guan, Fang, Huang and Ying 2023, arXiv 2309.04819 (the formula); that single readings are enough, and the
        cut at the last feature, are ours.
    """
    _check_distance(distance)
    worst = 1.0
    for effect in _effects(circuit, weights, wires):
        values = np.linalg.eigvalsh(effect)
        if values[-1] > _ROUNDING:
            worst = max(worst, math.inf if values[0] <= _ROUNDING * values[-1] else float(values[-1] / values[0]))
    return math.log1p(distance * (worst - 1)) if worst < math.inf else math.inf


def input_delta(
    circuit: Circuit,
    weights: Tensor | ArrayLike,
    distance: float,
    epsilon: float,
    *,
    wires: Sequence[int] | None = None,
) -> float:
    r"""The least delta for which what is read is (epsilon, delta)-private for inputs at a trace distance.

    .. math:: \delta = \max_A \bigl[\lambda_{\min} + d\,(\lambda_{\max} - \lambda_{\min}) - e^\epsilon
              \lambda_{\min}\bigr]_+

    with the eigenvalues of M'_A, over all sets A of readings: at most 3 wires are read. Arguments and errors are those
    of `input_epsilon`; epsilon is at least 0, in nats.
    """
    _check_distance(distance)
    if epsilon < 0:
        raise InputError(f"expected an epsilon of at least 0, got {epsilon}")
    read = measured_wires(circuit) if wires is None else tuple(wires)
    if 2 ** len(read) > SUBSETS:
        raise InputError(f"expected at most 3 wires that are read, all sets of readings are tried, got {len(read)}")
    singles = list(_effects(circuit, weights, read))
    largest = 0.0
    for chosen in product((False, True), repeat=len(singles)):
        if any(chosen):
            values = np.linalg.eigvalsh(sum(e for e, taken in zip(singles, chosen, strict=True) if taken))
            low, high = max(0.0, float(values[0])), float(values[-1])
            largest = max(largest, low + distance * (high - low) - math.exp(epsilon) * low)
    return largest


def hockey_stick(rho: ArrayLike, sigma: ArrayLike, gamma: float) -> float:
    """Tr (rho - gamma sigma)_+ of density matrices ``(d, d)``: the largest delta that any measurement reaches.

    Rho and sigma are (epsilon, delta)-indistinguishable, one way round, if and only if it is at most delta at
    gamma = exp(epsilon). At gamma 1 it is their trace distance.

    Source: Hirche, Rouze and Stilck Franca 2023, arXiv 2202.10717.
    """
    a, b = _pair(rho, sigma)
    values = np.linalg.eigvalsh(a - gamma * b)
    return float(values[values > 0].sum())


def max_divergence(rho: ArrayLike, sigma: ArrayLike) -> float:
    """The logarithm of the least c with rho <= c sigma, of density matrices ``(d, d)``, in nats.

    That is the largest logarithm of a ratio of probabilities that any outcome of any measurement has; infinity where
    rho has a part that sigma lacks.

    Source: Datta 2009, arXiv 0803.2770.
    """
    a, b = _pair(rho, sigma)
    values, vectors = np.linalg.eigh(b)
    there = values > _ROUNDING * values[-1]
    outside = vectors[:, ~there]
    if np.abs(outside.conj().T @ a @ outside).max(initial=0.0) > _ROUNDING:
        return math.inf
    root = vectors[:, there] / np.sqrt(values[there])
    return math.log(float(np.linalg.eigvalsh(root.conj().T @ a @ root)[-1]))


def measured_wires(circuit: Circuit) -> tuple[int, ...]:
    """The wires that the observables look at, in order.

    Raises:
        InputError: for observables with X or Y, which are read in other settings.
    """
    if set("".join(circuit.observables)) - set("IZ"):
        raise InputError(
            f"expected observables of I and Z, which one setting reads, got {list(circuit.observables)}; name wires= "
            "and put the change of basis into the circuit"
        )
    return tuple(w for w in range(circuit.qubits) if any(word[w] == "Z" for word in circuit.observables))


def reduced_densities(circuit: Circuit, features: Tensor, weights: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Density matrices of some wires of a circuit, noisy or not, by the density engine; differentiable.

    From the expectation values of all Pauli strings on the wires. Readout errors, which strike what is read and not
    the state, are left out.

    Args:
        circuit: as many qubits as the density engine takes.
        features: ``(batch, features)``.
        weights: ``(weights,)``, radians.
        groups: wires, as many in each group; the first wire of a group is most significant.

    Returns:
        ``(batch, groups, 2**k, 2**k)``, complex128.
    """
    letters = list(product("IXYZ", repeat=len(groups[0])))
    words = [_word(circuit.qubits, wires, word) for wires in groups for word in letters]
    places = {word: place for place, word in enumerate(dict.fromkeys(words))}
    asked = replace(circuit, observables=tuple(places), readout=())
    values = density.expectations(asked, features, weights).to(torch.complex128)
    basis = np.stack([_kron([PAULI[letter] for letter in word]) for word in letters]) / 2 ** len(groups[0])
    rows = values[:, [places[word] for word in words]].reshape(len(values), len(groups), len(letters))
    return torch.einsum("bgw,wij->bgij", rows, torch.as_tensor(basis, device=values.device))


def _word(qubits: int, wires: Sequence[int], letters: Sequence[str]) -> str:
    """The Pauli string with these letters on these wires."""
    there = dict(zip(wires, letters, strict=True))
    return "".join(there.get(wire, "I") for wire in range(qubits))


def _effects(circuit: Circuit, weights: Tensor | ArrayLike, wires: Sequence[int] | None) -> Iterator[Matrix]:
    """M'_a for every reading a of some wires, ``(2**qubits, 2**qubits)`` each."""
    read = measured_wires(circuit) if wires is None else tuple(wires)
    if not read or len(set(read)) != len(read) or not all(0 <= wire < circuit.qubits for wire in read):
        raise InputError(f"expected different wires from 0 to {circuit.qubits - 1} that are read, got {list(read)}")
    if circuit.qubits > QUBITS:
        raise InputError(f"expected at most {QUBITS} qubits for an exact epsilon, got {circuit.qubits}")
    found = torch.as_tensor(weights).detach().cpu().double()
    steps = [_operators(step, found) for step in reversed(_tail(circuit))]
    pairs = circuit.readout or ((0.0, 0.0),) * circuit.qubits
    for bits in product((0, 1), repeat=len(read)):
        chosen = dict(zip(read, bits, strict=True))
        factors = [_seen(pairs[w], chosen[w]) if w in chosen else np.ones(2) for w in range(circuit.qubits)]
        effect: Matrix = np.diag(_kron(factors)).astype(np.complex128)
        for wires_of, operators in steps:
            effect = _backwards(effect, operators, wires_of, circuit.qubits)
        yield effect


def _kron(factors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    whole = factors[0]
    for factor in factors[1:]:
        whole = np.kron(whole, factor)
    return whole


def _seen(pair: tuple[float, float], bit: int) -> NDArray[np.float64]:
    """How likely each state of a wire is read as the bit; the pair is P(read 1 | 0), P(read 0 | 1)."""
    one = np.array([pair[0], 1 - pair[1]])
    return one if bit else 1 - one


def _tail(circuit: Circuit) -> list[Gate | Channel]:
    """What acts after the last gate that takes features, in order."""
    uploads = [n for n, gate in enumerate(circuit.gates) if gate.angle is not None and gate.angle.factors]
    last = max(uploads, default=-1)
    struck: dict[int, list[Channel]] = {}
    for made in circuit.channels:
        struck.setdefault(made.after, []).append(made)
    steps: list[Gate | Channel] = [*struck.get(last, [])]
    for number in range(last + 1, len(circuit.gates)):
        steps += [circuit.gates[number], *struck.get(number, [])]
    return steps


def _operators(step: Gate | Channel, weights: Tensor) -> tuple[tuple[int, ...], Matrix]:
    """The wires of a step and its Kraus operators ``(k, 2**wires, 2**wires)``."""
    if isinstance(step, Channel):
        return step.wires, channel_spec(step.name).kraus(step.strengths, len(step.wires))
    angle = None
    if step.angle is not None:
        weight = 1.0 if step.angle.weight is None else weights[step.angle.weight]
        scale = 0.0 if step.angle.constant else step.angle.scale
        angle = torch.as_tensor(scale * weight + step.angle.offset, dtype=torch.float64)
    return step.wires, gate_spec(step.name).matrix(angle).numpy()[None]


def _backwards(effect: Matrix, operators: Matrix, wires: tuple[int, ...], qubits: int) -> Matrix:
    """sum_k K_k^dagger M K_k for Kraus operators on some wires."""
    total = np.zeros_like(effect)
    for operator in operators:
        half = _on_rows(effect, operator.conj().T, wires, qubits)  # K^dagger M; M is Hermitian
        total += _on_rows(half.conj().T, operator.conj().T, wires, qubits).conj().T
    return total


def _on_rows(matrix: Matrix, operator: Matrix, wires: tuple[int, ...], qubits: int) -> Matrix:
    """An operator on some wires times a matrix ``(2**qubits, 2**qubits)``."""
    front = range(len(wires))
    parts = np.moveaxis(matrix.reshape(*[2] * qubits, -1), wires, front)
    turned = (operator @ parts.reshape(2 ** len(wires), -1)).reshape(parts.shape)
    return np.moveaxis(turned, front, wires).reshape(matrix.shape)


def _check_distance(distance: float) -> None:
    if not 0 < distance <= 1:
        raise InputError(f"expected a trace distance of neighbours above 0 and at most 1, got {distance}")


def _pair(rho: ArrayLike, sigma: ArrayLike) -> tuple[Matrix, Matrix]:
    a, b = np.asarray(rho, dtype=np.complex128), np.asarray(sigma, dtype=np.complex128)
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise InputError(f"expected two square matrices of one size, got shapes {a.shape} and {b.shape}")
    return a, b
