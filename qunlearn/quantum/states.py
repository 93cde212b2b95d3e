"""Pure states and what can be read from them. A state is complex, ``(batch, 2, ..., 2)``, axis i + 1 for wire i."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qunlearn.errors import InputError


def fidelity(states_a: Tensor, states_b: Tensor) -> Tensor:
    """|<a|b>|^2 of pure states, ``(batch,)`` real in [0, 1], computed in float64.

    Raises:
        InputError: if the shapes differ.
    """
    if states_a.shape != states_b.shape:
        raise InputError(f"expected states of one shape, got {tuple(states_a.shape)} and {tuple(states_b.shape)}")
    a, b = _flat(states_a), _flat(states_b)
    overlap = (a.conj() * b).sum(-1)
    return overlap.real.square() + overlap.imag.square()


def reduced_state(state: Tensor, wires: Sequence[int]) -> Tensor:
    """The density matrix of some wires, ``(batch, 2**k, 2**k)`` complex128; the first wire is most significant.

    Raises:
        InputError: for wires that repeat or are not there.
    """
    qubits = state.dim() - 1
    if len(set(wires)) != len(wires) or not all(0 <= wire < qubits for wire in wires):
        raise InputError(f"expected different wires from 0 to {qubits - 1}, got {list(wires)}")
    rest = [wire for wire in range(qubits) if wire not in wires]
    ordered = state.to(torch.complex128).permute(0, *(wire + 1 for wire in (*wires, *rest)))
    matrix = ordered.reshape(state.shape[0], 2 ** len(wires), 2 ** len(rest))
    return matrix @ matrix.mH


def purity(rho: Tensor) -> Tensor:
    """Tr rho^2 of density matrices ``(batch, d, d)``: ``(batch,)``, from 1/d (maximally mixed) to 1 (pure)."""
    return rho.abs().square().sum((-2, -1))


def meyer_wallach(state: Tensor) -> Tensor:
    """Meyer-Wallach entanglement 2 (1 - mean_k Tr rho_k^2), ``(batch,)``: 0 for product states, at most 1.

    Source: Meyer and Wallach 2002 (arXiv quant-ph/0108104), in the form of Brennen 2003 (quant-ph/0305094).
    """
    qubits = state.dim() - 1
    purities = torch.stack([purity(reduced_state(state, (wire,))) for wire in range(qubits)])
    return 2 * (1 - purities.mean(0))


def concurrence(rho: Tensor) -> Tensor:
    """Wootters concurrence of two-wire density matrices ``(batch, 4, 4)``: ``(batch,)``, 0 to 1 (Bell states).

    Raises:
        InputError: for matrices of another size.

    Source: Wootters 1998, Phys. Rev. Lett. 80, 2245.
    """
    if rho.dim() != 3 or tuple(rho.shape[1:]) != (4, 4):
        raise InputError(f"expected density matrices of two wires, (batch, 4, 4), got {tuple(rho.shape)}")
    values, vectors = torch.linalg.eigh(rho.to(torch.complex128))
    root = vectors * values.clamp(min=0).sqrt().unsqueeze(-2)  # rho = root root^dagger
    flip = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=torch.complex128, device=rho.device).diag().fliplr()  # Y x Y
    # The singular values are the roots of the eigenvalues of rho (Y x Y) rho* (Y x Y), without squaring them first.
    largest, *others = torch.linalg.svdvals(root.mT @ flip @ root).unbind(-1)
    found: Tensor = (largest - sum(others)).clamp(min=0)
    return found


def _flat(states: Tensor) -> Tensor:
    return states.to(torch.complex128).flatten(1)
