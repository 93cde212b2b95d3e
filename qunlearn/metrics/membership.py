"""Can the forget samples be told from samples never trained on, by the confidence of the model?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Labels, Values, column, labels, log_softmax, rows


def confidence(logits: Values) -> Array:
    """Logarithm of the largest probability of each sample: max_k ln p_k.

    The logarithm keeps the order of samples whose probability rounds to 1.

    Args:
        logits: ``(samples, classes)``.

    Returns:
        ``(samples,)``, nats, in [-ln K, 0] for K classes.
    """
    table = rows(logits)
    below = np.sort(table - table.max(axis=1, keepdims=True), axis=1)[:, :-1]
    score: Array = -np.log1p(np.exp(below).sum(axis=1))
    return score


def weighted_auc(positive: Values, negative: Values, positive_weights: Values, negative_weights: Values) -> float:
    """Area under the ROC curve: the weighted share of pairs in which the positive scores higher, ties counting half.

    AUC = sum_ij u_i v_j ([s_i > t_j] + [s_i = t_j] / 2) / (sum_i u_i sum_j v_j).

    Args:
        positive: scores s ``(positives,)``.
        negative: scores t ``(negatives,)``.
        positive_weights: u ``(positives,)``, at least 0.
        negative_weights: v ``(negatives,)``, at least 0.

    Returns:
        In [0, 1]; NaN where one side has no weight.
    """
    s, t = column(positive, "positive"), column(negative, "negative")
    u, v = column(positive_weights, "positive_weights"), column(negative_weights, "negative_weights")
    if s.shape != u.shape or t.shape != v.shape:
        raise InputError(f"expected a weight for every score, got {u.size} for {s.size} and {v.size} for {t.size}")
    total = u.sum() * v.sum()
    if not total > 0:
        return float("nan")
    order = np.argsort(t, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(v[order])])
    lower, upper = np.searchsorted(t[order], s, "left"), np.searchsorted(t[order], s, "right")
    return min(1.0, max(0.0, float((u * (below[lower] + below[upper])).sum() / (2 * total))))


def class_weights(members: Labels, non_members: Labels) -> tuple[Array, Array]:
    """Weights that give the non-members the classes' shares of the members: n_members(c) / n_non_members(c).

    Args:
        members: class numbers ``(members,)``.
        non_members: class numbers ``(non-members,)``.

    Returns:
        The members' weights, 1, or 0 for a class with no non-member; and the non-members', 0 for a class
        with no member.
    """
    size = int(max(members.max(initial=0), non_members.max(initial=0))) + 1
    member_counts = np.bincount(members, minlength=size).astype(np.float64)
    other_counts = np.bincount(non_members, minlength=size).astype(np.float64)
    ratio = np.divide(member_counts, other_counts, out=np.zeros(size), where=other_counts > 0)
    return (other_counts[members] > 0).astype(np.float64), ratio[non_members]


def membership_auc(forget: Values, forget_y: Values, holdout: Values, holdout_y: Values) -> float:
    """AUC of an attack that takes confident samples for members: forget set against class-matched holdout samples.

    The score is the largest probability. Non-members are weighted so that their classes have the forget set's
    shares, so that a class on which the model is confident says nothing about membership. Forget samples of a
    class with no non-member are left out.

    Args:
        forget: logits of the forget set, ``(samples, classes)``.
        forget_y: its class numbers ``(samples,)``.
        holdout: logits of samples never trained on, ``(samples, classes)``.
        holdout_y: their class numbers ``(samples,)``.

    Returns:
        In [0, 1]. What retrained models get is the aim (near 0.5); below that the samples stand out the other
        way, which is no better. NaN if no class has both members and non-members.

    Source: Yeom et al. 2018, arXiv 1709.01604 (confidence as score); class matching as in the starting kit of
    the NeurIPS 2023 unlearning challenge, by weights instead of by drawing.
    """
    members, others = confidence(forget), confidence(holdout)
    weights = class_weights(labels(forget_y, members.size), labels(holdout_y, others.size))
    return weighted_auc(members, others, *weights)


def calibrated_membership_auc(
    forget: Values,
    forget_y: Values,
    holdout: Values,
    holdout_y: Values,
    references_forget: Sequence[Values],
    references_holdout: Sequence[Values],
) -> float:
    """`membership_auc` of an attacker who knows how hard each sample is, from models that never saw the forget set.

    The score is the confidence of the attacked model less the mean confidence of the reference models on the same
    sample, so that a sample on which every model is confident says nothing about membership.

    Args:
        forget: logits of the forget set, ``(samples, classes)``.
        forget_y: its class numbers ``(samples,)``.
        holdout: logits of samples never trained on, ``(samples, classes)``.
        holdout_y: their class numbers ``(samples,)``.
        references_forget: logits of each reference model on the forget set.
        references_holdout: of the same models on the samples never trained on.

    Returns:
        In [0, 1]; NaN without reference models, or if no class has both members and non-members.

    Source: Watson, Guo, Cormode and Sablayrolles 2022, arXiv 2111.08440 (difficulty calibration); the classes are
    matched as in `membership_auc`.
    """
    if len(references_forget) != len(references_holdout):
        raise InputError(
            f"expected each reference model on both sets, got {len(references_forget)} and {len(references_holdout)}"
        )
    if not references_forget:
        return float("nan")
    members = confidence(forget) - np.mean([confidence(logits) for logits in references_forget], axis=0)
    others = confidence(holdout) - np.mean([confidence(logits) for logits in references_holdout], axis=0)
    weights = class_weights(labels(forget_y, members.size), labels(holdout_y, others.size))
    return weighted_auc(members, others, *weights)


def membership_auc_published(forget: Values, retain: Values, generator: np.random.Generator) -> float:
    """The paper's MIA AUC: as many retain samples as forget samples, drawn at random, stand for non-members.

    Those "non-members" were trained on, so it measures how the confidence on two parts of the training set differs,
    not membership. Classes aren't matched; probabilities are single precision, where many tie at 1.

    Args:
        forget: logits of the forget set, ``(samples, classes)``.
        retain: logits of the retain set of the subset request, ``(samples, classes)``.
        generator: draws the negatives without replacement.

    Returns:
        In [0, 1]; NaN for an empty set.

    Source: Crivoi and Ionescu 2025, arXiv 2512.19253 (their released code).
    """
    members, others = _single_precision(forget), _single_precision(retain)
    drawn = others[generator.permutation(others.size)[: members.size]]
    return weighted_auc(members, drawn, np.ones(members.size), np.ones(drawn.size))


def _single_precision(logits: Values) -> npt.NDArray[np.float32]:
    largest: Array = np.exp(log_softmax(logits)).max(axis=1)
    return largest.astype(np.float32)
