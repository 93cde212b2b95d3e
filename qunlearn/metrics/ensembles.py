"""Ensembles of quantum states, as measurements of some wires see them.

An ensemble is pure states, a row a sample: complex ``(n, 2**qubits)`` or ``(n, 2, ..., 2)``, axis i + 1 for wire i; or
density matrices ``(n, d, d)`` with d above 2, wire 0 most significant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Labels, Values, labels
from qunlearn.metrics.folds import deal

Complexes = npt.NDArray[np.complex128]
Wires = int | Sequence[int] | None
Strata = tuple[Values, Values] | None

HALVINGS = 5
TINY = 1e-7  # of the largest eigenvalue: below it lies the rounding of states kept in single precision


class Ensembles(NamedTuple):
    """Two ensembles one below the other, as measurements see them.

    Attributes:
        rows: coordinates of pure states ``(n, d)``, or density matrices ``(n, marginals, d, d)`` of the whole register
            or of some wires.
        first: how many of the samples are the first ensemble's.
        strata: class numbers ``(n,)`` within which samples are paired and exchanged.
    """

    rows: Complexes
    first: int
    strata: Labels


def ensembles(states_a: Values, states_b: Values, wires: Wires = None, strata: Strata = None) -> Ensembles:
    """Both ensembles as the measurements of some wires see them.

    Raises:
        InputError: for states of different widths, or wires that are not there.
    """
    one, other = _rows(states_a, "states_a"), _rows(states_b, "states_b")
    if one.shape[1:] != other.shape[1:]:
        raise InputError(f"expected states of one kind and one width, got {one.shape[1:]} and {other.shape[1:]}")
    together = np.concatenate([one, other])
    if together.ndim == 3:
        rows = together[:, None] if wires is None else _traced(together, wires)
    else:
        rows = shortened(together) if wires is None else _marginals(together, wires)
    if strata is None:
        return Ensembles(rows, len(one), np.zeros(len(rows), dtype=np.int64))
    groups = [labels(own, len(part), "strata") for own, part in zip(strata, (one, other), strict=True)]
    return Ensembles(rows, len(one), np.concatenate(groups))


def pairs(both: Ensembles, random: np.random.Generator) -> tuple[Labels, Labels]:
    """Places of as many pairs as can be made, each of a sample of either side and one stratum, drawn at random."""
    ours, theirs = [], []
    for number in np.unique(both.strata):
        places = [one.start + np.flatnonzero(both.strata[one] == number) for one in sides(both)]
        count = min(map(len, places))
        ours.append(random.permutation(places[0])[:count])
        theirs.append(random.permutation(places[1])[:count])
    return np.concatenate(ours), np.concatenate(theirs)


def halves(strata: Labels, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which samples are of the first half; every stratum is halved."""
    found: npt.NDArray[np.bool_] = deal(strata, 2, random) == 0
    return found


def exchanged(both: Ensembles, random: np.random.Generator) -> Labels:
    """An order of the samples in which those of a stratum have changed places at random."""
    order = np.arange(len(both.rows))
    for number in np.unique(both.strata):
        own = np.flatnonzero(both.strata == number)
        order[own] = random.permutation(own)
    return order


def sides(both: Ensembles) -> Iterator[slice]:
    """Where the first ensemble stands, and where the second."""
    yield slice(0, both.first)
    yield slice(both.first, len(both.rows))


def pure_states(values: Values, name: str) -> Complexes:
    """States as rows ``(n, 2**qubits)``.

    Raises:
        InputError: for a single state.
    """
    array = complexes(values)
    if array.ndim < 2:
        raise InputError(f"{name}: expected pure states (samples, 2**qubits), got {array.shape}")
    return array.reshape(len(array), -1)


def complexes(values: Values) -> Complexes:
    """The numbers of a tensor or an array, in double precision."""
    array: npt.NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return array.astype(np.complex128)


def shortened(rows: Complexes) -> Complexes:
    """Coordinates ``(n, n)`` in the span of the samples, where the space is much wider; all overlaps are the same."""
    if rows.shape[1] <= 2 * len(rows):
        return rows
    values, vectors = np.linalg.eigh(rows @ rows.conj().T)
    found: Complexes = vectors * np.sqrt(np.maximum(values, 0.0))
    return found


def _rows(values: Values, name: str) -> Complexes:
    """Pure states ``(n, 2**qubits)`` or density matrices ``(n, d, d)``."""
    array = complexes(values)
    if array.ndim == 3 and array.shape[1] == array.shape[2] > 2:
        return array
    return pure_states(values, name)


def _marginals(rows: Complexes, wires: Wires) -> Complexes:
    """Reduced states ``(n, marginals, 2**k, 2**k)`` of some wires, or of every choice of so many."""
    qubits = _qubits(rows)
    tensor = rows.reshape(-1, *(2,) * qubits)
    return np.stack([_reduced(tensor, own) for own in _chosen(wires, qubits)], axis=1)


def _traced(rows: Complexes, wires: Wires) -> Complexes:
    """The same of density matrices."""
    qubits = _qubits(rows)
    tensor = rows.reshape(-1, *(2,) * (2 * qubits))
    found = []
    for own in _chosen(wires, qubits):
        rest = [wire for wire in range(qubits) if wire not in own]
        order = [side * qubits + wire + 1 for side in (0, 1) for wire in (*own, *rest)]
        blocks = tensor.transpose(0, *order).reshape(-1, *(2 ** len(own), 2 ** len(rest)) * 2)
        found.append(np.einsum("naibi->nab", blocks))
    return np.stack(found, axis=1)


def _qubits(rows: Complexes) -> int:
    qubits = int(np.log2(rows.shape[1]).round())
    if 2**qubits != rows.shape[1]:
        raise InputError(f"expected states of 2**qubits numbers to speak of wires, got {rows.shape[1]}")
    return qubits


def _chosen(wires: Wires, qubits: int) -> list[tuple[int, ...]]:
    """The groups of wires that are looked at."""
    if isinstance(wires, int):
        if wires < 1:
            raise InputError(f"wires: expected at least 1, got {wires}")
        return list(combinations(range(qubits), min(wires, qubits)))
    own = tuple(wires or ())
    if not own or len(set(own)) != len(own) or not all(0 <= wire < qubits for wire in own):
        raise InputError(f"expected different wires from 0 to {qubits - 1}, got {list(own)}")
    return [own]


def _reduced(tensor: Complexes, wires: Sequence[int]) -> Complexes:
    ordered = np.moveaxis(tensor, [wire + 1 for wire in wires], range(1, len(wires) + 1))
    matrix = ordered.reshape(len(tensor), 2 ** len(wires), -1)
    found: Complexes = matrix @ matrix.conj().swapaxes(1, 2)
    return found
