"""What of the forgotten remains in outputs and features: randomness, information, confusion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Values, column, labels, mean, rows
from qunlearn.metrics.divergence import LN2, js_by_sample
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
    return mean(zrf_by_sample(logits, random_logits))


def zrf_by_sample(logits: Values, random_logits: Values) -> Array:
    """What `zrf` is the mean of: the score of each sample, ``(samples,)`` in [0, 1]."""
    scores: Array = 1 - js_by_sample(logits, random_logits) / LN2
    return scores


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
    return mean(information_difference_by_part(unlearned, original, retrained))


def information_difference_by_part(unlearned: Values, original: Values, retrained: Values) -> Array:
    """What `information_difference` is the mean of: (u_i - r_i) / mean_j (o_j - r_j), ``(parts,)``.

    Parts are layers, or samples whose contributions add up to the information.
    """
    u, o, r = (column(values, name) for values, name in (
        (unlearned, "unlearned"), (original, "original"), (retrained, "retrained")
    ))  # fmt: skip
    if not u.shape == o.shape == r.shape:
        raise InputError(f"expected the same layers of three models, got {u.size}, {o.size} and {r.size}")
    before = mean(o - r)
    parts: Array = (u - r) / before if before > 0 else np.full(u.shape, np.nan)
    return parts


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
