"""Holevo information of the states that a circuit's measurement sees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qunlearn.evaluation.audit.subject import Subject
from qunlearn.quantum.circuit import Circuit
from qunlearn.quantum.layer import QuantumLayer
from qunlearn.quantum.states import reduced_state

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
TINY = 1e-12


def holevo_by_sample(subject: Subject, rows: dict[str, npt.NDArray[np.int64]], member: Flags) -> Floats | str:
    """Contributions of the samples ``(n,)`` to the Holevo information of the measured states about membership, nats.

    The ensemble is the given samples, equally likely. Where all observables are products of Z, the measured state of a
    sample is the distribution of outcomes on the wires that they touch, otherwise the reduced state of these wires.

    Args:
        subject: the model.
        rows: which samples of which set, in the order of `member`.
        member: which of them belong to the forget set.

    Returns:
        A sentence's end that says why, where there are no states.
    """
    states = [subject.states(name) for name in rows]
    if any(part is None for part in states):
        return subject.stateless or "the model has no states"
    layer = subject.middle
    assert isinstance(layer, QuantumLayer)
    chosen = [part[torch.from_numpy(rows[name])] for name, part in zip(rows, states, strict=True) if part is not None]
    return contributions(measured(torch.cat(chosen), layer.circuit), member)


def measured(states: Tensor, circuit: Circuit) -> Tensor:
    """What the circuit's observables see of states: distributions ``(n, d)``, or density matrices ``(n, d, d)``."""
    words = circuit.observables
    wires = [wire for wire in range(circuit.qubits) if any(word[wire] != "I" for word in words)]
    if set("".join(words)) <= {"I", "Z"}:
        chances = states.abs().square()
        rest = [wire + 1 for wire in range(circuit.qubits) if wire not in wires]
        return (chances.sum(rest) if rest else chances).flatten(1)
    return reduced_state(states, wires)


def contributions(ensemble: Tensor, member: Flags) -> Floats:
    """Terms of each member of an ensemble whose mean is chi = S(mean rho) - sum_y p_y S(mean rho of group y), nats.

    Term i is Tr rho_i (ln rho_y(i) - ln rho), rho the mean of all and rho_y that of its group: to first order what
    chi changes by with the weight of sample i, so that their spread is that of chi.

    Args:
        ensemble: distributions ``(n, d)`` or density matrices ``(n, d, d)``.
        member: the group of each ``(n,)``.
    """
    groups = torch.from_numpy(member)
    whole = _logarithm(ensemble.mean(0))
    logs = {flag: _logarithm(ensemble[groups == flag].mean(0)) - whole for flag in (True, False)}
    terms = torch.empty(len(ensemble), dtype=torch.float64)
    for flag, log in logs.items():
        here = groups == flag
        terms[here] = (ensemble[here] * (log if log.dim() == 1 else log.T)).flatten(1).sum(1).real
    return terms.numpy()


def _logarithm(state: Tensor) -> Tensor:
    """Logarithm of a distribution or a density matrix, 0 where it has no support: no member of the ensemble has any."""
    if state.dim() == 1:
        return torch.where(state > TINY, state.clamp_min(TINY).log(), 0.0)
    values, vectors = torch.linalg.eigh(state)
    logs = torch.where(values > TINY, values.clamp_min(TINY).log(), 0.0).to(vectors.dtype)
    found: Tensor = (vectors * logs) @ vectors.mH
    return found
