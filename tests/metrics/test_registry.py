import math

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qunlearn import metrics as qm
from qunlearn.errors import UnknownNameError
from qunlearn.metrics import METRICS, metric
from qunlearn.metrics.composite import oracle_distance

SAMPLES, CLASSES = 6, 3
LOGITS = npst.arrays(np.float64, (SAMPLES, CLASSES), elements=st.floats(-1e3, 1e3))
LABELS = npst.arrays(np.int64, SAMPLES, elements=st.integers(0, CLASSES - 1))
WEIGHTS = npst.arrays(np.float64, SAMPLES, elements=st.floats(-1e3, 1e3))
SHARES = st.fixed_dictionaries({name: st.floats(0, 1) for name in ("retain", "forget", "test")})


@settings(max_examples=60, deadline=None)
@given(LOGITS, LOGITS, LABELS, LABELS, st.integers(0, 99))
def test_ranges_hold_for_figures_of_predictions(
    a: np.ndarray, b: np.ndarray, y: np.ndarray, other_y: np.ndarray, seed: int
) -> None:
    shuffled = qm.misaligned(b, np.random.default_rng(seed))
    found = {
        "accuracy_test": qm.accuracy(a, y),
        "kl_test": max(qm.kl(a, b), qm.kl_published(a, b)),
        "js_test": max(qm.js(a, b), qm.js_published(a, b)),
        "kl_retain_misaligned": qm.kl_published(a, shuffled),
        "js_retain_misaligned": qm.js_published(a, shuffled),
        "agreement_test": qm.agreement(a, b),
        "membership_auc": qm.membership_auc(a, y, b, other_y),
        "membership_auc_published": qm.membership_auc_published(a, b, np.random.default_rng(seed)),
        "entropy_forget": qm.prediction_entropy(a),
    }
    for name, value in found.items():
        assert METRICS[name].holds(value), (name, value)
    assert qm.js(a, b) <= math.log(2)
    assert found["entropy_forget"] <= math.log(CLASSES)
    assert qm.kl_published(a, b) <= 18.5


@settings(max_examples=60, deadline=None)
@given(SHARES, SHARES, WEIGHTS, WEIGHTS, LOGITS, LOGITS)
def test_ranges_hold_for_composites_and_distances(
    one: dict[str, float], other: dict[str, float], a: np.ndarray, b: np.ndarray, z: np.ndarray, w: np.ndarray
) -> None:
    periods = np.where(np.arange(SAMPLES) % 2, np.inf, 2 * math.pi)
    states = [(x + 1.0) / np.linalg.norm(x + 1.0, axis=1, keepdims=True) for x in (np.abs(z), np.abs(w))]
    found = {
        "gap_test": qm.gap(one["test"], [other["test"]]),
        "tow": qm.tug_of_war(one, {name: [value] for name, value in other.items()}),
        "uqi": qm.uqi(one, other),
        "oracle_distance": oracle_distance(list(one.values()), list(other.values())),
        "weight_distance": qm.weight_distance(a, b, periods),
        "state_fidelity_test": qm.state_fidelity(*states),
        "helstrom_forget": qm.helstrom_crossfit(*states),
    }
    for name, value in found.items():
        assert METRICS[name].holds(value), (name, value)


def test_every_family_of_figures_has_its_range_tested_above() -> None:
    families = {
        "accuracy", "kl", "js", "agreement", "gap", "state", "tow", "weight", "uqi", "membership", "entropy",
        "oracle", "helstrom",
    }  # fmt: skip
    assert {name.split("_")[0] for name in METRICS} == families


def test_traits_of_derived_keys() -> None:
    assert metric("kl_test_floor_low").upper == math.inf
    assert metric("retrained_accuracy_test").higher_is_better is True
    assert metric("membership_auc_original").name == "membership_auc_original"
    assert not metric("accuracy_test").holds(1.2)
    assert metric("accuracy_test").holds(math.nan)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tow'"):
        metric("tows")


def test_traits_are_complete() -> None:
    assert all(entry.name == key and entry.doc and entry.unit for key, entry in METRICS.items())
    assert {key for key, entry in METRICS.items() if entry.needs_retrained} >= {"kl_test", "tow", "gap_forget"}
