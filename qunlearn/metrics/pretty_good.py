"""The pretty good measurement: how often it names the class of a quantum state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Labels, Values
from qunlearn.metrics.ensembles import HALVINGS, TINY, Complexes, halves, pure_states, shortened


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
    parts = [pure_states(own, "states") for own in states_by_class]
    sizes = [len(own) for own in parts]
    if len(parts) < 2 or min(sizes) < 2 or len({own.shape[1] for own in parts}) > 1:
        raise InputError(f"expected states of one width, two or more of each of two or more classes, got {sizes}")
    rows, classes = shortened(np.concatenate(parts)), np.repeat(np.arange(len(parts)), sizes)
    random, found = np.random.default_rng(seed), np.zeros(len(rows))
    for _ in range(halvings):
        half = halves(classes, random)
        for fitted in (half, ~half):
            found[~fitted] += _named(rows, classes, fitted, len(parts))
    return np.split(found / halvings, np.cumsum(sizes)[:-1])


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
