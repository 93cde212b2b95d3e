"""The figures of an attack whose scores are pooled over many models, with intervals over models and samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Labels, Values, rows
from qunlearn.metrics.roc import Rate, fpr_reason
from qunlearn.metrics.statistics import Bounds

FPRS = (0.01, 0.001)


@dataclass(frozen=True)
class Curve:
    """Figures of a pooled attack; see `attack_curve`.

    Attributes:
        auc: area under the ROC curve, in [0, 1].
        balanced_accuracy: of deciding at score 0, in [0, 1].
        tpr: by false-positive rate the true-positive rate, with the reason where there is none.
        positives: how many scores of the positive world.
        negatives: how many of the other.
        models: over how many models they are pooled.
        samples: over how many samples.
    """

    auc: Bounds
    balanced_accuracy: Bounds
    tpr: dict[float, Rate]
    positives: int
    negatives: int
    models: int
    samples: int


def attack_curve(
    scores: Values,
    positive: npt.ArrayLike,
    *,
    fprs: tuple[float, ...] = FPRS,
    level: float = 0.95,
    resamples: int = 300,
    seed: int = 0,
) -> Curve:
    """Area, balanced accuracy and true-positive rates of scores pooled over models and samples.

    Neither scores nor models are independent draws: one model's scores share its training, one sample's share its
    difficulty. So the intervals resample models and, apart from that, samples, and each score counts as often as
    its model times as often as its sample (with a single model, samples alone). This overstates the variance
    rather than not. The Gaussians behind the scores stay as they are. Where no resample differs (all right, all
    wrong) the interval ends where Clopper and Pearson's for k independent units does, k being the lesser of models
    and samples (with a single model, of the two worlds' samples).

    Args:
        scores: ``(models, samples)``, greater for the positive world, 0 where a fair attacker decides; NaN is left out.
        positive: whether the sample is in the positive world, ``(models, samples)`` or ``(samples,)``: of shadow
            models, trained on it; of the audited or a retrained model, in the forget set.
        fprs: false-positive rates; a true-positive rate needs 10 / fpr scores of the negative world.
        level: nominal coverage, in (0, 1).
        resamples: how many, at least 2.
        seed: of the resampling.

    Returns:
        NaN figures where a world has no scores.

    Source: Owen 2007, Annals of Applied Statistics 1, 386 (the bootstrap of rows and columns).
    """
    table = rows(scores, "scores")
    worlds = np.asarray(positive, dtype=bool)
    if worlds.shape not in (table.shape, table.shape[1:]) or resamples < 2 or not 0 < level < 1:
        raise InputError(
            f"expected positive of shape (models, samples) or (samples,) for scores {table.shape}, two resamples or "
            f"more and a level in (0, 1), got {worlds.shape}, {resamples} and {level}"
        )
    pooled = _Pooled.of(table, np.broadcast_to(worlds, table.shape))
    ones = np.ones(table.shape[0]), np.ones(table.shape[1])
    figures = pooled.figures(*ones, fprs)
    drawn = _resampled(pooled, table.shape, fprs, resamples, np.random.default_rng(seed))
    low, high = _quantiles(drawn, level)
    units = min(table.shape) if table.shape[0] > 1 else min(pooled.counts)
    bounds = [_not_narrower(Bounds(*ends), units, level) for ends in zip(figures, low, high, strict=True)]
    rates = {fpr: _rate(ends, pooled, fpr) for fpr, ends in zip(fprs, bounds[2:], strict=True)}
    return Curve(bounds[0], bounds[1], rates, *pooled.counts, *table.shape)


@dataclass(frozen=True)
class _Pooled:
    """Scores sorted once: what changes from resample to resample are weights alone.

    Attributes:
        levels: the distinct scores, ascending.
        level: of each score, its place among them.
        model: of each score, its row.
        sample: of each score, its column.
        positive: of each score, its world.
    """

    levels: Array
    level: Labels
    model: Labels
    sample: Labels
    positive: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, table: Array, worlds: npt.NDArray[np.bool_]) -> _Pooled:
        """All scores that are numbers."""
        model, sample = np.nonzero(~np.isnan(table))
        levels, level = np.unique(table[model, sample], return_inverse=True)
        return cls(levels, level.reshape(-1), model, sample, worlds[model, sample])

    @property
    def counts(self) -> tuple[int, int]:
        """How many scores are of the positive world, and how many of the other."""
        return int(self.positive.sum()), int((~self.positive).sum())

    def figures(self, models: Array, samples: Array, fprs: tuple[float, ...]) -> list[float]:
        """Area, balanced accuracy and true-positive rates with such weights; NaN where a world has none."""
        positive, negative = self._shares(models, samples)
        if positive is None or negative is None:
            return [float("nan")] * (2 + len(fprs))
        below = np.cumsum(negative) - negative
        area = float((positive * (below + negative / 2)).sum())
        right = self.levels > 0
        accuracy = (float(positive[right].sum()) + float(negative[~right].sum())) / 2
        return [area, accuracy, *(float(positive[_above(negative, fpr) :].sum()) for fpr in fprs)]

    def threshold(self, fpr: float) -> float:
        """The lowest score that at most a share `fpr` of the negative world exceeds."""
        negative = np.bincount(self.level[~self.positive], minlength=self.levels.size) / self.counts[1]
        return float(self.levels[_above(negative, fpr) - 1])

    def _shares(self, models: Array, samples: Array) -> tuple[Array | None, Array | None]:
        """By level its share of the weight of either world; None for a world without weight."""
        weights = models[self.model] * samples[self.sample]
        sides = []
        for side in (self.positive, ~self.positive):
            by_level = np.bincount(self.level[side], weights[side], self.levels.size)
            total = by_level.sum()
            sides.append(by_level / total if total > 0 else None)
        return sides[0], sides[1]


def _above(negative: Array, fpr: float) -> int:
    """The place of the first level above the threshold: from there on lies at most a share `fpr` of the negatives."""
    above = np.cumsum(negative[::-1])[::-1]  # at each level, what lies there or higher
    return max(1, int((above > fpr + 1e-12).sum()))


def _resampled(
    pooled: _Pooled, shape: tuple[int, ...], fprs: tuple[float, ...], resamples: int, generator: np.random.Generator
) -> Array:
    """The figures of each resample, ``(resamples, figures)``."""
    found = np.empty((resamples, 2 + len(fprs)))
    for number in range(resamples):
        models, samples = (
            np.bincount(generator.integers(size, size=size), minlength=size).astype(np.float64)
            if size > 1
            else np.ones(size)
            for size in shape
        )
        found[number] = pooled.figures(models, samples, fprs)
    return found


def _quantiles(drawn: Array, level: float) -> tuple[Array, Array]:
    """The ends of the percentile intervals; resamples in which a world is empty are left out."""
    present = drawn[~np.isnan(drawn).any(axis=1)]
    if len(present) < 2:
        return np.full(drawn.shape[1], np.nan), np.full(drawn.shape[1], np.nan)
    low, high = np.quantile(present, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def _not_narrower(bounds: Bounds, units: int, level: float) -> Bounds:
    """An interval without width gets the one of so many independent units that all go the same way."""
    if bounds.low < bounds.high or np.isnan(bounds.low):
        return Bounds(bounds.value, float(bounds.low), float(bounds.high))
    margin = 1 - ((1 - level) / 2) ** (1 / units)
    return Bounds(bounds.value, float(min(bounds.low, 1 - margin)), float(max(bounds.high, margin)))


def _rate(bounds: Bounds, pooled: _Pooled, fpr: float) -> Rate:
    """A true-positive rate, or the reason why there is none."""
    reason = fpr_reason(*pooled.counts, fpr)
    if reason:
        return Rate(*(float("nan"),) * 4, *pooled.counts, reason)
    return Rate(*bounds, pooled.threshold(fpr), *pooled.counts)
