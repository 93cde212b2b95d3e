"""Models run in several ways: figures against the metrics themselves, intervals against a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from qunlearn import metrics
from qunlearn.errors import InputError
from qunlearn.evaluation.comparison import Comparison, Setting, Way

Floats = NDArray[np.float64]
SETS = {"forget": 30, "retain": 40, "test": 60, "holdout": 50}
MODELS = ("original", "a", "b", "retrained 0", "retrained 1", "retrained 2")


def setting(forgotten: int | None = None) -> Setting:
    generator = np.random.default_rng(0)
    labels = {name: generator.integers(0, 3, size) for name, size in SETS.items()}
    roles = {name: "retrained" if name.startswith("r") else "unlearned" for name in MODELS} | {"original": "original"}
    return Setting(roles, labels, forgotten)  # type: ignore[arg-type]


def way(name: str, noise: float, repeats: int = 0, seed: int = 1) -> Way:
    """Logits that know the labels, each model by another strength, with noise on top."""
    found, generator = setting(), np.random.default_rng(seed)
    logits = {}
    for number, model in enumerate(MODELS):
        exact = {
            part: np.eye(3)[y] * (1 + number / 2) + np.random.default_rng(number).normal(0, 1, (len(y), 3))
            for part, y in found.labels.items()
        }
        runs = {part: values + noise * generator.normal(size=values.shape) for part, values in exact.items()}
        logits[model] = {
            part: np.concatenate([values[None], values + noise * generator.normal(size=(repeats, *values.shape))])
            for part, values in runs.items()
        }
    return Way(name, logits)


def test_figures_are_those_of_the_metrics() -> None:
    found, ways = setting(), [way("exact", 0.0), way("shots", 0.3, 7)]
    comparison = Comparison(found, ways, resamples=50)
    entries = {(one.way, one.model, one.measure): one.bounds.value for one in comparison.entries}
    for one in ways:
        retrained = [one.logits[name] for name in MODELS[3:]]
        for model in MODELS:
            own = {part: runs[0] for part, runs in one.logits[model].items()}
            others = [{part: runs[0] for part, runs in other.items()} for other in retrained]
            others = [other for other in others if not np.array_equal(other["test"], own["test"])]
            assert len(others) == (2 if model.startswith("r") else 3)
            y = found.labels
            assert entries[one.name, model, "accuracy_test"] == metrics.accuracy(own["test"], y["test"])
            expected = np.mean([metrics.js(own["forget"], other["forget"]) for other in others])
            assert entries[one.name, model, "js_forget"] == pytest.approx(expected)
            sets = (own["forget"], y["forget"], own["holdout"], y["holdout"])
            assert entries[one.name, model, "membership_auc"] == pytest.approx(metrics.membership_auc(*sets))
            references = [[other[part] for other in others] for part in ("forget", "holdout")]
            calibrated = metrics.calibrated_membership_auc(*sets, *references)
            assert entries[one.name, model, "membership_auc_calibrated"] == pytest.approx(calibrated)
    tau = {(one.way, one.measure): one.bounds.value for one in comparison.orders}
    values = [[entries[name, model, "js_test"] for model in MODELS[:3]] for name in ("exact", "shots")]
    assert tau["shots", "js_test"] == metrics.kendall_tau(*values)


def test_the_same_way_twice_keeps_the_order_for_sure() -> None:
    comparison = Comparison(setting(), [way("exact", 0.0), way("again", 0.0)], resamples=200)
    for order in comparison.orders:
        assert order.bounds == (1.0, 1.0, 1.0)
        assert order.models == 3
    noisy = Comparison(setting(), [way("exact", 0.0), way("noisy", 5.0, 20)], resamples=200).orders
    assert any(order.bounds.low < 0 for order in noisy)


def test_samples_of_a_forgotten_class_are_left_out_of_the_test_set() -> None:
    one = way("exact", 0.0)
    comparison = Comparison(setting(forgotten=2), [one], resamples=10)
    entries = {(entry.model, entry.measure): entry.bounds.value for entry in comparison.entries}
    y = setting().labels["test"]
    expected = metrics.accuracy(one.logits["a"]["test"][0][y != 2], y[y != 2])
    assert entries["a", "accuracy_test"] == expected
    assert comparison.orders == []


@pytest.mark.parametrize("noise", [0.5, 1.5])
def test_intervals_cover_what_further_runs_on_further_samples_give(noise: float) -> None:
    """Samples and shots are drawn 200 times; the expected accuracy is a closed form."""
    from scipy.stats import norm

    margin, samples, generator = 0.8, 60, np.random.default_rng(3)
    # A margin plus the sample's own difficulty plus the noise of shots on the difference of two logits.
    truth = norm.cdf(margin / np.sqrt(1 + 2 * noise**2))
    y, covered = np.zeros(samples, dtype=np.int64), 0
    for _ in range(200):
        exact = np.stack([margin + generator.normal(size=samples), np.zeros(samples)], axis=1)
        run = exact + noise * generator.normal(size=exact.shape)
        repeats = run + noise * generator.normal(size=(60, *exact.shape))
        logits = {"m": {"test": np.concatenate([run[None], repeats])}}
        found = Comparison(Setting({"m": "original"}, {"test": y}), [Way("w", logits)], resamples=200)
        (entry,) = found.entries
        covered += entry.bounds.low <= truth <= entry.bounds.high
    assert 0.90 <= covered / 200 <= 0.99


def test_intervals_shrink_with_samples_like_the_closed_form() -> None:
    y = np.zeros(400, dtype=np.int64)
    logits = np.stack([np.where(np.arange(400) % 4 == 0, -1.0, 1.0), np.zeros(400)], axis=1)
    found = Comparison(Setting({"m": "original"}, {"test": y}), [Way("w", {"m": {"test": logits[None]}})])
    (entry,) = found.entries
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert entry.bounds == pytest.approx((0.75, 0.75 - half, 0.75 + half), abs=0.004)


@pytest.mark.parametrize("retrained", [0, 1])
def test_few_retrained_models_leave_holes(retrained: int) -> None:
    roles = dict(list(setting().roles.items())[: 3 + retrained])
    ways = [
        Way(one.name, {model: one.logits[model] for model in roles}) for one in (way("exact", 0.0), way("w", 0.3, 5))
    ]
    comparison = Comparison(Setting(roles, setting().labels), ways, resamples=20)
    entries = {(one.model, one.measure): one.bounds for one in comparison.entries}
    assert ("js_forget" in comparison.measures) is bool(retrained)
    if retrained:
        assert np.isnan(entries["retrained 0", "js_forget"]).all()
        assert np.isfinite(entries["a", "js_forget"]).all()
        assert np.isnan(entries["retrained 0", "membership_auc_calibrated"].value)
    assert all(np.isfinite(order.bounds.value) for order in comparison.orders)


def test_a_share_of_one_is_not_certain() -> None:
    logits = np.stack([np.ones(20), np.zeros(20)], axis=1)
    labels = {"test": np.zeros(20, dtype=np.int64)}
    (entry,) = Comparison(Setting({"m": "original"}, labels), [Way("w", {"m": {"test": logits[None]}})]).entries
    assert entry.bounds == pytest.approx((1.0, 0.025 ** (1 / 20), 1.0))


def test_missing_models_and_wrong_shapes_are_named() -> None:
    broken = way("hardware", 0.0)
    logits = {**broken.logits, "a": {**broken.logits["a"], "test": np.zeros((1, 5, 3))}}
    with pytest.raises(InputError, match=r"hardware: expected logits \(1 \+ repeats, 60, classes\) of 'a' on the test"):
        Comparison(setting(), [Way("hardware", logits)])
    del logits["b"]
    with pytest.raises(InputError, match=r"'a'|'b'"):
        Comparison(setting(), [Way("hardware", logits)])
