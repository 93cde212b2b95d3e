"""Scores of single samples that speak for membership, and an attacker trained on all of them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Labels, Values, labels, rows
from qunlearn.metrics.folds import deal
from qunlearn.metrics.membership import class_weights, confidence, weighted_auc
from qunlearn.metrics.roc import auc_interval, balanced_accuracy
from qunlearn.metrics.statistics import Bounds

FEATURE_CLASSES = 10  # so many of the largest probabilities does the trained attacker see


def log_odds(logits: Values) -> Array:
    """Log-odds of every class: ln p_k - ln(1 - p_k) = z_k - ln sum_(j != k) exp z_j.

    Computed from the logits without a probability in between, so that none rounds to 0 or 1.

    Args:
        logits: ``(samples, classes)``; -inf stands for probability 0.

    Returns:
        ``(samples, classes)``, nats; inf where all other classes have probability 0.
    """
    table = rows(logits)
    if not table.shape[1] or np.isnan(table).any() or np.isposinf(table).any():
        raise InputError("logits: expected numbers (-inf allowed) of at least one class, got NaN, inf or no class")
    top = table.argmax(axis=1)[:, None]
    if np.isneginf(table.max(axis=1)).any():
        raise InputError("logits: expected a finite logit in every row, got a row of -inf")
    shifted = table - np.take_along_axis(table, top, axis=1)
    weights = np.exp(shifted)
    # The largest stays in the sum over the others of every class but its own, so that nothing cancels there.
    with np.errstate(divide="ignore"):
        others = np.log(np.maximum(weights.sum(axis=1, keepdims=True) - weights, 0.0))
    np.put_along_axis(others, top, _without(shifted, top), axis=1)
    odds: Array = shifted - others
    return odds


def sample_loss(logits: Values, y: Values) -> Array:
    """Cross-entropy of each sample: -ln p_y, with all digits also where p_y is next to 1.

    Args:
        logits: ``(samples, classes)``.
        y: class numbers ``(samples,)``.

    Returns:
        ``(samples,)``, nats, in [0, inf].

    Source: Yeom et al. 2018, arXiv 1709.01604 (loss as score).
    """
    odds, own = _own(logits, y)
    result: Array = np.logaddexp(0.0, -odds[own])
    return result


def sample_entropy(logits: Values) -> Array:
    """Entropy of each prediction: -sum_k p_k ln p_k, with all digits also next to certainty.

    Args:
        logits: ``(samples, classes)``.

    Returns:
        ``(samples,)``, nats, in [0, ln K] for K classes.

    Source: Salem et al. 2019, arXiv 1806.01246 (entropy as score).
    """
    losses = np.logaddexp(0.0, -log_odds(logits))
    entropy: Array = _products(np.exp(-losses), losses).sum(axis=1)
    return np.minimum(entropy, np.log(losses.shape[1]))


def modified_entropy(logits: Values, y: Values) -> Array:
    """Entropy that knows the label: -(1 - p_y) ln p_y - sum_(k != y) p_k ln(1 - p_k).

    It falls as the true class gets likelier, unlike the entropy, which is as low for certain errors.

    Args:
        logits: ``(samples, classes)``.
        y: class numbers ``(samples,)``.

    Returns:
        ``(samples,)``, nats, in [0, inf]; 0 for certainty of the right class.

    Source: Song and Mittal 2021, arXiv 2003.10595 (equation 7).
    """
    odds, own = _own(logits, y)
    wrong = np.logaddexp(0.0, odds)  # -ln(1 - p_k)
    right = np.logaddexp(0.0, -odds)  # -ln p_k
    terms = _products(np.exp(-right), wrong)
    terms[own] = _products(np.exp(-wrong[own]), right[own])
    total: Array = terms.sum(axis=1)
    return total


def membership_scores(logits: Values, y: Values) -> dict[str, Array]:
    """The scores of the population attacks by name, all turned so that greater speaks for membership.

    Args:
        logits: ``(samples, classes)``.
        y: class numbers ``(samples,)``.

    Returns:
        ``confidence`` (log of the largest probability), ``loss``, ``entropy`` and ``modified_entropy`` (these three
        negated), each ``(samples,)`` in nats.
    """
    return {
        "confidence": confidence(logits),
        "loss": -sample_loss(logits, y),
        "entropy": -sample_entropy(logits),
        "modified_entropy": -modified_entropy(logits, y),
    }


class TrainedAttack(NamedTuple):
    """What a cross-fitted attacker reaches, and its log-odds of membership.

    Attributes:
        auc: area under the ROC curve, in [0, 1]: the mean of the folds', each fold ranked by its own attacker.
        balanced_accuracy: of deciding by the sign of the log-odds, in [0, 1].
        members: log-odds ``(members,)``; NaN for a class with no non-member.
        others: log-odds ``(non-members,)``; NaN for a class with no member.
    """

    auc: Bounds
    balanced_accuracy: Bounds
    members: Array
    others: Array


def trained_attack(
    members: Values, members_y: Values, others: Values, others_y: Values, *, folds: int = 5, seed: int = 0
) -> TrainedAttack:
    """A logistic regression that tells members from non-members by all scores at once, cross-fitted.

    Features: the largest probabilities in order, loss, entropy, modified entropy, and whether the prediction is
    right. The samples are dealt out to folds by side and class; those of one fold are scored by an attacker fitted
    to the other folds (features standardised there, both sides of equal weight, classes matched by weights). Only
    samples of one fold are ranked against each other: between folds a member raises the scores of all others and
    never its own, which would pull the area below one half where nothing leaks.

    The intervals (DeLong's; Clopper and Pearson's) are widened by sqrt 2: the attackers of two folds hold each
    other's samples, which doubles the variance where nothing leaks, for any number of folds; with a leak it adds
    less, and the intervals cover more than they say.

    Args:
        members: logits of the forget set, ``(samples, classes)``.
        members_y: its class numbers ``(samples,)``.
        others: logits of samples never trained on, ``(samples, classes)``.
        others_y: their class numbers ``(samples,)``.
        folds: at least 2; fewer where the smaller side has fewer samples.
        seed: deals out the samples.

    Raises:
        InputError: fewer than four samples, of the classes that both sides have, on a side.

    Source: Shokri et al. 2017, arXiv 1610.05820 (an attacker trained on outputs); cross-validated on the forget set
    against unseen samples as in the starting kit of the NeurIPS 2023 unlearning challenge.
    """
    features = [attack_features(members, members_y), attack_features(others, others_y)]
    y = [labels(members_y, len(features[0])), labels(others_y, len(features[1]))]
    matched = class_weights(*y)
    used = [np.flatnonzero(side) for side in matched]
    folds = min(folds, *(side.size // 2 for side in used))
    if folds < 2:
        raise InputError(
            f"expected two folds or more, and four samples or more of shared classes on each side, got "
            f"{used[0].size} members and {used[1].size} non-members; ask for more samples"
        )
    generator = np.random.default_rng(seed)
    tables = [table[side] for table, side in zip(features, used, strict=True)]
    weights = [side[place] for side, place in zip(matched, used, strict=True)]
    dealt = [deal(side[place], folds, generator) for side, place in zip(y, used, strict=True)]
    fitted = _cross_fitted(tables, weights, dealt, folds)
    scores = [np.full(len(table), np.nan) for table in features]
    for side, place, values in zip(scores, used, fitted, strict=True):
        side[place] = values
    decided = balanced_accuracy(*fitted, *weights, threshold=0.0)
    return TrainedAttack(_auc_by_fold(fitted, weights, dealt, folds), _widened(decided), *scores)


def attack_features(logits: Values, y: Values) -> Array:
    """What the trained attacker sees of each sample ``(samples, features)``; see `trained_attack`."""
    odds, own = _own(logits, y)
    largest = -np.sort(-np.exp(-np.logaddexp(0.0, -odds)), axis=1)[:, :FEATURE_CLASSES]
    columns = (sample_loss(logits, y), sample_entropy(logits), modified_entropy(logits, y), odds[own] >= 0)
    table: Array = np.column_stack([largest, *columns])
    return np.minimum(table, 1e3)  # a probability of 0 has an infinite loss, which no regression takes


def _cross_fitted(tables: list[Array], weights: list[Array], dealt: list[Labels], folds: int) -> tuple[Array, Array]:
    """By side the log-odds of every sample, from the fit to the other folds."""
    scores = (np.empty(len(tables[0])), np.empty(len(tables[1])))
    for number in range(folds):
        rest = [fold != number for fold in dealt]
        attacker = _fit(
            [table[mask] for table, mask in zip(tables, rest, strict=True)],
            [side[mask] for side, mask in zip(weights, rest, strict=True)],
        )
        for side, table, mask in zip(scores, tables, rest, strict=True):
            side[~mask] = attacker(table[~mask])
    return scores


def _auc_by_fold(scores: tuple[Array, Array], weights: list[Array], dealt: list[Labels], folds: int) -> Bounds:
    """The mean of the folds' areas, with the interval of the area of as many samples ranked in one."""
    from scipy.stats import rankdata

    areas, ranks = [], [np.empty(side.size) for side in scores]
    for number in range(folds):
        inside = [fold == number for fold in dealt]
        s, t = (side[mask] for side, mask in zip(scores, inside, strict=True))
        u, v = (side[mask] for side, mask in zip(weights, inside, strict=True))
        areas.append(weighted_auc(s, t, u, v))
        # By their rank in the fold the samples of all folds can stand beside each other for the variance.
        both = rankdata(np.concatenate([s, t])) / (s.size + t.size + 1)
        for side, mask, part in zip(ranks, inside, (both[: s.size], both[s.size :]), strict=True):
            side[mask] = part
    value = float(np.mean(areas))
    pooled = auc_interval(ranks[0], ranks[1], weights[0], weights[1])
    return _widened(Bounds(value, value + pooled.low - pooled.value, value + pooled.high - pooled.value))


