"""The order of things, intervals moved to their figure, and the calibrated attack: against SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qunlearn import metrics
from qunlearn.errors import InputError

lists = st.integers(2, 9).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2))


@given(lists)
def test_kendall_tau_is_scipys(pair: tuple[list[int], list[int]]) -> None:
    expected = stats.kendalltau(*pair).statistic
    assert metrics.kendall_tau(*pair) == pytest.approx(expected, nan_ok=True)


def test_kendall_tau_of_the_same_and_the_reverse_order() -> None:
    assert metrics.kendall_tau([1, 2, 5], [10, 20, 21]) == 1.0
    assert metrics.kendall_tau([1, 2, 5], [3, 2, 1]) == -1.0
    assert np.isnan(metrics.kendall_tau([1, 1], [3, 2]))
    with pytest.raises(InputError, match="got 2 and 3"):
        metrics.kendall_tau([1, 2], [1, 2, 3])


def test_centred_interval_has_the_width_of_the_resamples_around_the_figure() -> None:
    drawn = np.random.default_rng(0).normal(3.0, 2.0, 200_000)
    value, low, high = metrics.centred_bootstrap(10.0, drawn)
    assert (value, low, high) == pytest.approx((10.0, 10 - 1.96 * 2, 10 + 1.96 * 2), abs=0.05)
    assert metrics.centred_bootstrap(1.0, [0.2, 0.6, np.nan], limits=(0, 1)).high == 1.0
    for value, resampled in ((np.nan, [1.0, 2.0]), (1.0, [1.0]), (1.0, [np.nan] * 3)):
        assert np.isnan(metrics.centred_bootstrap(value, resampled).low)


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (7, 20), (1, 1), (199, 1000)])
def test_share_interval_is_scipys(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials).proportion_ci(method="exact")
    found = metrics.share_interval(successes, trials)
    assert found == pytest.approx((successes / trials, expected.low, expected.high))


def test_share_interval_of_nothing() -> None:
    assert np.isnan(metrics.share_interval(0, 0)).all()
    with pytest.raises(InputError, match="0 to 3 successes, got 4"):
        metrics.share_interval(4, 3)


def test_calibration_removes_what_every_model_finds_easy() -> None:
    generator = np.random.default_rng(1)
    easy = np.concatenate([np.zeros(50), np.full(50, 4.0)])  # of holdout samples, half are easy; of forget samples too
    member, y = 0.3, np.zeros(100, dtype=np.int64)

    def logits(shift: float) -> np.ndarray:
        return np.stack([easy + shift + generator.normal(0, 0.02, 100), np.zeros(100)], axis=1)

    forget, holdout = logits(member), logits(0.0)
    references = [logits(0.0) for _ in range(4)], [logits(0.0) for _ in range(4)]
    plain = metrics.membership_auc(forget, y, holdout, y)
    calibrated = metrics.calibrated_membership_auc(forget, y, holdout, y, *references)
    assert plain < 0.8
    assert calibrated > 0.9
    scores = [
        metrics.confidence(own) - np.mean([metrics.confidence(other) for other in others], axis=0)
        for own, others in zip((forget, holdout), references, strict=True)
    ]
    assert calibrated == pytest.approx(stats.mannwhitneyu(*scores).statistic / 100**2)
    assert np.isnan(metrics.calibrated_membership_auc(forget, y, holdout, y, [], []))
    with pytest.raises(InputError, match="got 1 and 0"):
        metrics.calibrated_membership_auc(forget, y, holdout, y, references[0][:1], [])
