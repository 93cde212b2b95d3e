"""Cross-fitting: samples dealt out to folds, so that what scores a sample has not seen it."""

from __future__ import annotations

import numpy as np

from qunlearn.metrics.arrays import Labels


def deal(strata: Labels, folds: int, generator: np.random.Generator) -> Labels:
    """A fold for every sample, the samples of each stratum spread as evenly as they go.

    Args:
        strata: ``(samples,)``.
        folds: how many.
        generator: shuffles within the strata.

    Returns:
        Numbers from 0 to folds - 1, ``(samples,)``; the folds' sizes differ by at most 1.
    """
    order = generator.permutation(strata.size)
    order = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(strata.size, dtype=np.int64)
    fold[order] = np.arange(strata.size) % folds  # dealt on from stratum to stratum, like cards
    return fold
