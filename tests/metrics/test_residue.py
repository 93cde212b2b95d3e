"""What remains: scores against hand-made cases and scikit-learn's and scipy's figures."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from qunlearn.errors import InputError
from qunlearn.metrics import (
    information_difference,
    information_difference_by_part,
    interclass_confusion,
    layer_distance,
    zrf,
    zrf_by_sample,
)


def test_zrf_is_one_less_the_divergence_in_bits() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 40, 5)) * 4
    divergence = jensenshannon(softmax(one, axis=1), softmax(other, axis=1), axis=1, base=2) ** 2
    assert zrf(one, other) == pytest.approx(1 - divergence.mean(), abs=1e-12)
    assert zrf_by_sample(one, other) == pytest.approx(1 - divergence, abs=1e-12)
    assert zrf(one, one) == pytest.approx(1)
    assert zrf(np.eye(2) * 900, np.eye(2)[::-1] * 900) == pytest.approx(0, abs=1e-12)
    assert math.isnan(zrf(np.zeros((0, 3)), np.zeros((0, 3))))


def test_information_difference_is_a_ratio_of_signed_sums() -> None:
    original, retrained = [1.2, 0.9, 0.8], [0.7, 0.5, 0.3]
    assert information_difference(original, original, retrained) == pytest.approx(1)
    assert information_difference(retrained, original, retrained) == 0
    assert information_difference([0.9, 0.4, 0.3], original, retrained) == pytest.approx((0.2 - 0.1) / 1.4)
    assert information_difference([0.6, 0.5, 0.3], original, retrained) == pytest.approx(-0.1 / 1.4)
    parts = information_difference_by_part([0.9, 0.4, 0.3], original, retrained)
    assert parts == pytest.approx([3 * 0.2 / 1.4, -3 * 0.1 / 1.4, 0])
    assert math.isnan(information_difference(original, retrained, original))
    with pytest.raises(InputError, match="the same layers of three models, got 2, 3 and 3"):
        information_difference([1.0, 2.0], original, retrained)


def test_interclass_confusion_counts_as_the_confusion_matrix_does() -> None:
    rng = np.random.default_rng(1)
    y, logits = rng.integers(4, size=200), rng.normal(size=(200, 4)) + np.eye(4)[rng.integers(4, size=200)]
    table = confusion_matrix(y, logits.argmax(axis=1))
    found = interclass_confusion(logits, y, 3, 1)
    both = int(table[1].sum() + table[3].sum())
    assert (found.n, found.forgotten) == (both, int(table[1, 3] + table[3, 1]))
    wrong = both - int(table[1, 1] + table[3, 3])
    exact = binomtest(wrong, both).proportion_ci(0.95, "exact")
    assert found.error == pytest.approx((wrong / both, exact.low, exact.high))
    assert found.mixed.value == found.forgotten / both
    assert math.isnan(interclass_confusion(logits[y < 2], y[y < 2], 2, 3).error.value)
    for classes in ((1, 1), (0, 4), (-1, 0)):
        with pytest.raises(InputError, match="expected two classes from 0 to 3"):
            interclass_confusion(logits, y, *classes)


def test_layer_distance_is_in_units_of_the_original_and_goes_around_the_circle() -> None:
    periods = [2 * math.pi, math.inf]
    retrained, original = [0.1, 1.0], [2 * math.pi - 0.2, 1.0]  # 0.3 away the short way
    assert layer_distance(original, original, retrained, periods) == pytest.approx(1)
    assert layer_distance([0.1, 1.6], original, retrained, periods) == pytest.approx(2)
    assert math.isnan(layer_distance(original, retrained, retrained, periods))
