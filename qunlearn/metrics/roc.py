"""How well scores tell two groups apart: area under the ROC curve, balanced accuracy."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Values, column
from qunlearn.metrics.folds import deal
from qunlearn.metrics.membership import weighted_auc
from qunlearn.metrics.statistics import Bounds

NEGATIVES_NEEDED = 10  # so many false alarms must a false-positive rate allow before it is reported
_NAN = float("nan")


class Rate(NamedTuple):
    """A rate with its interval; NaN where there is none, with the reason.

    Attributes:
        value: share in [0, 1].
        low: of the interval.
        high: of the interval.
        threshold: scores above it are taken for positives.
        positives: on how many positives it rests.
        negatives: on how many negatives.
        reason: why there is no value; empty where there is one.
    """

    value: float
    low: float
    high: float
    threshold: float
    positives: int
    negatives: int
    reason: str = ""


def auc(
    positive: Values,
    negative: Values,
    positive_weights: Values | None = None,
    negative_weights: Values | None = None,
) -> float:
    """Area under the ROC curve; see `weighted_auc`. Without weights, all samples weigh the same.

    Samples whose score is NaN are left out.
    """
    (s, u), (t, v) = _side(positive, positive_weights, "positive"), _side(negative, negative_weights, "negative")
    return weighted_auc(s, t, u, v)


def auc_interval(
    positive: Values,
    negative: Values,
    positive_weights: Values | None = None,
    negative_weights: Values | None = None,
    level: float = 0.95,
) -> Bounds:
    """The area under the ROC curve with DeLong's interval on the log-odds scale.

    Variance: sum_i u_i^2 (V_i - A)^2 m / (m - 1), with u the positives' weights (sum 1) and V_i the weighted share
    of negatives below positive i, plus the same of the negatives. At A = 0 or 1 it vanishes; there the interval
    ends at the A for which k independent pairs all fall the same way with probability (1 - level) / 2, k the
    smaller of the two effective numbers of samples (sum of weights)^2 / sum of squares. No interval is narrower
    than that one is at its end. Weights count as fixed.

    Args:
        positive: scores ``(positives,)``; NaN is left out.
        negative: scores ``(negatives,)``.
        positive_weights: at least 0; 1 each by default.
        negative_weights: the same for the negatives.
        level: nominal coverage, in (0, 1).

    Returns:
        NaN bounds for fewer than two samples of positive weight on a side.

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44, 837; the weights are an addition.
    """
    _check_level(level)
    sides = _side(positive, positive_weights, "positive"), _side(negative, negative_weights, "negative")
    (s, u), (t, v) = ((scores[w > 0], w[w > 0]) for scores, w in sides)
    area = weighted_auc(s, t, u, v)
    if min(s.size, t.size) < 2:
        return Bounds(area, _NAN, _NAN)
    variance = _variance(_placements(s, t, v), u, area) + _variance(1 - _placements(t, s, u), v, area)
    low, high = _logit_interval(area, variance, level)
    pairs = min(effective(u), effective(v))
    margin = 1 - ((1 - level) / 2) ** (1 / pairs)
    return Bounds(area, min(low, 1 - margin) if area < 1 else 1 - margin, max(high, margin) if area > 0 else margin)


def balanced_accuracy(
    positive: Values,
    negative: Values,
    positive_weights: Values | None = None,
    negative_weights: Values | None = None,
    *,
    threshold: float | None = None,
    folds: int = 5,
    seed: int = 0,
    level: float = 0.95,
) -> Bounds:
    """Mean of the two sides' shares of right decisions, where a score above the threshold is taken for positive.

    Without a given threshold it is cross-fitted: the samples of one fold are decided by the threshold that is best
    on the others (of equally good ones the middle one), so that no sample helps to choose its own. The best
    threshold on all samples would look better than chance by chance.

    Args:
        positive: scores ``(positives,)``; NaN is left out.
        negative: scores ``(negatives,)``.
        positive_weights: at least 0; 1 each by default.
        negative_weights: the same for the negatives.
        threshold: known beforehand, such as 0 for a likelihood ratio's logarithm.
        folds: of the cross-fitting, at least 2; fewer where a side has fewer samples.
        seed: deals out the samples.
        level: nominal coverage, in (0, 1).

    Returns:
        In [0, 1]; the interval puts the two sides' Clopper-Pearson intervals (for effective numbers of samples)
        together by their squared distances. NaN for a side of fewer than two samples.

    Source: Zou and Donner 2008, Statistics in Medicine 27, 1693 (intervals of sums from those of the parts).
    """
    _check_level(level)
    sides = [_side(positive, positive_weights, "positive"), _side(negative, negative_weights, "negative")]
    sides = [(scores[w > 0], w[w > 0]) for scores, w in sides]
    if min(scores.size for scores, _ in sides) < 2 or folds < 2:
        return Bounds(_NAN, _NAN, _NAN)
    limits = (
        [np.full(scores.size, threshold) for scores, _ in sides]
        if threshold is not None
        else _cross_fitted(sides, folds, np.random.default_rng(seed))
    )
    (s, u), (t, v) = sides
    rates = [_weighted_share(right, w, level) for right, w in ((s > limits[0], u), (t <= limits[1], v))]
    value = float(np.mean([rate.value for rate in rates]))
    below = math.hypot(*(rate.value - rate.low for rate in rates)) / 2
    above = math.hypot(*(rate.high - rate.value for rate in rates)) / 2
    return Bounds(value, max(0.0, value - below), min(1.0, value + above))


def fpr_reason(positives: int, negatives: int, fpr: float) -> str:
    """Why there is no true-positive rate at a false-positive rate; empty where there is one."""
    if not 0 < fpr < 1:
        raise InputError(f"fpr: expected a false-positive rate between 0 and 1, got {fpr}; 1 % is 0.01")
    needed = int(np.ceil(NEGATIVES_NEEDED / fpr - 1e-9))
    if negatives < needed:
        return f"needs {needed} non-member scores for a false-positive rate of {100 * fpr:g} %, there are {negatives}"
    return "" if positives else "there are no member scores"


def effective(weights: Array) -> float:
    """How many equally weighted samples say as much: (sum of weights)^2 / sum of squared weights."""
    return float(weights.sum() ** 2 / np.square(weights).sum())


def _side(scores: Values, weights: Values | None, name: str) -> tuple[Array, Array]:
    """Scores and weights without the samples whose score is NaN."""
    values = column(scores, name)
    given = np.ones(values.size) if weights is None else column(weights, f"{name}_weights")
    if given.shape != values.shape or (given < 0).any():
        raise InputError(
            f"{name}_weights: expected {values.size} numbers of at least 0, got {given.size} or less than 0"
        )
    present = ~np.isnan(values)
    return values[present], given[present]


def _placements(s: Array, t: Array, v: Array) -> Array:
    """The weighted share of `t` below each of `s`, ties counting half."""
    order = np.argsort(t, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(v[order])]) / v.sum()
    ends = [below[np.searchsorted(t[order], s, side)] for side in ("left", "right")]
    share: Array = (ends[0] + ends[1]) / 2
    return share


def _variance(placements: Array, weights: Array, area: float) -> float:
    """One side's part of DeLong's variance."""
    share = weights / weights.sum()
    size = share.size
    return float((np.square(share) * np.square(placements - area)).sum() * size / (size - 1))


def _logit_interval(area: float, variance: float, level: float) -> tuple[float, float]:
    """The interval that is symmetric in the log-odds of the area; the area itself at 0 and 1."""
    from scipy.special import expit, logit
    from scipy.stats import norm

    if not 0 < area < 1:
        return area, area
    half = norm.ppf((1 + level) / 2) * np.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-half, half]))
    return float(low), float(high)


def _weighted_share(right: npt.NDArray[np.bool_], weights: Array, level: float) -> Bounds:
    """A weighted share with Clopper and Pearson's interval for the effective number of samples."""
    from scipy.stats import beta

    share, size, tail = float(np.average(right, weights=weights)), effective(weights), (1 - level) / 2
    low = float(beta.ppf(tail, share * size, (1 - share) * size + 1)) if share > 0 else 0.0
    high = float(beta.ppf(1 - tail, share * size + 1, (1 - share) * size)) if share < 1 else 1.0
    return Bounds(share, low, high)


