"""Means and 95 % intervals of trials that share a split or a seed, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qunlearn.metrics.statistics import Interval, hierarchical_bootstrap
from qunlearn.metrics.statistics import interval as student_t

RESAMPLES = 2000
ENOUGH = 8  # values, from which on they are resampled


def interval(values: NDArray[np.float64], splits: Sequence[Any]) -> Interval:
    """Mean and interval: the bootstrap over splits, then seeds, or over the seeds of one split where they suffice.

    Of fewer than 8 seeds on one split a bootstrap interval would be too narrow: then it is Student's t.

    Args:
        values: float64, ``(trials,)``; NaN where a value is missing.
        splits: the split of each trial, ``(trials,)``.
    """
    return _interval(np.ascontiguousarray(values, dtype=np.float64).tobytes(), tuple(splits))


@lru_cache(maxsize=2**16)
def _interval(values: bytes, splits: tuple[Any, ...]) -> Interval:
    """The same of the values' bytes: tables, figures and verdicts ask again, and all methods share references."""
    sample = np.frombuffer(values)
    names = sorted(set(splits))
    if len(names) < 2 and np.count_nonzero(np.isfinite(sample)) < ENOUGH:
        return student_t(sample)
    labels = np.asarray(splits)
    return hierarchical_bootstrap([sample[labels == name] for name in names], resamples=RESAMPLES)


def describe_interval(splits: int, seeds: int) -> str:
    """What the intervals of a group with so many splits, and seeds on each, are, in words for a caption."""
    if splits > 1:
        return f"95 % bootstrap interval ({RESAMPLES:,} resamples of the splits, then of the seeds within each)"
    if seeds >= ENOUGH:
        return (
            f"95 % bootstrap interval ({RESAMPLES:,} resamples of the seeds; Student\u2019s t for fewer than {ENOUGH})"
        )
    return "95 % Student t interval over the seeds"
