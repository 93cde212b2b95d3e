"""Intervals: of a mean over seeds, over splits and seeds, and for the next value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Values, column

Indices = npt.NDArray[np.int64]

_AT_ONCE = 2**15  # values gathered at once: what stays in a processor's cache is several times as quick


class Interval(NamedTuple):
    """A mean with its confidence interval, and on how many values n it rests."""

    mean: float
    low: float
    high: float
    n: int


class Bounds(NamedTuple):
    """A figure with its interval."""

    value: float
    low: float
    high: float


class PredictionInterval(NamedTuple):
    """Where a further value falls with probability `coverage` (at least), from n values."""

    low: float
    high: float
    coverage: float
    n: int


def interval(values: Values, level: float = 0.95) -> Interval:
    """Mean and Student's t-interval: m -+ t_(n-1) s / sqrt(n).

    Args:
        values: ``(n,)``; NaN (no value) is left out and not counted.
        level: probability with which the interval covers the mean of the distribution, in (0, 1).

    Returns:
        Bounds are NaN for fewer than two values, the mean too for none.
    """
    from scipy.stats import t

    sample, count = _present(values, level)
    if count < 2:
        return Interval(float(sample.mean()) if count else float("nan"), float("nan"), float("nan"), count)
    half = float(t.ppf((1 + level) / 2, count - 1) * sample.std(ddof=1) / np.sqrt(count))
    centre = float(sample.mean())
    return Interval(centre, centre - half, centre + half, count)


def hierarchical_bootstrap(
    groups: Sequence[Values], level: float = 0.95, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over splits of the mean over seeds, with a percentile interval that resamples splits, then seeds.

    With one split it speaks of that split alone; with fewer than about five it tends to be too narrow.

    Args:
        groups: for each split the values of its seeds ``(seeds,)``; NaN is left out, an empty split too.
        level: nominal coverage, in (0, 1).
        resamples: how many bootstrap samples, at least 1.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        n is the number of values; bounds are NaN for fewer than two.

    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8.
    """
    if resamples < 1:
        raise InputError(f"resamples: expected at least 1, got {resamples}")
    samples = [sample for sample, count in (_present(values, level) for values in groups) if count]
    count = sum(sample.size for sample in samples)
    if not samples:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    centre = float(np.mean([sample.mean() for sample in samples]))
    if count < 2:
        return Interval(centre, float("nan"), float("nan"), count)
    means = _resampled_means(samples, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(centre, float(low), float(high), count)


def centred_bootstrap(
    value: float, resampled: Values, level: float = 0.95, limits: Values = (-np.inf, np.inf)
) -> Bounds:
    """Percentile interval of resampled values, moved so that their mean is the figure itself.

    For resamples that repeat noise which the figure holds already (the shots of a run, drawn again around what that
    run gave): they scatter as the figure does, but around another mean.

    Args:
        value: the figure.
        resampled: ``(resamples,)``; NaN is left out.
        level: nominal coverage, in (0, 1).
        limits: least and greatest possible value; the interval is cut to them.

    Returns:
        Bounds are NaN for fewer than two resamples, or where the figure is NaN.

    Source: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 5.2 (the correction of bias).
    """
    sample, count = _present(resampled, level)
    if count < 2 or np.isnan(value):
        return Bounds(value, float("nan"), float("nan"))
    moved = np.quantile(sample, [(1 - level) / 2, (1 + level) / 2]) - sample.mean()
    low, high = np.clip(value + moved, *column(limits, "limits"))
    return Bounds(value, float(low), float(high))


def share_interval(successes: int, trials: int, level: float = 0.95) -> Bounds:
    """A share with its exact (Clopper-Pearson) interval, which has a width for shares of 0 and 1 too.

    Args:
        successes: how many of the trials, from 0 to all.
        trials: how many.
        level: probability with which the interval covers the share, at least; in (0, 1).

    Returns:
        NaN for no trials.

    Source: Clopper and Pearson 1934, Biometrika 26, 404.
    """
    from scipy.stats import beta

    if not 0 <= successes <= trials:
        raise InputError(f"expected 0 to {trials} successes, got {successes}")
    if trials == 0:
        return Bounds(float("nan"), float("nan"), float("nan"))
    tail = (1 - level) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Bounds(successes / trials, float(low), float(high))


def kendall_tau(first: Values, second: Values) -> float:
    """How far two lists put the same things into the same order: Kendall's tau-b.

    tau = (concordant pairs - discordant pairs) / sqrt(pairs not tied in one * pairs not tied in the other).

    Args:
        first: ``(things,)``, one value a thing.
        second: ``(things,)``, in the same order.

    Returns:
        1 for the same order, -1 for the reverse; NaN where one of the lists holds one value only.

    Source: Kendall 1945, Biometrika 33, 239.
    """
    one, other = column(first, "first"), column(second, "second")
    if one.shape != other.shape:
        raise InputError(f"expected a value of each thing in both lists, got {one.size} and {other.size}")
    signs = [np.sign(values[:, None] - values[None, :]) for values in (one, other)]
    untied = np.prod([float(np.square(sign).sum()) for sign in signs])
    return float((signs[0] * signs[1]).sum() / np.sqrt(untied)) if untied > 0 else float("nan")


def prediction_interval(values: Values, level: float = 0.95) -> PredictionInterval:
    """Rank-based interval for one further value: from the l-th smallest to the l-th largest of n.

    For exchangeable values it covers the next with probability (n + 1 - 2 l) / (n + 1), whatever the distribution;
    l is the largest with at least the level. Too few values (fewer than 39 for 95 %) can't reach the level: then
    it is the range, and `coverage` says what that gives.

    Args:
        values: ``(n,)``, at least one; NaN is left out.
        level: wanted coverage, in (0, 1).

    Raises:
        InputError: for no values.

    Source: Wilks 1941, Annals of Mathematical Statistics 12, 91.
    """
    sample, count = _present(values, level)
    if not count:
        raise InputError("values: expected at least one number, got none")
    # The small term keeps (1 - level) / 2 * 40 = 1 from being rounded to just below 1.
    rank = max(1, int(np.floor((count + 1) * (1 - level) / 2 + 1e-9)))
    rank = min(rank, (count + 1) // 2)
    ordered = np.sort(sample)
    coverage = (count + 1 - 2 * rank) / (count + 1)
    return PredictionInterval(float(ordered[rank - 1]), float(ordered[count - rank]), coverage, count)


def _present(values: Values, level: float) -> tuple[Array, int]:
    if not 0 < level < 1:
        raise InputError(f"level: expected a number between 0 and 1, got {level}; 95 % is 0.95")
    sample = column(values, "values")
    sample = sample[~np.isnan(sample)]
    return sample, sample.size


def _resampled_means(samples: list[Array], resamples: int, seed: int) -> Array:
    chosen, drawn = _draws(tuple(sample.size for sample in samples), resamples, seed)
    means = np.empty(chosen.shape)
    for number, (sample, places) in enumerate(zip(samples, drawn, strict=True)):
        own, some = np.empty(len(places)), max(1, _AT_ONCE // sample.size)
        for first in range(0, len(places), some):
            np.add.reduce(sample.take(places[first : first + some]), axis=1, out=own[first : first + some])
        means[chosen == number] = own / sample.size
    result: Array = means.mean(axis=1)
    return result


@lru_cache(maxsize=8)
def _draws(sizes: tuple[int, ...], resamples: int, seed: int) -> tuple[Indices, tuple[Indices, ...]]:
    """Which samples each resample takes ``(resamples, samples)``, and for each sample the places drawn from it.

    They depend on how many values there are, not on what they are: all measures of one group of trials share them.
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    chosen = generator.integers(len(sizes), size=(resamples, len(sizes)))
    drawn = tuple(
        generator.integers(size, size=(int((chosen == number).sum()), size)) for number, size in enumerate(sizes)
    )
    return chosen, drawn
