"""How well a measurement tells ensembles of quantum states apart: fitted on some samples, scored on the others.

An ensemble is pure states, a row a sample: complex ``(n, 2**qubits)`` or ``(n, 2, ..., 2)``, axis i + 1 for wire i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Labels, Values, labels
from qunlearn.metrics.folds import deal
from qunlearn.metrics.membership import class_weights
from qunlearn.metrics.statistics import Bounds

Complexes = npt.NDArray[np.complex128]
Wires = int | Sequence[int] | None
Strata = tuple[Values, Values] | None
Plan = list[tuple[Labels, Labels]]

HALVINGS = 5
PERMUTATIONS = 49
TINY = 1e-7  # of the largest eigenvalue: below it lies the rounding of states kept in single precision


class Advantage(NamedTuple):
    """A cross-fitted advantage.

    Attributes:
        bounds: its value in [-1, 1], 0 for nothing told and at times below, with a 95 % interval; NaN for no value.
        pairs: on how many pairs of samples a halving rests.
    """

    bounds: Bounds
    pairs: int


class Null(NamedTuple):
    """What the cross-fitted advantage is where there is nothing to tell.

    Attributes:
        values: of every permutation ``(permutations,)``.
        p_value: (1 + permutations with at least the advantage found) / (1 + permutations); uniform where both
            ensembles are samples of one.
    """

    values: Array
    p_value: float


class Ensembles(NamedTuple):
    """Two ensembles one below the other, as measurements see them.

    Attributes:
        rows: coordinates of pure states ``(n, d)``, or density matrices of marginals ``(n, marginals, d, d)``.
        first: how many of the samples are the first ensemble's.
        strata: class numbers ``(n,)`` within which samples are paired and exchanged.
    """

    rows: Complexes
    first: int
    strata: Labels


def trace_distance(rho: Values, sigma: Values) -> float:
    """(1/2) ||rho - sigma||_1 of two density matrices ``(d, d)``: in [0, 1], half the sum of absolute eigenvalues.

    Raises:
        InputError: for other shapes.
    """
    one, other = _complex(rho), _complex(sigma)
    if one.ndim != 2 or one.shape != other.shape or one.shape[0] != one.shape[1]:
        raise InputError(f"expected two density matrices (d, d), got {one.shape} and {other.shape}")
    return float(np.abs(np.linalg.eigvalsh(one - other)).sum() / 2)


def helstrom_advantage(rho: Values, sigma: Values) -> float:
    """What the best measurement gains over guessing which of two equally likely states is there: 2 P(right) - 1.

    It is their trace distance, reached by the projector on the positive part of rho - sigma. Between means of samples
    it is a plug-in value, far above 0 for two samples of one ensemble: see `helstrom_crossfit`.

    Source: Helstrom 1969, Journal of Statistical Physics 1, 231; for pure states sqrt(1 - fidelity).
    """
    return trace_distance(rho, sigma)


def helstrom_crossfit(
    states_a: Values,
    states_b: Values,
    *,
    wires: Wires = None,
    strata: Strata = None,
    seed: int = 0,
    halvings: int = HALVINGS,
) -> float:
    """The advantage of a measurement that is fitted on one half of the samples and scored on the other half.

    (1/2) Tr S (mean rho_a - mean rho_b) over the half scored, S = sign(mean rho_a - mean rho_b) of the half fitted (0
    where that has no part: a measurement that saw nothing guesses). Both ways, averaged over random halvings. Every
    halving pairs samples of a and b of one stratum at random and deals the pairs out, so that both sides have the same
    size and classes. Its mean is 0 where there is nothing to tell, and at most the true `helstrom_advantage`, to which
    it rises with the number of samples.

    Args:
        states_a: pure states ``(n, 2**qubits)`` or ``(n, 2, ..., 2)``.
        states_b: of the same width; any number of them.
        wires: None for the whole register; some wires for their marginal; a number k for the marginal of k wires that
            tells most, chosen on the half fitted.
        strata: class numbers of both ``(n,)``, of which a sample is paired with its like; None pairs all.
        seed: of the halvings; the same seed gives the same value.
        halvings: how many.

    Returns:
        In [-1, 1]; NaN for fewer than two pairs.

    Raises:
        InputError: for states of different widths, or wires that are not there.
    """
    found = helstrom_scores(states_a, states_b, wires=wires, strata=strata, seed=seed, halvings=halvings)
    return found.bounds.value


def helstrom_scores(
    states_a: Values,
    states_b: Values,
    *,
    wires: Wires = None,
    strata: Strata = None,
    seed: int = 0,
    halvings: int = HALVINGS,
) -> Advantage:
    """`helstrom_crossfit` with a 95 % interval, for other samples of the same size.

    Student's interval of the scores Tr S rho of the samples, sqrt 2 times as wide: the measurements of two halves hold
    each other's samples, which doubles the variance where there is nothing to tell.
    """
    both = ensembles(states_a, states_b, wires, strata)
    scores, counts = _scored(both, np.arange(len(both.rows)), _planned(both, seed, halvings))
    pairs = int(counts[: both.first].sum()) // halvings
    if not pairs:
        return Advantage(Bounds(np.nan, np.nan, np.nan), pairs)
    means, errors = zip(*(_weighted(scores[one], counts[one]) for one in _sides(both)), strict=True)
    value = (means[0] - means[1]) / 2
    return Advantage(_student(value, np.sqrt(2) * float(np.hypot(*errors)) / 2, pairs - 1, (-1, 1)), pairs)


def helstrom_null(
    states_a: Values,
    states_b: Values,
    *,
    wires: Wires = None,
    strata: Strata = None,
    seed: int = 0,
    halvings: int = HALVINGS,
    permutations: int = PERMUTATIONS,
) -> Null:
    """The same figure after samples of a and b changed places at random within each stratum, and its p-value.

    Takes what `helstrom_crossfit` takes, and at least one permutation. NaN for fewer than two pairs.

    Source: Phipson and Smyth 2010, arXiv 1603.05766 (the p-value, which is never 0).
    """
    if permutations < 1:
        raise InputError(f"permutations: expected at least 1, got {permutations}")
    both = ensembles(states_a, states_b, wires, strata)
    random, plan = np.random.default_rng([seed, 1]), _planned(both, seed, halvings)
    found = _value(both, np.arange(len(both.rows)), plan)
    values = np.array([_value(both, _exchanged(both, random), plan) for _ in range(permutations)])
    if np.isnan(found):
        return Null(values, float("nan"))
    return Null(values, float(1 + (values >= found).sum()) / (1 + permutations))


def helstrom_plugin(states_a: Values, states_b: Values, *, wires: Wires = None, strata: Strata = None) -> float:
    """The advantage between the samples' own means, fitted and scored on all: an upper figure and no estimate.

    It is far above 0 for two samples of one ensemble. Classes are matched by weights; for a number of wires it is the
    largest of all marginals. In [0, 1]; NaN where no class is on both sides.
    """
    both = ensembles(states_a, states_b, wires, strata)
    ours, theirs = class_weights(*(both.strata[one] for one in _sides(both)))
    if not min(ours.sum(), theirs.sum()) > 0:
        return float("nan")
    weights = np.concatenate([ours / ours.sum(), -theirs / theirs.sum()])
    return float(np.abs(_spectrum(both.rows, weights)[0]).sum(-1).max() / 2)


def pretty_good_measurement(states_by_class: Sequence[Values], *, seed: int = 0, halvings: int = HALVINGS) -> float:
    """How often a measurement fitted on half of the samples names the class of the others: 1 / classes is guessing.

    The pretty good measurement of the fitted half, M_c = rho^(-1/2) rho_c rho^(-1/2) / classes with rho_c the mean
    state of class c and rho the mean of all; where rho has no part it guesses. Both ways, averaged over random
    halvings, every class alike. Of the true mean states the best measurement is right at most sqrt(P) of the time, P
    being this one's share; a share found from samples bounds nothing.

    Args:
        states_by_class: pure states of each class ``(n_c, 2**qubits)``, at least two of each.
        seed: of the halvings.
        halvings: how many.

    Returns:
        In [0, 1].

    Raises:
        InputError: for fewer than two classes, or two samples of one.

    Source: Hausladen and Wootters 1994, Journal of Modern Optics 41, 2385; Barnum and Knill 2002, quant-ph/0004088.
    """
    return float(np.mean([own.mean() for own in pretty_good_scores(states_by_class, seed=seed, halvings=halvings)]))


def pretty_good_scores(states_by_class: Sequence[Values], *, seed: int = 0, halvings: int = HALVINGS) -> list[Array]:
    """By class the probability with which `pretty_good_measurement` names each sample's class rightly, ``(n_c,)``."""
    parts = [_states(own, "states") for own in states_by_class]
    sizes = [len(own) for own in parts]
    if len(parts) < 2 or min(sizes) < 2 or len({own.shape[1] for own in parts}) > 1:
        raise InputError(f"expected states of one width, two or more of each of two or more classes, got {sizes}")
    rows, classes = _shortened(np.concatenate(parts)), np.repeat(np.arange(len(parts)), sizes)
    random, found = np.random.default_rng(seed), np.zeros(len(rows))
    for _ in range(halvings):
        half = _halves(classes, random)
        for fitted in (half, ~half):
            found[~fitted] += _named(rows, classes, fitted, len(parts))
    return np.split(found / halvings, np.cumsum(sizes)[:-1])


