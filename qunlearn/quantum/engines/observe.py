"""Expectation values of Pauli strings from a flat state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.quantum.engines.program import Program


@dataclass(frozen=True, eq=False)
class Observer:
    """Measures all observables of a circuit: strings of I and Z through probabilities, the others one by one.

    Attributes:
        signs: ``(2 * 2**qubits, diagonal observables)``, +1 or -1, each row twice: for the squares of the real and of
            the imaginary part.
        strings: for each other one the permutation and the phases of the Pauli string, ``(2**qubits,)`` each.
        order: the place of each observable among the diagonal and then the other ones; None if unchanged.
        skips_tail: whether the last monomial step is already part of `signs` and need not be applied.
    """

    signs: Tensor
    strings: tuple[tuple[Tensor, Tensor], ...]
    order: Tensor | None
    skips_tail: bool

    def __call__(self, psi: Tensor) -> Tensor:
        """Expectation values, ``(..., observables)`` real, of flat states ``(..., 2**qubits)``."""
        values = []
        if self.signs.shape[1]:
            values.append(torch.view_as_real(psi).flatten(-2).square() @ self.signs)
        for permutation, phase in self.strings:
            moved = psi.index_select(-1, permutation) * phase
            values.append((psi.real * moved.real + psi.imag * moved.imag).sum(-1, keepdim=True))
        joined = values[0] if len(values) == 1 else torch.cat(values, -1)
        return joined if self.order is None else joined.index_select(-1, self.order)


def make_observer(program: Program, dtype: torch.dtype, device: torch.device) -> Observer:
    """The observer of a program's circuit, with a fixed last permutation folded into the signs."""
    observables, tail = program.circuit.observables, program.stages[-1].monomial
    diagonal = [k for k, word in enumerate(observables) if set(word) <= {"I", "Z"}]
    others = [k for k in range(len(observables)) if k not in diagonal]
    size = 2**program.circuit.qubits
    signs = np.zeros((size, len(diagonal)))
    skips = tail is not None and not tail.rates and not others
    source = np.arange(size) if not skips or tail is None or tail.permutation is None else tail.permutation
    for column, k in enumerate(diagonal):
        signs[source, column] = pauli_string(observables[k])[1].real
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    strings = (pauli_string(observables[k]) for k in others)
    return Observer(
        torch.as_tensor(signs.repeat(2, 0), dtype=dtype, device=device),
        tuple(
            (torch.as_tensor(order, device=device), torch.as_tensor(phase, dtype=complex_dtype, device=device))
            for order, phase in strings
        ),
        torch.as_tensor(np.argsort([*diagonal, *others]), device=device) if others and diagonal else None,
        skips,
    )


def pauli_string(word: str) -> tuple[NDArray[np.int64], NDArray[np.complex128]]:
    """(order, phase), each ``(2**wires,)``: the string P acts as (P psi)[i] = phase[i] * psi[order[i]]."""
    order, phase = np.arange(2 ** len(word)), np.ones(2 ** len(word), dtype=np.complex128)
    for wire, letter in enumerate(word):
        place = len(word) - 1 - wire
        sign = 1 - 2 * ((np.arange(2 ** len(word)) >> place) & 1)
        if letter in "XY":
            order = order ^ (1 << place)
        phase = phase * {"I": 1, "X": 1, "Y": -1j * sign, "Z": sign}[letter]
    return order, phase
