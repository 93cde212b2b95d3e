"""Entanglement patterns: which pairs of wires a layer of two-qubit gates joins, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from qunlearn.errors import InputError, UnknownNameError

Pairs = tuple[tuple[int, int], ...]


def _linear(qubits: int) -> Pairs:
    return tuple((i, i + 1) for i in range(qubits - 1))


def _ring(qubits: int) -> Pairs:
    # Two qubits have one neighbour each: a second gate on the same pair would undo a CZ.
    return _linear(qubits) + (((qubits - 1, 0),) if qubits > 2 else ())


_BUILDERS: dict[str, Callable[[int], Pairs]] = {
    "none": lambda qubits: (),
    "linear": _linear,
    "reverse-linear": lambda qubits: _linear(qubits)[::-1],
    "ring": _ring,
    "all": lambda qubits: tuple((i, j) for i in range(qubits) for j in range(i + 1, qubits)),
    "star": lambda qubits: tuple((0, i) for i in range(1, qubits)),
    "pairs": lambda qubits: tuple((i, i + 1) for i in range(0, qubits - 1, 2)),
}
PATTERNS: tuple[str, ...] = tuple(_BUILDERS)


def pairs(pattern: str, qubits: int) -> Pairs:
    """The (first, second) wires of every two-qubit gate of a pattern, in program order.

    `linear`: (0, 1), (1, 2), ...; `reverse-linear`: the same from the end; `ring`: linear, then
    (n-1, 0), on two wires the one pair (0, 1); `all`: every i < j; `star`: (0, i); `pairs`: the
    disjoint (0, 1), (2, 3), ...; `none`: nothing. The first wire is the control.

    Raises:
        UnknownNameError: for a pattern that is not in `PATTERNS`.
        InputError: for fewer than one qubit.
    """
    if pattern not in _BUILDERS:
        raise UnknownNameError("entanglement pattern", pattern, PATTERNS)
    if qubits < 1:
        raise InputError(f"expected at least 1 qubit, got {qubits}")
    return _BUILDERS[pattern](qubits)
