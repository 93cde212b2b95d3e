"""Classifiers that an audit trains: every sample is scored by one that never saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from qunlearn.metrics import Bounds, class_weights
from qunlearn.metrics.folds import deal
from qunlearn.metrics.roc import auc_interval, balanced_accuracy

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]
Kind = Literal["linear", "rbf"]
FOLDS = 5
LEAST = 4  # samples on each side, below which nothing can be learnt and tested
WIDE = 256  # columns above which Newton's steps cost more than they save


@dataclass(frozen=True)
class Told:
    """How well a classifier tells two groups apart.

    Attributes:
        balanced: mean of the shares that it gets right on both sides.
        auc: of its scores.
        n: how many samples were scored.
    """

    balanced: Bounds
    auc: Bounds
    n: int


def tell_apart(features: Floats, target: Flags, strata: Labels, kind: Kind, random: np.random.Generator) -> Told | str:
    """Trains classifiers with cross-fitting, both sides of the same total weight, their classes matched by weights.

    ``"linear"`` is logistic regression (L2, C = 1), ``"rbf"`` a support vector machine (C = 10, width by scikit-learn's
    ``"scale"``); features are standardised by the samples trained on. Classes are matched within the samples trained on
    and within those tested: matched as a whole only, a class with too many members on one side of the fold would have
    too few on the other, and classifiers that learn classes would do worse than chance. For the AUC samples are
    compared by their ranks within their fold, since the fits of different folds differ in scale.

    Intervals are widened by sqrt 2: the classifiers of two folds hold each other's samples, which doubles the variance
    where there is nothing to tell; with something to tell it adds less.

    Args:
        features: ``(n, width)``.
        target: which samples belong to the group that is looked for, ``(n,)``.
        strata: class numbers ``(n,)`` by which the rest is matched to the group; zeros match nothing.
        kind: which classifier.
        random: deals the folds.

    Returns:
        A sentence that says why not, where a side has fewer than four samples.
    """
    from scipy.stats import rankdata

    kept = matched(target, strata) > 0
    features, target, strata = features[kept], target[kept], strata[kept]
    least = int(min(target.sum(), (~target).sum()))
    if least < LEAST:
        return f"{least} samples on one side are too few to train a classifier and to test it"
    fold = deal(strata * 2 + target, min(FOLDS, least // 2), random)
    scores, ranks, weights = (np.zeros(len(target)) for _ in range(3))
    for number in range(int(fold.max()) + 1):
        away = fold == number
        here = ~away
        scores[away] = _scores(features[here], target[here], matched(target[here], strata[here]), features[away], kind)
        ranks[away] = rankdata(scores[away]) / (away.sum() + 1)
        weights[away] = matched(target[away], strata[away])
    given = weights[target], weights[~target]
    return Told(
        widened(balanced_accuracy(scores[target], scores[~target], *given, threshold=0.0)),
        widened(auc_interval(ranks[target], ranks[~target], *given)),
        int((weights > 0).sum()),
    )


def widened(bounds: Bounds) -> Bounds:
    """An interval sqrt 2 times as wide, cut to [0, 1]."""
    low, high = (bounds.value + np.sqrt(2) * (end - bounds.value) for end in bounds[1:])
    return Bounds(bounds.value, max(0.0, float(low)), min(1.0, float(high)))


def matched(target: Flags, strata: Labels) -> Floats:
    """Weights ``(n,)`` with which the rest holds every stratum like the group; 0 where one side lacks it."""
    weights = np.empty(len(target))
    weights[target], weights[~target] = class_weights(strata[target], strata[~target])
    return weights


def _scores(features: Floats, target: Flags, weights: Floats, others: Floats, kind: Kind) -> Floats:
    """Scores of other samples by a classifier that is trained on some."""
    mean, spread = features.mean(0), features.std(0)
    spread[spread <= 1e-12] = 1.0
    even = weights.copy()
    for side in (target, ~target):
        even[side] *= len(target) / (2 * even[side].sum())
    model = _classifier(kind, features.shape[1])
    used = even > 0
    model.fit((features[used] - mean) / spread, target[used], sample_weight=even[used])
    found: Floats = model.decision_function((others - mean) / spread)
    return found


def _classifier(kind: Kind, width: int) -> Any:
    if kind == "rbf":
        from sklearn.svm import SVC

        return SVC(C=10.0)
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="newton-cholesky" if width <= WIDE else "lbfgs", max_iter=1000)
