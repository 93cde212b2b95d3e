"""Seeded, stratified choice: whole numbers by largest remainder, members by permutation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qunlearn.data.checks import check_seed


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
