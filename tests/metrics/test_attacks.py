"""Scores of single samples against their formulas, and a trained attacker that finds leaks and invents none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from qunlearn.errors import InputError
from qunlearn.metrics import (
    TrainedAttack,
    membership_scores,
    modified_entropy,
    phi,
    sample_entropy,
    sample_loss,
    trained_attack,
    weighted_auc,
)
from qunlearn.metrics.attacks import attack_features
from qunlearn.metrics.folds import deal

LOGITS = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-30, 30))


@given(LOGITS, st.integers(0, 10))
def test_scores_are_their_formulas(logits: np.ndarray, shift: int) -> None:
    """The formulas as printed, sample by sample, with 1 - p_k as the sum of the other probabilities."""
    y = (np.arange(len(logits)) + shift) % logits.shape[1]
    for row, (z, label) in enumerate(zip(logits, y, strict=True)):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        rest = np.array([np.delete(p, k).sum() for k in range(p.size)])
        log_p = np.where(rest < 0.5, np.log1p(-np.minimum(rest, 0.5)), np.log(p))
        log_rest = np.where(p < 0.5, np.log1p(-np.minimum(p, 0.5)), np.log(rest))
        song_mittal = -rest[label] * log_p[label] - sum(p[k] * log_rest[k] for k in range(p.size) if k != label)
        assert phi(logits, y)[row] == pytest.approx(np.log(p[label]) - np.log(rest[label]), rel=1e-9, abs=1e-9)
        assert sample_loss(logits, y)[row] == pytest.approx(-log_p[label], rel=1e-9, abs=1e-300)
        assert sample_entropy(logits)[row] == pytest.approx(-(p * log_p).sum(), rel=1e-9, abs=1e-300)
        assert modified_entropy(logits, y)[row] == pytest.approx(song_mittal, rel=1e-9, abs=1e-300)


def test_certainty_keeps_its_digits() -> None:
    # Two classes, d apart: loss ln(1 + e^-d), modified entropy -2 (1 - p) ln p.
    for d in (1.0, 40.0, 300.0):
        right, wrong = np.array([[d, 0.0]]), np.array([[0.0, d]])
        tail = math.exp(-d)
        assert sample_loss(right, [0])[0] == pytest.approx(math.log1p(tail), rel=1e-12)
        assert sample_loss(wrong, [0])[0] == pytest.approx(d + math.log1p(tail), rel=1e-12)
        p_wrong = tail / (1 + tail)
        assert modified_entropy(right, [0])[0] == pytest.approx(2 * p_wrong * math.log1p(tail), rel=1e-12)
        assert sample_entropy(right)[0] == pytest.approx(
            p_wrong * (d + math.log1p(tail)) + math.log1p(tail) / (1 + tail)
        )
        assert (phi(right, [0])[0], phi(wrong, [0])[0]) == (d, -d)
    assert phi([[5000.0, 0.0, 0.0]], [0])[0] == pytest.approx(5000 - math.log(2))
    assert phi([[0.0, 5000.0, 4000.0]], [0])[0] == pytest.approx(-5000)


def test_impossible_classes_and_ties() -> None:
    minus = -math.inf
    assert sample_loss([[0.0, minus]], [0])[0] == 0
    assert sample_loss([[0.0, minus]], [1])[0] == math.inf
    assert sample_entropy([[0.0, minus, minus]])[0] == 0
    assert modified_entropy([[0.0, minus]], [0])[0] == 0
    assert modified_entropy([[0.0, minus]], [1])[0] == math.inf
    assert phi([[0.0, minus]], [0])[0] == math.inf
    np.testing.assert_allclose(phi(np.zeros((1, 4)), [2]), -math.log(3))
    np.testing.assert_allclose(sample_entropy(np.zeros((1, 4))), math.log(4))


def test_modified_entropy_knows_the_label_and_entropy_does_not() -> None:
    sure = np.array([[6.0, 0.0, 0.0]])
    assert sample_entropy(sure)[0] < 0.05
    assert modified_entropy(sure, [0])[0] < 0.001
    assert modified_entropy(sure, [1])[0] > 6
    levels = np.linspace(-8, 8, 50)
    falling = modified_entropy(np.column_stack([levels, np.zeros(50), np.zeros(50)]), np.zeros(50, dtype=int))
    assert (np.diff(falling) < 0).all()


def test_membership_scores_all_rise_with_certainty_of_the_right_class() -> None:
    levels = np.linspace(0.1, 50, 30)
    logits = np.column_stack([levels, np.zeros(30), np.zeros(30)])
    found = membership_scores(logits, np.zeros(30, dtype=int))
    assert list(found) == ["confidence", "loss", "entropy", "modified_entropy"]
    assert all((np.diff(values) > 0).all() for values in found.values())


@pytest.mark.parametrize(
    ("logits", "y", "message"),
    [
        ([[math.nan, 0.0]], [0], "expected numbers"),
        ([[math.inf, 0.0]], [0], "expected numbers"),
        ([[-math.inf, -math.inf]], [0], "a row of -inf"),
        (np.zeros((2, 0)), [0, 0], "at least one class"),
        (np.zeros((2, 3)), [0, 3], "expected 0 to 2, got 0 to 3"),
        (np.zeros((2, 3)), [-1, 0], "expected 0 to 2"),
        (np.zeros((2, 3)), [0], "one per row"),
    ],
    ids=["nan", "inf", "nothing", "no-class", "label-high", "label-low", "labels-short"],
)
def test_what_cannot_be_scored_is_refused(logits: object, y: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_loss(logits, y)  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 23), min_size=1, max_size=5), st.integers(2, 7), st.integers(0, 2**31))
def test_samples_are_dealt_out_evenly(sizes: list[int], folds: int, seed: int) -> None:
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    fold = deal(strata, folds, np.random.default_rng(seed))
    whole = np.bincount(fold, minlength=folds)
    assert whole.max() - whole.min() <= 1
    for number in range(len(sizes)):
        counts = np.bincount(fold[strata == number], minlength=folds)
        assert counts.max() - counts.min() <= 1


def outputs(seed: int, members: int, others: int, classes: int, leak: float) -> tuple[np.ndarray, ...]:
    """Logits whose confidence depends on the class, higher by `leak` for members; classes in unlike shares."""
    rng = np.random.default_rng(seed)
    y, holdout_y = rng.integers(classes, size=members), np.minimum(rng.integers(2 * classes, size=others), classes - 1)

    def logits(labels: np.ndarray, extra: float) -> np.ndarray:
        heights = (1.0 + 0.5 * labels + extra)[:, None]
        table: np.ndarray = heights * np.eye(classes)[labels] + rng.normal(size=(len(labels), classes))
        return table

    return logits(y, leak), y, logits(holdout_y, 0.0), holdout_y


def attacked(seed: int, members: int, others: int, leak: float = 0.0) -> TrainedAttack:
    return trained_attack(*outputs(seed, members, others, 3, leak), seed=seed)


@pytest.mark.parametrize(("members", "others"), [(20, 120), (90, 90)], ids=["few", "many"])
def test_the_trained_attacker_finds_nothing_where_nothing_leaks(members: int, others: int) -> None:
    found = [attacked(seed, members, others) for seed in range(40)]
    for figures in ([one.auc for one in found], [one.balanced_accuracy for one in found]):
        values = np.array([figure.value for figure in figures])
        assert abs(values.mean() - 0.5) < 4 * values.std(ddof=1) / np.sqrt(len(values))
        covered = sum(figure.low <= 0.5 <= figure.high for figure in figures)
        assert covered >= binom.ppf(1e-3, len(figures), 0.95)
    # The same attacker judged on what it was fitted to would see a leak.
    logits, y, other_logits, other_y = outputs(0, 20, 120, 3, 0.0)
    seen = np.concatenate([attack_features(logits, y), attack_features(other_logits, other_y)])
    fitted = LogisticRegression(max_iter=5000, class_weight="balanced").fit(seen, np.repeat([1, 0], [20, 120]))
    scores = fitted.decision_function(seen)
    assert weighted_auc(scores[:20], scores[20:], np.ones(20), np.ones(120)) > 0.55


def test_the_trained_attacker_finds_a_leak_and_says_the_same_twice() -> None:
    found = attacked(3, 120, 150, leak=2.0)
    assert found.auc.low > 0.6
    assert found.balanced_accuracy.low > 0.5
    again = attacked(3, 120, 150, leak=2.0)
    assert (found.auc, found.members.tolist()) == (again.auc, again.members.tolist())


def test_the_trained_attacker_leaves_out_what_has_no_match_and_refuses_too_few() -> None:
    logits, y, others, others_y = outputs(1, 60, 60, 3, 1.0)
    found = trained_attack(logits, y, others[others_y != 2], others_y[others_y != 2])
    assert np.isnan(found.members).tolist() == (y == 2).tolist()
    with pytest.raises(InputError, match="four samples or more"):
        trained_attack(logits[:3], y[:3], others, others_y)
    with pytest.raises(InputError, match="two folds or more"):
        trained_attack(logits, y, others, others_y, folds=1)
    sure = trained_attack(np.eye(3)[y] * 90, y, np.eye(3)[others_y], others_y)
    assert sure.auc.value == 1