def ensembles(states_a: Values, states_b: Values, wires: Wires = None, strata: Strata = None) -> Ensembles:
    """Both ensembles as the measurements of some wires see them.

    Raises:
        InputError: for states of different widths, or wires that are not there.
    """
    one, other = _states(states_a, "states_a"), _states(states_b, "states_b")
    if one.shape[1] != other.shape[1]:
        raise InputError(f"expected states of one width, got {one.shape[1]} and {other.shape[1]}")
    together = np.concatenate([one, other])
    rows = _shortened(together) if wires is None else _marginals(together, wires)
    if strata is None:
        return Ensembles(rows, len(one), np.zeros(len(rows), dtype=np.int64))
    groups = [labels(own, len(part), "strata") for own, part in zip(strata, (one, other), strict=True)]
    return Ensembles(rows, len(one), np.concatenate(groups))


def _value(both: Ensembles, order: Labels, plan: Plan) -> float:
    """The cross-fitted advantage of the samples in that order, the first ensemble first."""
    scores, counts = _scored(both, order, plan)
    total = counts[: both.first].sum()
    if not total:
        return float("nan")
    return float((scores[: both.first].sum() - scores[both.first :].sum()) / (2 * total))


def _scored(both: Ensembles, order: Labels, plan: Plan) -> tuple[Array, Labels]:
    """Sums of the scores of every place ``(n,)``, each by a measurement that never saw it, and how often it has one."""
    scores, counts = np.zeros(len(order)), np.zeros(len(order), dtype=np.int64)
    for some, away in plan:
        weights = np.repeat([1.0, -1.0], len(some) // 2) * 2 / len(some)
        scores[away] += _read(both.rows[order[some]], weights, both.rows[order[away]])
        counts[away] += 1
    return scores, counts


def _planned(both: Ensembles, seed: int, halvings: int) -> Plan:
    """Places of the samples to fit and to score, of each the first ensemble's before the second's; none of one pair."""
    random, plan = np.random.default_rng([seed, 0]), []
    for _ in range(halvings):
        ours, theirs = _pairs(both, random)
        if len(ours) < 2:
            return []
        half = _halves(both.strata[ours], random)
        one, other = (np.concatenate([ours[part], theirs[part]]) for part in (half, ~half))
        plan += [(one, other), (other, one)]
    return plan


def _pairs(both: Ensembles, random: np.random.Generator) -> tuple[Labels, Labels]:
    """Places of as many pairs as can be made, each of a sample of either side and one stratum, drawn at random."""
    ours, theirs = [], []
    for number in np.unique(both.strata):
        sides = [one.start + np.flatnonzero(both.strata[one] == number) for one in _sides(both)]
        count = min(map(len, sides))
        ours.append(random.permutation(sides[0])[:count])
        theirs.append(random.permutation(sides[1])[:count])
    return np.concatenate(ours), np.concatenate(theirs)


def _halves(strata: Labels, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = deal(strata, 2, random) == 0
    return found


def _exchanged(both: Ensembles, random: np.random.Generator) -> Labels:
    """An order of the samples in which those of a stratum have changed places at random."""
    order = np.arange(len(both.rows))
    for number in np.unique(both.strata):
        own = np.flatnonzero(both.strata == number)
        order[own] = random.permutation(own)
    return order


def _read(rows: Complexes, weights: Array, others: Complexes) -> Array:
    """Tr S rho of other samples ``(m,)``, S the sign of the weighted sum of some samples' states."""
    values, vectors = _spectrum(rows, weights)
    if rows.ndim == 2:
        chances = np.square(np.abs(others @ vectors.conj()))
        return np.asarray(chances @ _sign(values), dtype=np.float64)
    best = int(np.abs(values).sum(-1).argmax())
    sign = (vectors[best] * _sign(values[best])) @ vectors[best].conj().T
    return np.asarray(np.einsum("nij,ji->n", others[:, best], sign).real, dtype=np.float64)


def _sign(values: Array) -> Array:
    return np.where(np.abs(values) > TINY * np.abs(values).max(), np.sign(values), 0.0)


def _spectrum(rows: Complexes, weights: Array) -> tuple[Array, Complexes]:
    """Eigenvalues and eigenvectors of a weighted sum of states; of few pure ones in their span."""
    if rows.ndim == 4:
        values, vectors = np.linalg.eigh(np.tensordot(weights, rows, 1))
        return values, vectors
    if 2 * len(rows) >= rows.shape[1]:
        values, vectors = np.linalg.eigh((rows.T * weights) @ rows.conj())
        return values, vectors
    basis, inside = np.linalg.qr(rows.T)
    values, vectors = np.linalg.eigh((inside * weights) @ inside.conj().T)
    return values, basis @ vectors


def _named(rows: Complexes, classes: Labels, fitted: npt.NDArray[np.bool_], number: int) -> Array:
    """Probabilities of the right class for the samples that were not fitted."""
    own, known = rows[fitted], classes[fitted]
    weights = 1 / (np.bincount(known, minlength=number)[known] * number)
    values, vectors = np.linalg.eigh((own.T * weights) @ own.conj())
    root = np.where(values > TINY * values.max(), 1 / np.sqrt(np.maximum(values, 1e-300)), 0.0)
    # <x| rho^(-1/2) |x_i>: their squares, summed over the samples i of a class, are the chances of that class.
    chances = np.square(np.abs((rows[~fitted].conj() @ vectors * root) @ (vectors.conj().T @ own.T))) * weights
    right = (chances * (classes[~fitted][:, None] == known)).sum(1)
    return np.asarray(right + (1 - chances.sum(1)) / number, dtype=np.float64)


def _shortened(rows: Complexes) -> Complexes:
    """Coordinates ``(n, n)`` in the span of the samples, where the space is much wider; all overlaps are the same."""
    if rows.shape[1] <= 2 * len(rows):
        return rows
    values, vectors = np.linalg.eigh(rows @ rows.conj().T)
    found: Complexes = vectors * np.sqrt(np.maximum(values, 0.0))
    return found


def _marginals(rows: Complexes, wires: Wires) -> Complexes:
    """Reduced states ``(n, marginals, 2**k, 2**k)`` of some wires, or of every choice of so many."""
    qubits = int(np.log2(rows.shape[1]).round())
    if 2**qubits != rows.shape[1]:
        raise InputError(f"expected states of 2**qubits numbers to speak of wires, got {rows.shape[1]}")
    if isinstance(wires, int):
        if wires < 1:
            raise InputError(f"wires: expected at least 1, got {wires}")
        chosen = list(combinations(range(qubits), min(wires, qubits)))
    else:
        chosen = [tuple(wires or ())]
    tensor = rows.reshape(-1, *(2,) * qubits)
    return np.stack([_reduced(tensor, own) for own in chosen], axis=1)


def _reduced(tensor: Complexes, wires: Sequence[int]) -> Complexes:
    qubits = tensor.ndim - 1
    if not wires or len(set(wires)) != len(wires) or not all(0 <= wire < qubits for wire in wires):
        raise InputError(f"expected different wires from 0 to {qubits - 1}, got {list(wires)}")
    ordered = np.moveaxis(tensor, [wire + 1 for wire in wires], range(1, len(wires) + 1))
    matrix = ordered.reshape(len(tensor), 2 ** len(wires), -1)
    found: Complexes = matrix @ matrix.conj().swapaxes(1, 2)
    return found


def _sides(both: Ensembles) -> Iterator[slice]:
    yield slice(0, both.first)
    yield slice(both.first, len(both.rows))


def _weighted(sums: Array, counts: Labels) -> tuple[float, float]:
    """Mean of all scores of a side, and its standard error: the spread of the samples' own means."""
    known = counts > 0
    shares = counts[known] / counts.sum()
    own = sums[known] / counts[known]
    centre = float(shares @ own)
    number = len(own)
    variance = float(np.square(shares * (own - centre)).sum()) * (number / (number - 1) if number > 1 else np.nan)
    return centre, float(np.sqrt(variance))


def _student(value: float, error: float, freedom: int, limits: tuple[float, float]) -> Bounds:
    from scipy.stats import t

    half = float(t.ppf(0.975, freedom)) * error if freedom > 0 else float("nan")
    low, high = np.clip([value - half, value + half], *limits)
    return Bounds(value, float(low), float(high))


def _complex(values: Values) -> Complexes:
    array: npt.NDArray[Any] = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return array.astype(np.complex128)


def _states(values: Values, name: str) -> Complexes:
    array = _complex(values)
    if array.ndim < 2:
        raise InputError(f"{name}: expected pure states (samples, 2**qubits), got {array.shape}")
    return array.reshape(len(array), -1)
