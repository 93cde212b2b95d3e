"""Pooled attacks: the same figures as without weights, and intervals over models and samples."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import roc_curve

from qunlearn.errors import InputError
from qunlearn.metrics import Rate, attack_curve, auc, auc_interval, balanced_accuracy


def best_rate(positive: np.ndarray, negative: np.ndarray, fpr: float) -> float:
    """The greatest true-positive rate of scikit-learn's curve at such a false-positive rate."""
    worlds = np.repeat([1, 0], [len(positive), len(negative)])
    rates = roc_curve(worlds, np.concatenate([positive, negative]), drop_intermediate=False)
    return float(max(tpr for found, tpr in zip(*rates[:2], strict=True) if found <= fpr + 1e-12))


@pytest.mark.parametrize("levels", [5, 10_000], ids=["ties", "none"])
def test_figures_are_those_of_all_scores_in_one(levels: int) -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(levels, size=(20, 150)) / levels - 0.5
    positive = rng.random(scores.shape) < 0.4
    scores[positive] += 0.2
    scores[3, :10] = math.nan
    curve = attack_curve(scores, positive, fprs=(0.01, 0.05), resamples=20)
    s, t = scores[positive], scores[~positive]
    assert curve.auc.value == pytest.approx(auc(s, t), abs=1e-12)
    assert curve.balanced_accuracy.value == pytest.approx(balanced_accuracy(s, t, threshold=0.0).value, abs=1e-12)
    for fpr in (0.01, 0.05):
        found = curve.tpr[fpr]
        assert found.value == pytest.approx(best_rate(s[~np.isnan(s)], t[~np.isnan(t)], fpr))
        assert found.low <= found.value <= found.high
        assert (s > found.threshold).sum() / (~np.isnan(s)).sum() == pytest.approx(found.value)
        assert (t > found.threshold).sum() / (~np.isnan(t)).sum() <= fpr
    present = ~np.isnan(scores)
    assert (curve.positives, curve.negatives) == (int((positive & present).sum()), int((~positive & present).sum()))
    assert (curve.models, curve.samples) == scores.shape


@given(st.lists(st.integers(0, 40), min_size=1, max_size=40), st.lists(st.integers(0, 40), min_size=100, max_size=160))
def test_a_rate_is_scikit_learns_whatever_the_ties(positive: list[int], negative: list[int]) -> None:
    scores = np.array([positive + negative], dtype=np.float64)
    found = attack_curve(scores, np.arange(scores.size) < len(positive), fprs=(0.1,), resamples=2).tpr[0.1]
    assert found.value == pytest.approx(best_rate(np.array(positive), np.array(negative), 0.1), abs=1e-12)
    assert np.mean(np.array(negative) > found.threshold) <= 0.1
    assert np.mean(np.array(positive) > found.threshold) == pytest.approx(found.value)
    assert (found.positives, found.negatives, found.reason) == (len(positive), len(negative), "")


def test_a_rate_needs_ten_negatives_beyond_its_threshold() -> None:
    def rate(positives: int, negatives: int) -> Rate:
        return attack_curve(np.zeros((1, positives + negatives)), np.arange(positives + negatives) < positives).tpr[
            0.01
        ]

    needed = "needs 1000 non-member scores for a false-positive rate of 1 %, there are 999"
    assert rate(5, 999).reason == needed
    assert rate(0, 1000).reason == "there are no member scores"
    assert rate(5, 1000).value == 0, "all equal: no threshold separates, and none is claimed to"


def test_a_rate_is_absent_with_its_reason() -> None:
    scores, member = np.random.default_rng(0).normal(size=(1, 100)), np.arange(100) < 50
    curve = attack_curve(scores, member, resamples=20)
    assert math.isnan(curve.tpr[0.01].value)
    assert curve.tpr[0.01].reason.startswith("needs 1000 non-member scores")
    assert curve.tpr[0.001].reason.startswith("needs 10000 non-member scores")


def test_one_model_has_the_interval_of_its_samples() -> None:
    rng = np.random.default_rng(2)
    member = np.arange(200) < 90
    scores = rng.normal(size=200) + member
    found = attack_curve(scores[None], member, resamples=800)
    delong = auc_interval(scores[member], scores[~member])
    assert found.auc.value == pytest.approx(delong.value)
    assert found.auc.high - found.auc.low == pytest.approx(delong.high - delong.low, rel=0.15)


@pytest.mark.parametrize("shared", ["models", "samples"])
def test_what_models_or_samples_share_is_in_the_interval(shared: str) -> None:
    """Scores with a common part: taken for independent, their interval would cover far too seldom."""
    covered, naive, runs = 0, 0, 40
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        positive = np.stack([rng.permutation(40) < 20 for _ in range(20)])
        common = rng.normal(size=(20, 1) if shared == "models" else (1, 40))
        # The common part turns the scores' direction: no leak on average, much of it in any one row or column.
        scores = np.where(positive, 1.0, -1.0) * common + rng.normal(size=(20, 40))
        found = attack_curve(scores, positive, resamples=80, seed=seed)
        covered += found.auc.low <= 0.5 <= found.auc.high
        plain = auc_interval(scores[positive], scores[~positive])
        naive += plain.low <= 0.5 <= plain.high
    assert covered >= binom.ppf(1e-3, runs, 0.92)
    assert naive < 0.6 * runs


def test_a_world_without_scores_has_no_figures() -> None:
    curve = attack_curve(np.zeros((3, 5)), np.ones(5, dtype=bool), resamples=5)
    assert all(math.isnan(value) for value in (*curve.auc, *curve.balanced_accuracy))
    assert curve.negatives == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="expected positive of shape"):
        attack_curve(np.zeros((3, 5)), np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="two resamples or more"):
        attack_curve(np.zeros((3, 5)), np.ones(5, dtype=bool), resamples=1)
    with pytest.raises(InputError, match="between 0 and 1, got 0"):
        attack_curve(np.zeros((3, 5)), np.arange(5) < 2, fprs=(0.0,))