def _widened(bounds: Bounds) -> Bounds:
    """An interval sqrt 2 times as wide, cut to [0, 1]."""
    low, high = (bounds.value + np.sqrt(2) * (end - bounds.value) for end in bounds[1:])
    return Bounds(bounds.value, max(0.0, float(low)), min(1.0, float(high)))


class _Attacker(NamedTuple):
    """A fitted regression."""

    shift: Array
    scale: Array
    coefficients: Array
    intercept: float

    def __call__(self, table: Array) -> Array:
        """Log-odds of ``(samples, features)``."""
        result: Array = ((table - self.shift) / self.scale) @ self.coefficients + self.intercept
        return result


def _fit(tables: list[Array], weights: list[Array]) -> _Attacker:
    from sklearn.linear_model import LogisticRegression

    # Each side weighs as much, and both together as many samples as there are.
    sides = [side / side.sum() for side in weights]
    share = np.concatenate(sides) / 2
    table, member = np.concatenate(tables), np.repeat([1, 0], [len(part) for part in tables])
    shift = np.average(table, axis=0, weights=share)
    scale = np.sqrt(np.average(np.square(table - shift), axis=0, weights=share))
    scale[scale < 1e-12] = 1.0
    regression = LogisticRegression(max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not quite converged is an attacker too
        regression.fit((table - shift) / scale, member, sample_weight=share * len(table))
    return _Attacker(shift, scale, regression.coef_[0], float(regression.intercept_[0]))


def _own(logits: Values, y: Values) -> tuple[Array, tuple[Labels, Labels]]:
    """The log-odds ``(samples, classes)``, and where in them the labels' are."""
    odds = log_odds(logits)
    numbers = labels(y, len(odds))
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < odds.shape[1]):
        raise InputError(f"labels: expected 0 to {odds.shape[1] - 1}, got {numbers.min()} to {numbers.max()}")
    return odds, (np.arange(numbers.size), numbers)


def _without(shifted: Array, top: Labels) -> Array:
    """Ln of the sum of exponentials without the largest term, ``(samples, 1)``; -inf for a single class."""
    rest = shifted.copy()
    np.put_along_axis(rest, top, -np.inf, axis=1)
    highest = rest.max(axis=1, keepdims=True)
    highest = np.where(np.isneginf(highest), 0.0, highest)
    with np.errstate(divide="ignore"):
        result: Array = highest + np.log(np.exp(rest - highest).sum(axis=1, keepdims=True))
    return result


def _products(first: Array, second: Array) -> Array:
    """Products with 0 * inf = 0, the limit of x ln x."""
    result: Array = np.where(first > 0, first * np.where(first > 0, second, 0.0), 0.0)
    return result
