"""What of the forgotten remains in outputs and features: randomness, information, confusion, separability."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Values, column, labels, rows
from qunlearn.metrics.divergence import LN2, js
from qunlearn.metrics.statistics import Bounds, share_interval


class Confusion(NamedTuple):
    """How far two classes are still mixed up.

    Attributes:
        error: share of the samples of both classes that are classified wrongly (as whatever), with its interval.
        forgotten: number of samples of one of the classes taken for the other: C[a][b] + C[b][a].
        mixed: the same as a share of the samples of both classes, with its interval.
        n: number of samples of both classes.
    """

    error: Bounds
    forgotten: int
    mixed: Bounds
    n: int


class Separation(NamedTuple):
    """How far two distributions are apart.

    Attributes:
        statistic: greatest difference of the two distribution functions, in [0, 1].
        shift: mean of the first less mean of the second, in the unit of the values.
        p_value: of the hypothesis that both are one.
        n: number of values of the smaller sample.
    """

    statistic: float
    shift: float
    p_value: float
    n: int


def zrf(logits: Values, random_logits: Values) -> float:
    """Zero-retrain-forgetting score: 1 - mean_i JS(p_i, r_i) / ln 2, with r the outputs of a model that learnt nothing.

    The Jensen-Shannon divergence is the plain one in nats, divided by its greatest value ln 2, so that the score
    fills [0, 1] (released code divides by the number of classes instead). Read it beside the retrained models' value:
    a retrained model is no random one, and is not at 1.

    Args:
        logits: of the judged model on the forget set, ``(samples, classes)``.
        random_logits: of a freshly initialised model on the same samples.

    Returns:
        In [0, 1]; NaN for no samples.

    Source: Chundawat et al. 2023, arXiv 2205.08096.
    """
    return 1 - js(logits, random_logits) / LN2


def information_difference(unlearned: Values, original: Values, retrained: Values) -> float:
    """Information difference index: sum_l (u_l - r_l) / sum_l (o_l - r_l) of mutual informations by layer.

    Differences keep their sign, as the negative values in the source's tables need (a model whose features tell less
    of the forgotten labels than a retrained one's).

    Args:
        unlearned: u, mutual information of each layer's features and the forget labels, ``(layers,)``, in any unit.
        original: o, of the original model.
        retrained: r, of a retrained model, or the mean of several.

    Returns:
        0 as after retraining, 1 as before unlearning, below 0 for less than after retraining; NaN where the original
        model's layers hold no more than the retrained one's: then there is nothing to forget in them.

    Source: Jeon et al. 2024, arXiv 2405.17878.
    """
    u, o, r = (column(values, name) for values, name in (
        (unlearned, "unlearned"), (original, "original"), (retrained, "retrained")
    ))  # fmt: skip
    if not u.shape == o.shape == r.shape:
        raise InputError(f"expected the same layers of three models, got {u.size}, {o.size} and {r.size}")
    before = float((o - r).sum())
    return float((u - r).sum()) / before if before > 0 else float("nan")


def interclass_confusion(logits: Values, y: Values, first: int, second: int) -> Confusion:
    """Interclass confusion test, after training with some labels of two classes swapped and forgetting these samples.

    Args:
        logits: on test samples with their right labels, ``(samples, classes)``.
        y: their class numbers ``(samples,)``; samples of other classes don't count.
        first: the number of the one class.
        second: the number of the other.

    Returns:
        Shares are NaN for no samples of the two classes.

    Source: Goel et al. 2022, arXiv 2201.06640.
    """
    table = rows(logits)
    truth = labels(y, len(table))
    if first == second or not (min(first, second) >= 0 and max(first, second) < table.shape[1]):
        raise InputError(f"expected two classes from 0 to {table.shape[1] - 1}, got {first} and {second}")
    said = table.argmax(axis=1)
    both = (truth == first) | (truth == second)
    swapped = int((((truth == first) & (said == second)) | ((truth == second) & (said == first))).sum())
    count = int(both.sum())
    return Confusion(
        share_interval(int((both & (said != truth)).sum()), count), swapped, share_interval(swapped, count), count
    )


def ks_statistic(first: Values, second: Values) -> Separation:
    """Kolmogorov and Smirnov's distance of two samples of scores (losses, entropies, `phi`).

    Args:
        first: ``(n,)``, such as the unlearned model's scores of the forget set.
        second: ``(m,)``, such as a retrained model's; NaN is left out of both.

    Returns:
        NaN for an empty sample.

    Source: Smirnov 1939; the p-value is scipy's, exact for small samples.
    """
    from scipy.stats import ks_2samp

    one, other = (column(values, name) for values, name in ((first, "first"), (second, "second")))
    one, other = one[~np.isnan(one)], other[~np.isnan(other)]
    if not min(one.size, other.size):
        return Separation(float("nan"), float("nan"), float("nan"), 0)
    found = ks_2samp(one, other)
    shift = float(one.mean() - other.mean())
    return Separation(float(found.statistic), shift, float(found.pvalue), min(one.size, other.size))
