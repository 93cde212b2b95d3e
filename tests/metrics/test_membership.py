import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from qunlearn.metrics import confidence, membership_auc, membership_auc_published
from qunlearn.metrics.membership import class_weights, weighted_auc


@pytest.mark.parametrize("levels", [4, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_weighted_auc_is_scikit_learns_ties_included(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    s, t = rng.integers(levels, size=31).astype(float), rng.integers(levels, size=53).astype(float)
    u, v = rng.random(31), rng.random(53)
    truth = roc_auc_score([1] * 31 + [0] * 53, np.concatenate([s, t]), sample_weight=np.concatenate([u, v]))
    assert weighted_auc(s, t, u, v) == pytest.approx(truth, abs=1e-12)


def test_confidence_is_the_largest_log_probability() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 4))
    assert confidence(logits) == pytest.approx(np.log(softmax(logits, axis=1).max(axis=1)))
    # both probabilities round to 1; their order is kept
    sharper, sharp = confidence([[60.0, 0.0], [50.0, 0.0]])
    assert sharper > sharp
    assert confidence(np.zeros((1, 8)))[0] == pytest.approx(-math.log(8))


def test_membership_auc_with_matched_classes_is_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    forget_y, holdout_y = rng.integers(3, size=25), rng.choice(3, size=90, p=[0.7, 0.2, 0.1])
    # confidence depends on the class alone: without matching the attack would seem to work
    forget, holdout = (np.eye(3)[y] * (1 + y[:, None]) + rng.normal(size=(len(y), 3)) for y in (forget_y, holdout_y))
    weights = [np.mean(forget_y == y) / np.mean(holdout_y == y) for y in holdout_y]
    scores = np.concatenate([softmax(z, axis=1).max(axis=1) for z in (forget, holdout)])
    truth = roc_auc_score([1] * 25 + [0] * 90, scores, sample_weight=np.concatenate([np.ones(25), weights]))
    unmatched = roc_auc_score([1] * 25 + [0] * 90, scores)
    assert membership_auc(forget, forget_y, holdout, holdout_y) == pytest.approx(truth, abs=1e-12)
    assert abs(truth - unmatched) > 0.02


def test_class_weights_give_the_forget_sets_shares() -> None:
    members, others = np.array([0, 0, 0, 1, 3]), np.array([0, 1, 1, 2])
    own, weights = class_weights(members, others)
    assert own.tolist() == [1, 1, 1, 1, 0]  # class 3 has no non-member
    assert weights.tolist() == [3, 0.5, 0.5, 0]  # class 2 has no member


def test_no_matched_class_is_nan() -> None:
    assert math.isnan(membership_auc(np.zeros((2, 2)), [0, 0], np.zeros((3, 2)), [1, 1, 1]))
    assert math.isnan(membership_auc(np.zeros((2, 2)), [0, 0], np.zeros((0, 2)), []))


def test_indistinguishable_samples_give_one_half() -> None:
    logits, y = np.random.default_rng(2).normal(size=(30, 3)), np.arange(30) % 3
    assert membership_auc(logits, y, logits[::-1], y[::-1]) == pytest.approx(0.5)


def test_published_attack_draws_as_many_negatives() -> None:
    rng = np.random.default_rng(4)
    forget, retain = rng.normal(size=(12, 3)), rng.normal(size=(100, 3))
    drawn = retain[np.random.default_rng(9).permutation(100)[:12]]
    scores = [softmax(z, axis=1).max(axis=1).astype(np.float32) for z in (forget, drawn)]
    truth = roc_auc_score([1] * 12 + [0] * 12, np.concatenate(scores))
    assert membership_auc_published(forget, retain, np.random.default_rng(9)) == pytest.approx(truth, abs=1e-12)
    # more confident than every member of the retain set: 0 and 1 are both reached
    assert membership_auc_published(forget * 0, retain * 50, np.random.default_rng(0)) == 0
    assert membership_auc_published(np.eye(3)[[0] * 12] * 90, retain, np.random.default_rng(0)) == 1