def _cross_fitted(sides: list[tuple[Array, Array]], folds: int, generator: np.random.Generator) -> list[Array]:
    """By side the threshold for every sample, the best on the folds that do not hold it."""
    folds = min(folds, *(scores.size for scores, _ in sides))
    dealt = [deal(np.zeros(scores.size, dtype=np.int64), folds, generator) for scores, _ in sides]
    limits = [np.empty(scores.size) for scores, _ in sides]
    for number in range(folds):
        rest = [(scores[fold != number], w[fold != number]) for (scores, w), fold in zip(sides, dealt, strict=True)]
        best = best_threshold(*rest[0], *rest[1])
        for side, fold in zip(limits, dealt, strict=True):
            side[fold == number] = best
    return limits


def best_threshold(s: Array, u: Array, t: Array, v: Array) -> float:
    """The threshold of the greatest balanced accuracy; the middle one of several.

    Args:
        s: scores of the positives ``(positives,)``; those above the threshold are decided rightly.
        u: their weights.
        t: scores of the negatives ``(negatives,)``.
        v: their weights.
    """
    distinct = np.unique(np.concatenate([s, t]))
    with np.errstate(invalid="ignore"):
        middle = (distinct[1:] + distinct[:-1]) / 2
    candidates = np.concatenate([[-np.inf], np.where(np.isfinite(middle), middle, distinct[:-1]), [distinct[-1]]])
    hits, rejections = 1 - _share_up_to(candidates, s, u), _share_up_to(candidates, t, v)
    total = hits + rejections
    best = np.flatnonzero(total >= total.max() - 1e-12)
    return float(candidates[best[best.size // 2]])


def _share_up_to(limits: Array, scores: Array, weights: Array) -> Array:
    """The weighted share of the scores that do not exceed each limit."""
    order = np.argsort(scores, kind="stable")
    total = np.concatenate([[0.0], np.cumsum(weights[order])])
    share: Array = total[np.searchsorted(scores[order], limits, "right")] / total[-1]
    return share


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level: expected a number between 0 and 1, got {level}; 95 % is 0.95")
