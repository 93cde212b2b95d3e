"""Seeded, stratified choice: whole numbers by largest remainder, members by permutation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.data.checks import check_seed

Positions = NDArray[np.int64]


def stream(seed: int, purpose: int) -> np.random.RandomState:
    """Random numbers for one purpose; NumPy keeps this stream the same in every version."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([check_seed(seed), purpose])))


def apportion(total: int, weights: Sequence[int], order: Sequence[int]) -> list[int]:
    """Whole numbers that sum to `total`, each within one of its exact share.

    The share of i is total * weights[i] / sum(weights), rounded down; what is left goes to the largest
    remainders, ties in the given `order` of indices.

    >>> apportion(50, (60, 10, 15, 15), (1, 2, 3, 0))
    [30, 5, 8, 7]
    """
    whole = sum(weights)
    counts = [total * weight // whole for weight in weights]
    ranking = sorted(order, key=lambda index: -(total * weights[index] % whole))
    for index in ranking[: total - sum(counts)]:
        counts[index] += 1
    return counts


def partition(y: Tensor, shares: Sequence[int], rng: np.random.RandomState) -> list[Tensor]:
    """Positions of the samples in each part, sorted; every class is shared out like the whole.

    Args:
        y: class numbers, ``(samples,)``.
        shares: the parts' sizes, in any common unit.
        rng: where the permutations come from.
    """
    small_first = sorted(range(len(shares)), key=lambda part: shares[part])
    parts: list[list[Tensor]] = [[] for _ in shares]
    for number in torch.unique(y).tolist():
        members = torch.nonzero(y == number).flatten()
        members = members[torch.from_numpy(rng.permutation(len(members)))]
        counts = apportion(len(members), shares, small_first)
        for part, chosen in zip(parts, torch.split(members, counts), strict=True):
            part.append(chosen)
    return [torch.sort(torch.cat(part)).values for part in parts]


def stratified_sample(y: Tensor, total: int, rng: np.random.RandomState) -> Tensor:
    """Positions of `total` samples, sorted, each class in proportion; ties between classes by chance.

    Args:
        y: class numbers, ``(samples,)``.
        total: how many samples, at most ``len(y)``.
        rng: where the choice comes from.
    """
    members = [torch.nonzero(y == number).flatten() for number in torch.unique(y).tolist()]
    counts = apportion(total, [len(group) for group in members], rng.permutation(len(members)).tolist())
    chosen = [
        group[torch.from_numpy(rng.permutation(len(group)))[:count]]
        for group, count in zip(members, counts, strict=True)
    ]
    return torch.sort(torch.cat(chosen)).values


def shuffled_strata(y: Positions, fraction: float, seed: int) -> tuple[Positions, Positions]:
    """Positions that stay and positions taken out, shuffled; every class is shared out like the whole.

    The same as scikit-learn's ``train_test_split(test_size=fraction, stratify=y, random_state=seed)``, draw by draw,
    without the second of processor time that importing it takes in every process.

    Args:
        y: class numbers, ``(samples,)`` int64.
        fraction: share to take out, between 0 and 1; rounded up to whole samples.
        seed: of NumPy's legacy generator, below 2**32.

    Raises:
        ValueError: a class with one sample, or fewer samples than classes on one side.
    """
    classes, counts = np.unique(y, return_counts=True)
    taken_total = math.ceil(fraction * len(y))
    totals = (len(y) - taken_total, taken_total)
    if counts.min() < 2:
        raise ValueError(f"one sample only in class {classes[counts < 2].tolist()}")
    if min(totals) < len(classes):
        raise ValueError(f"{totals[0]} and {totals[1]} samples for {len(classes)} classes")
    rng = np.random.RandomState(seed)
    staying = _shares(counts, totals[0], rng)
    taken = _shares(counts - staying, totals[1], rng)
    parts: tuple[list[int], list[int]] = ([], [])
    for number, count, first, second in zip(classes, counts, staying, taken, strict=True):
        members = np.flatnonzero(y == number)[rng.permutation(count)]
        parts[0].extend(members[:first])
        parts[1].extend(members[first : first + second])
    return rng.permutation(parts[0]), rng.permutation(parts[1])


def _shares(counts: Positions, total: int, rng: np.random.RandomState) -> Positions:
    """`total` samples shared out by class: rounded down, what is left to the largest remainders, ties by chance."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainders, left = exact - shares, int(total - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if left == 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        chosen = rng.choice(tied, size=min(len(tied), left), replace=False)
        shares[chosen] += 1
        left -= len(chosen)
    whole: Positions = shares.astype(np.int64)
    return whole
