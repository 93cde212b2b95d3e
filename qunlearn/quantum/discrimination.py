"""How well a measurement tells the states of two sets apart, as an objective: with gradients through the states."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.quantum.states import reduced_state

TINY = 1e-7  # of the largest eigenvalue: see `metrics.ensembles`


def crossfit_advantage(
    states_a: Tensor,
    states_b: Tensor,
    *,
    wires: int | Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The advantage (`metrics.helstrom_crossfit`) of measurements fitted on one half of the pairs, scored on the other.

    Row i of one set is paired with row i of the other (of its class, where classes are to be matched); one random
    halving, both ways. The gradient goes through the states that are scored and holds the measurement fixed, as the
    derivative of the best measurement's own advantage does (the envelope theorem). Where nothing is left to tell it is
    0 in the mean, and scatters: the aim is the value of retrained models and never the least that can be had.

    Args:
        states_a: pure states ``(n, 2, ..., 2)``, at least two.
        states_b: of the same shape.
        wires: None for the whole register; some wires for their marginal; a number k for the marginal of k wires that
            tells most on the half fitted.
        generator: deals the halves; None for the default one.

    Returns:
        A real scalar in [-1, 1], in double precision.

    Raises:
        InputError: for other shapes, fewer than two pairs, or wires that are not there.
    """
    if states_a.shape != states_b.shape or len(states_a) < 2 or set(states_a.shape[1:]) != {2}:
        got = f"{tuple(states_a.shape)} and {tuple(states_b.shape)}"
        raise InputError(f"expected two or more pairs of states (n, 2, ..., 2), got {got}")
    order = torch.randperm(len(states_a), generator=generator).to(states_a.device)
    ours, theirs = states_a.to(torch.complex128)[order], states_b.to(torch.complex128)[order]
    halves = [(ours[part], theirs[part]) for part in (slice(0, len(order) // 2), slice(len(order) // 2, None))]
    total = torch.zeros((), dtype=torch.float64, device=states_a.device)
    for fitted, scored in (halves, halves[::-1]):
        total = total + _gain(_signs(fitted[0].detach(), fitted[1].detach(), wires), *scored) * len(scored[0])
    return total / len(order)


Sign = tuple[tuple[int, ...] | None, Tensor, Tensor]
"""Wires (None for all), signs ``(r,)`` and orthonormal vectors ``(d, r)`` of a measurement."""


def _signs(ours: Tensor, theirs: Tensor, wires: int | Sequence[int] | None) -> Sign:
    """The best measurement of the mean states' difference."""
    if wires is None:
        rows = torch.cat([ours, theirs]).flatten(1)
        weights = torch.cat([torch.full((len(ours),), sign / len(ours), device=rows.device) for sign in (1.0, -1.0)])
        basis, inside = torch.linalg.qr(rows.T)
        values, vectors = torch.linalg.eigh((inside * weights) @ inside.mH)
        return None, _sign(values), basis @ vectors
    qubits = ours.dim() - 1
    choices = combinations(range(qubits), min(wires, qubits)) if isinstance(wires, int) else [tuple(wires)]
    found = []
    for chosen in choices:
        values, vectors = torch.linalg.eigh(reduced_state(ours, chosen).mean(0) - reduced_state(theirs, chosen).mean(0))
        found.append((float(values.abs().sum()), (chosen, _sign(values), vectors)))
    return max(found, key=lambda one: one[0])[1]


def _gain(sign: Sign, ours: Tensor, theirs: Tensor) -> Tensor:
    """(1/2) Tr S (mean rho_a - mean rho_b)."""
    wires, signs, vectors = sign
    means = []
    for states in (ours, theirs):
        if wires is None:
            chances = (states.flatten(1) @ vectors.conj()).abs().square()
        else:
            rho = reduced_state(states, wires)
            chances = (vectors.mH @ rho @ vectors).diagonal(dim1=1, dim2=2).real
        means.append((chances @ signs).mean())
    return (means[0] - means[1]) / 2


def _sign(values: Tensor) -> Tensor:
    return torch.where(values.abs() > TINY * values.abs().max(), values.sign(), 0.0)
