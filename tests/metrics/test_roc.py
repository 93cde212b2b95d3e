"""ROC figures against scikit-learn, closed forms for Gaussians, and coverage where nothing leaks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, norm
from sklearn.metrics import roc_auc_score

from qunlearn.errors import InputError
from qunlearn.metrics import auc, auc_interval, balanced_accuracy
from qunlearn.metrics.roc import best_threshold

SCORES = st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=30)


@given(SCORES, SCORES)
def test_auc_is_scikit_learns_and_leaves_out_what_is_no_number(positive: list[float], negative: list[float]) -> None:
    truth = roc_auc_score([1] * len(positive) + [0] * len(negative), positive + negative)
    assert auc([*positive, math.nan], negative) == pytest.approx(truth, abs=1e-12)
    assert auc([*positive, 5.0], negative, [1.0] * len(positive) + [0.0]) == pytest.approx(truth, abs=1e-12)


def test_the_interval_is_delongs_from_pairs() -> None:
    rng = np.random.default_rng(0)
    s, t = rng.normal(0.7, 1, 40).round(1), rng.normal(0, 1, 25).round(1)
    wins = (s[:, None] > t) + 0.5 * (s[:, None] == t)
    area = wins.mean()
    variance = wins.mean(axis=1).var(ddof=1) / 40 + wins.mean(axis=0).var(ddof=1) / 25
    half = norm.ppf(0.975) * math.sqrt(variance) / (area * (1 - area))
    odds = math.log(area / (1 - area))
    low, high = (1 / (1 + math.exp(-(odds + sign * half))) for sign in (-1, 1))
    assert auc_interval(s, t) == pytest.approx((area, low, high), abs=1e-12)
    # A weight that is the same for all changes nothing; a weight of 0 takes the sample out.
    assert auc_interval(s, t, np.full(40, 3.0), np.full(25, 0.2)) == pytest.approx((area, low, high), abs=1e-12)
    more, weights = np.append(s, 9.0), np.append(np.ones(40), 0.0)
    assert auc_interval(more, t, weights) == pytest.approx((area, low, high), abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5], ids=["no-leak", "some", "much"])
def test_the_interval_covers_the_known_area_of_two_gaussians(shift: float) -> None:
    truth, runs, covered = norm.cdf(shift / math.sqrt(2)), 300, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        found = auc_interval(rng.normal(shift, 1, 40), rng.normal(0, 1, 60))
        covered += found.low <= truth <= found.high
    assert covered >= binom.ppf(1e-3, runs, 0.94)


def test_perfect_separation_still_has_an_interval() -> None:
    found = auc_interval([1.0, 2.0, 3.0], [0.0, -1.0, 0.5, 0.2])
    assert found == pytest.approx((1.0, 0.025 ** (1 / 3), 1.0))
    assert auc_interval([0.0, -1.0, 0.5, 0.2], [1.0, 2.0, 3.0]) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 3)))
    few = auc_interval([1.0], [0.0, 0.5])
    assert few.value == 1
    assert math.isnan(few.low)


def test_balanced_accuracy_reaches_the_known_power_and_is_no_better_than_chance_by_chance() -> None:
    rng = np.random.default_rng(0)
    strong = balanced_accuracy(rng.normal(1.5, 1, 4000), rng.normal(0, 1, 6000))
    assert strong.high - strong.low < 0.03
    assert strong.value == pytest.approx(norm.cdf(0.75), abs=0.015)
    values, plugged = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        s, t = rng.normal(size=30), rng.normal(size=45)
        values.append(balanced_accuracy(s, t, seed=seed).value)
        limit = best_threshold(s, np.ones(30), t, np.ones(45))
        plugged.append(((s > limit).mean() + (t <= limit).mean()) / 2)
    assert abs(np.mean(values) - 0.5) < 4 * np.std(values) / math.sqrt(200)
    assert np.mean(plugged) > 0.56  # what the cross-fitting is for


def test_of_equally_good_thresholds_the_middle_one_is_taken() -> None:
    two, three = np.ones(2), np.ones(3)
    assert best_threshold(np.array([2.0, 4.0]), two, np.array([1.0, 3.0]), two) == 3.5
    assert best_threshold(np.array([2.0, 4.0, 6.0]), three, np.array([1.0, 3.0, 5.0]), three) == 3.5
    assert best_threshold(np.array([9.0, 9.0]), two, np.array([1.0, 3.0]), two) == 6.0


def test_balanced_accuracy_at_a_given_threshold_counts() -> None:
    found = balanced_accuracy([1.0, 2.0, -1.0, 3.0], [0.0, 0.5, -3.0, 0.0, 7.0], threshold=0.0)
    assert found.value == pytest.approx((3 / 4 + 3 / 5) / 2)
    ends = [binomtest(k, n).proportion_ci(0.95, "exact") for k, n in ((3, 4), (3, 5))]
    below = math.hypot(3 / 4 - ends[0].low, 3 / 5 - ends[1].low) / 2
    assert found.low == pytest.approx(found.value - below)
    weighted = balanced_accuracy([1.0, -1.0], [-1.0, 1.0], [3.0, 1.0], [1.0, 1.0], threshold=0.0)
    assert weighted.value == pytest.approx((0.75 + 0.5) / 2)
    assert math.isnan(balanced_accuracy([1.0], [0.0, 1.0]).value)


def test_what_is_no_input_is_refused() -> None:
    with pytest.raises(InputError, match="positive_weights: expected 2 numbers"):
        auc([1.0, 2.0], [0.0], [1.0])
    with pytest.raises(InputError, match="negative_weights"):
        auc([1.0], [0.0], None, [-1.0])
    with pytest.raises(InputError, match="95 % is"):
        auc_interval([1.0, 2.0], [0.0, 1.0], level=95)
