"""Audits of outputs, weights and states: distances, Streisand, deletion, confusion."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import beta, ks_2samp
from sklearn.metrics import accuracy_score, confusion_matrix
from torch import nn

from qunlearn.data import ForgetRequest, load_dataset
from qunlearn.evaluation.audit import audit
from qunlearn.evaluation.audit.intervals import distance_of_distributions, mean_bounds
from qunlearn.evaluation.audit.streisand import signals
from tests.evaluation.audit.cases import Trained, network


def _logits(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model(x).double().numpy()
    return found


def test_the_forgotten_classs_test_samples_stand_apart(digit: Trained) -> None:
    found = digit.audit(digit.original, "class_deletion")
    test = digit.split.test
    predicted, y = _logits(digit.original, test.x).argmax(1), test.y.numpy()
    forgotten, retained = found["class_deletion_forgotten"], found["class_deletion_retained"]
    assert forgotten.value == accuracy_score(y[y == 3], predicted[y == 3])
    assert retained.value == accuracy_score(y[y != 3], predicted[y != 3])
    n, right = int((y != 3).sum()), int((predicted == y)[y != 3].sum())
    assert (retained.low, retained.high) == pytest.approx(
        (beta.ppf(0.025, right, n - right + 1), beta.ppf(0.975, right + 1, n - right))
    )
    assert found["class_deletion_named"].value == np.mean(predicted[y != 3] == 3)
    assert forgotten.retrained == 0


def test_swapped_labels_are_counted_as_confusion() -> None:
    data = load_dataset("digits", per_class=30)
    split = data.split(ForgetRequest.of_corrupted(), seed=0, corruption={"swap": [3, 5, 0.3]})
    model = nn.Sequential(nn.Flatten(), network(0, 64, 10))
    found = audit(model, split, audits=["confusion"])
    table = confusion_matrix(split.test.y, _logits(model, split.test.x).argmax(1), labels=range(10))
    total = table[[3, 5]].sum()
    assert found["confusion_count"].value == pytest.approx(table[3, 5] + table[5, 3])
    assert found["confusion_mixed"].value == pytest.approx((table[3, 5] + table[5, 3]) / total)
    assert found["confusion_error"].value == pytest.approx(1 - (table[3, 3] + table[5, 5]) / total)


@pytest.mark.parametrize("corruption", [None, {"label_flips": 0.2}])
def test_without_a_swap_there_is_no_confusion_to_count(corruption: dict[str, float] | None) -> None:
    split = load_dataset("digits", per_class=30).split(ForgetRequest.of_fraction(0.1), seed=0, corruption=corruption)
    model = nn.Sequential(nn.Flatten(), network(0, 64, 10))
    (found,) = audit(model, split, audits=["confusion"])
    assert found.reason == "no labels of two classes were swapped in the training data"
    (found,) = audit(model, split, audits=["class_deletion"])
    assert found.reason == "the request is not for a class"


def test_a_model_that_is_sure_to_be_wrong_on_the_forget_set_stands_out(by_heart: Trained) -> None:
    split = by_heart.split
    taught = copy.deepcopy(by_heart.original)
    optimizer = torch.optim.Adam(taught.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(taught(split.forget.x), 1 - split.forget.y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = by_heart.audit(taught, "streisand", "membership")
    assert found["streisand_ks_loss"].low > found["streisand_ks_loss"].retrained_high
    assert found["streisand_auc"].low > found["streisand_auc"].retrained_high
    # By loss they look like anything but members: an AUC below one half, and just as much of a leak.
    assert found["membership_loss_auc"].high < 0.3
    assert found["membership_loss_auc_excess"].high < -0.2


def test_signals_are_entropy_loss_and_scaled_confidence() -> None:
    logits, y = 3 * np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    p = softmax(logits, axis=1)
    own = p[np.arange(6), y]
    found = signals(logits, y)
    assert found["entropy"] == pytest.approx(-(p * np.log(p)).sum(axis=1))
    assert found["loss"] == pytest.approx(-np.log(own))
    assert found["phi"] == pytest.approx(np.log(own / (1 - own)))


def test_distance_of_distributions_is_kolmogorovs_and_counts_weights_as_copies() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=40).round(1), random.normal(0.5, size=90).round(1)
    bounds = distance_of_distributions(one, other, np.ones(40), np.ones(90))
    assert bounds.value == pytest.approx(ks_2samp(one, other).statistic)
    copies = random.integers(0, 4, size=90)
    weighted = distance_of_distributions(one, other, np.ones(40), copies.astype(float))
    assert weighted.value == pytest.approx(ks_2samp(one, np.repeat(other, copies)).statistic)
    size = copies.sum() ** 2 / (copies**2).sum()
    width = math.sqrt(math.log(80) / 80) + math.sqrt(math.log(80) / (2 * size))
    assert weighted.high == pytest.approx(min(1, weighted.value + width))
    assert math.isnan(distance_of_distributions(one, other, np.zeros(40), np.ones(90)).value)


def test_the_interval_of_a_distance_covers_the_true_one() -> None:
    missed = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        found = distance_of_distributions(random.random(30), random.random(50) * 0.7, np.ones(30), np.ones(50))
        missed += not found.low <= 0.3 <= found.high
    assert missed <= 5


def test_means_have_students_interval_and_stay_in_range() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.9])
    found = mean_bounds(values, 0.0, 1.0)
    half = 3.182446305 * values.std(ddof=1) / 2
    assert found == pytest.approx((0.4, 0.0, min(1, 0.4 + half)))
    assert math.isnan(mean_bounds([0.5]).low)


def test_distances_are_means_of_norms_over_samples_and_retrained_models(digit: Trained) -> None:
    found = digit.audit(digit.original, "distances")
    x, test = digit.split.forget.x, digit.split.test
    for norm, order in (("l1", 1), ("l2", 2)):
        for stage, end in (("1", 2), ("3", 4), ("4", 5)):
            mine = digit.original[:end](x)  # type: ignore[index]
            parts = [(mine - other[:end](x)).norm(order, dim=1).mean().item() for other in digit.retrained]  # type: ignore[index]
            assert found[f"distance_activation_{norm}_{stage}"].value == pytest.approx(np.mean(parts), rel=1e-4)
    kept = test.x[test.y != 3]
    for name, inputs in (("forget", x), ("test", kept)):
        p, *qs = (softmax(_logits(model, inputs), axis=1) for model in (digit.original, *digit.retrained))
        expected = np.mean([np.linalg.norm(p - q, axis=1).mean() for q in qs])
        assert found[f"distance_function_{name}"].value == pytest.approx(expected, rel=1e-4)
    states = [m[3].state(m[:3](x)).flatten(1).detach().numpy() for m in (digit.original, *digit.retrained)]  # type: ignore[index]
    infidelity = [1 - np.abs((states[0].conj() * other).sum(1)) ** 2 for other in states[1:]]
    assert found["distance_states"].value == pytest.approx(np.mean(infidelity), abs=1e-5)


def test_weights_are_measured_around_the_circle_and_in_units_of_the_originals_distance(digit: Trained) -> None:
    turned: Any = copy.deepcopy(digit.original)
    with torch.no_grad():
        turned[3].weights.add_(2 * math.pi)
    for model in (digit.original, turned):
        found = digit.audit(model, "distances")
        for stage in ("1", "3", "4"):
            assert found[f"distance_weights_{stage}"].value == pytest.approx(1, abs=1e-5)
    models: list[Any] = [digit.original, *digit.retrained]
    original, first, *others = models
    found = digit.audit(first, "distances")
    ratios = []
    for other in others:
        steps = [a[1].weight - other[1].weight for a in (first, original)]
        biases = [a[1].bias - other[1].bias for a in (first, original)]
        lengths = [math.hypot(s.norm().item(), b.norm().item()) for s, b in zip(steps, biases, strict=True)]
        ratios.append(lengths[0] / lengths[1])
    assert found["distance_weights_1"].value == pytest.approx(np.mean(ratios), rel=1e-5)
