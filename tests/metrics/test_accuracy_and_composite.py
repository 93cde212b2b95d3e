import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from qunlearn.errors import InputError
from qunlearn.metrics import accuracy, gap, tug_of_war, uqi

# Published rows: accuracies on retain, forget, test of the original, then of the unlearned model, then the UQI
# (Crivoi and Ionescu 2025, arXiv 2512.19253, released tables, three decimals).
PUBLISHED_UQI = {
    "MNIST subset LCA": ((0.9994, 1.0, 0.9375), (0.997, 0.250, 0.912), 0.737),
    "MNIST subset GA": ((0.9994, 1.0, 0.9375), (0.830, 0.656, 0.765), 0.173),
    "MNIST class EU-k1": ((0.9993, 1.0, 0.9375), (1.000, 0.000, 0.835), 0.949),
    "Iris class EU-k1": ((0.8750, 1.0, 0.9667), (0.887, 0.000, 0.600), 0.823),
    "Iris subset EU-k1": ((0.9231, 0.6667, 0.9667), (0.940, 1.000, 0.967), -0.325),
    "Fashion subset LCA": ((0.9321, 0.9609, 0.8656), (0.937, 0.086, 0.854), 0.872),
    "Fashion class Certified": ((0.9408, 0.8594, 0.8656), (0.952, 0.542, 0.841), 0.311),
}


def _named(values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("retain", "forget", "test"), values, strict=True))


@pytest.mark.parametrize("row", sorted(PUBLISHED_UQI))
def test_uqi_of_published_rows(row: str) -> None:
    original, unlearned, published = PUBLISHED_UQI[row]
    # three rounded accuracies with weights 1, 1/2, 1/2 move the index by up to 1e-3, its own rounding by 5e-4
    assert uqi(_named(unlearned), _named(original)) == pytest.approx(published, abs=1.6e-3)


def test_uqi_rewards_over_forgetting() -> None:
    original = _named((0.99, 1.0, 0.95))
    retrained, too_much = _named((0.99, 0.95, 0.95)), _named((0.99, 0.0, 0.95))
    assert uqi(too_much, original) > uqi(retrained, original)
    assert uqi(original, original) == 0


def test_tug_of_war_by_hand() -> None:
    unlearned = _named((0.9, 0.5, 0.8))
    retrained = {"retain": [0.8, 1.0], "forget": [0.4, 0.8], "test": [0.9, 0.9]}
    assert tug_of_war(unlearned, retrained) == pytest.approx(1.0 * 0.9 * 0.9)
    assert tug_of_war(_named((0.9, 0.6, 0.9)), retrained) == pytest.approx(1.0)


def test_gap_is_to_the_mean_of_the_retrained_models() -> None:
    assert gap(0.5, [0.1, 0.3]) == pytest.approx(0.3)
    with pytest.raises(InputError, match="at least one retrained model"):
        gap(0.5, [])


def test_accuracy_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(57, 5)), rng.integers(5, size=57)
    expected = accuracy_score(y, logits.argmax(axis=1))
    assert accuracy(logits, y) == pytest.approx(expected)
    assert accuracy(torch.tensor(logits, requires_grad=True), torch.tensor(y)) == pytest.approx(expected)


def test_accuracy_of_nothing_is_nan() -> None:
    assert math.isnan(accuracy(np.empty((0, 3)), np.empty(0, dtype=int)))


def test_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected shape \(samples, classes\), got \(4,\)"):
        accuracy(np.zeros(4), np.zeros(4))
    with pytest.raises(InputError, match=r"labels: expected shape \(4,\)"):
        accuracy(np.zeros((4, 2)), np.zeros(3))
