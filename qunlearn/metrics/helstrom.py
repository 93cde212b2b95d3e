"""How well a measurement tells two ensembles of quantum states apart: fitted on some samples, scored on the others.

An ensemble is pure states, a row a sample: complex ``(n, 2**qubits)`` or ``(n, 2, ..., 2)``, axis i + 1 for wire i; or
density matrices ``(n, d, d)`` with d above 2, wire 0 most significant (``(n, 2, 2)`` is pure states of two wires).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Labels, Values
from qunlearn.metrics.ensembles import (
    HALVINGS,
    TINY,
    Complexes,
    Ensembles,
    Strata,
    Wires,
    complexes,
    ensembles,
    exchanged,
    halves,
    pairs,
    sides,
)
from qunlearn.metrics.membership import class_weights
from qunlearn.metrics.statistics import Bounds

Plan = list[tuple[Labels, Labels]]

PERMUTATIONS = 49


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


def trace_distance(rho: Values, sigma: Values) -> float:
    """(1/2) ||rho - sigma||_1 of two density matrices ``(d, d)``: in [0, 1], half the sum of absolute eigenvalues.

    Raises:
        InputError: for other shapes.
    """
    one, other = complexes(rho), complexes(sigma)
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
        states_a: pure states ``(n, 2**qubits)`` or ``(n, 2, ..., 2)``, or density matrices ``(n, d, d)``, d above 2.
        states_b: likewise, of the same width; any number of them.
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
    count = int(counts[: both.first].sum()) // halvings
    if not count:
        return Advantage(Bounds(np.nan, np.nan, np.nan), count)
    means, errors = zip(*(_weighted(scores[one], counts[one]) for one in sides(both)), strict=True)
    value = (means[0] - means[1]) / 2
    return Advantage(_student(value, np.sqrt(2) * float(np.hypot(*errors)) / 2, count - 1, (-1, 1)), count)


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
    values = np.array([_value(both, exchanged(both, random), plan) for _ in range(permutations)])
    if np.isnan(found):
        return Null(values, float("nan"))
    return Null(values, float(1 + (values >= found).sum()) / (1 + permutations))


def helstrom_plugin(states_a: Values, states_b: Values, *, wires: Wires = None, strata: Strata = None) -> float:
    """The advantage between the samples' own means, fitted and scored on all: an upper figure and no estimate.

    It is far above 0 for two samples of one ensemble. Classes are matched by weights; for a number of wires it is the
    largest of all marginals. In [0, 1]; NaN where no class is on both sides.
    """
    both = ensembles(states_a, states_b, wires, strata)
    ours, theirs = class_weights(*(both.strata[one] for one in sides(both)))
    if not min(ours.sum(), theirs.sum()) > 0:
        return float("nan")
    weights = np.concatenate([ours / ours.sum(), -theirs / theirs.sum()])
    return float(np.abs(_spectrum(both.rows, weights)[0]).sum(-1).max() / 2)


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
        ours, theirs = pairs(both, random)
        if len(ours) < 2:
            return []
        half = halves(both.strata[ours], random)
        one, other = (np.concatenate([ours[part], theirs[part]]) for part in (half, ~half))
        plan += [(one, other), (other, one)]
    return plan


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
