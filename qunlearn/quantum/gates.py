"""The gate table: what every gate is, once.

Whoever wraps, compares, dampens or shifts an angle reads the period and the shift rule here.
Matrices act on the gate's wires in order: the first wire is the most significant bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from qunlearn.errors import UnknownNameError

Matrix = NDArray[np.complex128]

_I = np.eye(2, dtype=np.complex128)
_X = np.array([[0, 1], [1, 0]], dtype=np.complex128)
_Y = np.array([[0, -1j], [1j, 0]], dtype=np.complex128)
_Z = np.diag([1, -1]).astype(np.complex128)
_ONE = np.diag([0, 1]).astype(np.complex128)
_H = (_X + _Z) / math.sqrt(2)
PAULI: dict[str, Matrix] = {"I": _I, "X": _X, "Y": _Y, "Z": _Z}

_C1, _C2 = (math.sqrt(2) + 1) / (4 * math.sqrt(2)), (math.sqrt(2) - 1) / (4 * math.sqrt(2))
TWO_TERMS = ((0.5, math.pi / 2), (-0.5, -math.pi / 2))
FOUR_TERMS = (
    (_C1, math.pi / 2),
    (-_C1, -math.pi / 2),
    (-_C2, 3 * math.pi / 2),
    (_C2, -3 * math.pi / 2),
)


@dataclass(frozen=True, eq=False)
class GateSpec:
    """One row of the gate table.

    A gate with an angle is exp(-i angle G / 2) with the Hermitian `generator` G; a fixed gate is its
    `unitary`. `shift_rule` lists (coefficient, shift) pairs: d<O>/d angle is the sum of
    coefficient * <O>(angle + shift), exact for this gate (Schuld et al. 2019, arXiv 1811.11184, for
    two terms; Anselmetti et al. 2021, arXiv 2104.05695, for the four of controlled rotations).

    Attributes:
        name: lower case, as in OpenQASM 3.
        wires: how many wires it acts on.
        unitary: ``(2**wires, 2**wires)``, for a fixed gate.
        generator: ``(2**wires, 2**wires)``, for a gate with an angle.
        period: radians after which every expectation value repeats (2 pi, or 4 pi for controlled rotations).
        shift_rule: the terms of the exact parameter-shift rule.
    """

    name: str
    wires: int
    unitary: Matrix | None = None
    generator: Matrix | None = None
    period: float | None = None
    shift_rule: tuple[tuple[float, float], ...] = ()

    @property
    def has_angle(self) -> bool:
        """Whether the gate takes an angle."""
        return self.generator is not None

    @property
    def diagonal(self) -> bool:
        """Whether the gate is diagonal in the computational basis, at every angle."""
        matrix = self.unitary if self.generator is None else self.generator
        assert matrix is not None
        return bool(np.count_nonzero(matrix - np.diag(np.diag(matrix))) == 0)

    def matrix(self, angle: torch.Tensor | None = None, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
        """The gate's matrix: ``(..., 2**wires, 2**wires)`` for an angle of shape ``(...)`` in radians.

        The angle is brought to the real type that belongs to `dtype` first, so that nothing is computed
        in a narrower one.
        """
        if self.generator is None:
            return torch.as_tensor(self.unitary).to(dtype)
        assert angle is not None
        values, projectors = spectrum(self.name)
        real = torch.float64 if dtype == torch.complex128 else torch.float32
        turn = angle.to(real).unsqueeze(-1) * torch.as_tensor(-values / 2, dtype=real, device=angle.device)
        stack = torch.as_tensor(projectors, dtype=dtype, device=angle.device)
        return torch.einsum("...k,kij->...ij", torch.complex(turn.cos(), turn.sin()), stack)


@cache
def spectrum(name: str) -> tuple[NDArray[np.float64], Matrix]:
    """Distinct eigenvalues ``(k,)`` of a generator and the projectors ``(k, d, d)`` on their spaces."""
    generator = GATES[name].generator
    assert generator is not None
    values, vectors = np.linalg.eigh(generator)
    distinct = np.unique(values.round(12))
    columns = [vectors[:, np.isclose(values, v)] for v in distinct]
    return distinct, np.stack([c @ c.conj().T for c in columns])


def _kron(a: Matrix, b: Matrix) -> Matrix:
    return np.kron(a, b).astype(np.complex128)


def _rotation(name: str, *paulis: Matrix) -> GateSpec:
    generator = paulis[0] if len(paulis) == 1 else _kron(*paulis)
    return GateSpec(name, len(paulis), generator=generator, period=2 * math.pi, shift_rule=TWO_TERMS)


def _phase(name: str, wires: int) -> GateSpec:
    generator = np.zeros((2**wires, 2**wires), dtype=np.complex128)
    generator[-1, -1] = -2  # exp(i angle) on |1...1>
    return GateSpec(name, wires, generator=generator, period=2 * math.pi, shift_rule=TWO_TERMS)


def _controlled_rotation(name: str, pauli: Matrix) -> GateSpec:
    generator = _kron(_ONE, pauli)
    return GateSpec(name, 2, generator=generator, period=4 * math.pi, shift_rule=FOUR_TERMS)


def _controlled(name: str, unitary: Matrix) -> GateSpec:
    return GateSpec(name, 2, unitary=_kron(_I - _ONE, _I) + _kron(_ONE, unitary))


_TABLE = (
    GateSpec("id", 1, unitary=_I),
    GateSpec("x", 1, unitary=_X),
    GateSpec("y", 1, unitary=_Y),
    GateSpec("z", 1, unitary=_Z),
    GateSpec("h", 1, unitary=_H),
    GateSpec("s", 1, unitary=np.diag([1, 1j])),
    GateSpec("sdg", 1, unitary=np.diag([1, -1j])),
    GateSpec("t", 1, unitary=np.diag([1, np.exp(0.25j * np.pi)])),
    GateSpec("tdg", 1, unitary=np.diag([1, np.exp(-0.25j * np.pi)])),
    GateSpec("sx", 1, unitary=np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]], dtype=np.complex128) / 2),
    _rotation("rx", _X),
    _rotation("ry", _Y),
    _rotation("rz", _Z),
    _phase("p", 1),
    _controlled("cx", _X),
    _controlled("cy", _Y),
    _controlled("cz", _Z),
    _controlled("ch", _H),
    GateSpec("swap", 2, unitary=np.eye(4, dtype=np.complex128)[[0, 2, 1, 3]]),
    _controlled_rotation("crx", _X),
    _controlled_rotation("cry", _Y),
    _controlled_rotation("crz", _Z),
    _phase("cp", 2),
    _rotation("rxx", _X, _X),
    _rotation("ryy", _Y, _Y),
    _rotation("rzz", _Z, _Z),
)
GATES: dict[str, GateSpec] = {spec.name: spec for spec in _TABLE}


def gate(name: str) -> GateSpec:
    """The row of the gate table for a name; an unknown name raises, and the error names the nearest."""
    try:
        return GATES[name]
    except KeyError:
        raise UnknownNameError("gate", name, GATES) from None
