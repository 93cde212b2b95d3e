import math

import numpy as np
import pytest
from scipy import stats

from qunlearn.errors import InputError
from qunlearn.metrics import hierarchical_bootstrap, interval, prediction_interval


def test_interval_is_scipys_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=7)
    low, high = stats.t.interval(0.9, 6, loc=values.mean(), scale=stats.sem(values))
    found = interval(np.append(values, np.nan), level=0.9)
    assert found == pytest.approx((values.mean(), low, high, 7))


def test_too_few_values_have_no_interval() -> None:
    assert math.isnan(interval([1.0]).low)
    assert interval([1.0]).mean == 1.0
    assert math.isnan(interval([]).mean)
    assert interval([math.nan]).n == 0
    assert math.isnan(hierarchical_bootstrap([[1.0]]).high)
    assert hierarchical_bootstrap([]).n == 0


def test_bootstrap_is_deterministic_and_finds_the_splits_spread() -> None:
    rng = np.random.default_rng(1)
    groups = [centre + rng.normal(scale=0.01, size=5) for centre in (0.0, 1.0, 2.0, 3.0)]
    found = hierarchical_bootstrap(groups, seed=3)
    assert found == hierarchical_bootstrap(groups, seed=3)
    assert found != hierarchical_bootstrap(groups, seed=4)
    assert found.mean == pytest.approx(np.mean(groups))
    # seeds hardly vary, so the interval is that of resampling the four centres: 2.5 % and 97.5 % of their means
    means = [np.mean(draw) for draw in np.ndindex(4, 4, 4, 4)]
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.13)
    assert found.high - found.low > 1


def test_bootstrap_of_one_split_resamples_its_seeds() -> None:
    values = np.random.default_rng(2).normal(size=30)
    found = hierarchical_bootstrap([values], resamples=20_000)
    truth = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx(tuple(truth.confidence_interval), abs=0.02)


def test_bootstrap_takes_whole_splits_then_seeds_one_resample_after_the_other() -> None:
    groups = [np.random.default_rng(size).normal(size=size) for size in (300, 3, 40)]
    generator = np.random.default_rng(np.random.SeedSequence(5))
    chosen = generator.integers(3, size=(500, 3))
    means = np.empty(chosen.shape)
    for number, group in enumerate(groups):
        for place in np.argwhere(chosen == number):
            means[tuple(place)] = generator.choice(group, size=group.size).mean()
    for _ in range(2):  # what is drawn is kept for other values, and does not change
        found = hierarchical_bootstrap([*groups, [math.nan]], resamples=500, seed=5)
        assert (found.low, found.high) == pytest.approx(np.quantile(means.mean(axis=1), [0.025, 0.975]), rel=1e-12)
        hierarchical_bootstrap([-group for group in groups], resamples=500, seed=5)


def test_bootstrap_variance_has_both_parts() -> None:
    rng = np.random.default_rng(3)
    groups = [rng.normal(centre, 1.0, size=size) for centre, size in ((0.0, 4), (2.0, 6), (1.0, 5))]
    found = hierarchical_bootstrap(groups, level=0.6826895, resamples=50_000)
    between = np.var([group.mean() for group in groups]) / 3
    within = np.mean([group.var() / group.size for group in groups]) / 3
    assert (found.high - found.low) / 2 == pytest.approx(math.sqrt(between + within), rel=0.05)


@pytest.mark.parametrize(
    ("n", "level", "rank"), [(39, 0.95, 1), (40, 0.95, 1), (79, 0.95, 2), (19, 0.9, 1), (9, 0.2, 4)]
)
def test_prediction_interval_takes_the_order_statistics(n: int, level: float, rank: int) -> None:
    values = np.random.default_rng(n).permutation(n).astype(float)
    found = prediction_interval(values, level)
    assert (found.low, found.high) == (rank - 1, n - rank)
    assert found.coverage == pytest.approx((n + 1 - 2 * rank) / (n + 1))
    assert found.coverage >= level


def test_prediction_interval_covers_at_its_stated_rate() -> None:
    draws = np.random.default_rng(5).exponential(size=(4000, 11))
    inside = 0
    for row in draws:
        found = prediction_interval(row[:10])
        inside += found.low <= row[10] <= found.high
    assert found.coverage == pytest.approx(9 / 11)
    assert inside / 4000 == pytest.approx(9 / 11, abs=4 * math.sqrt(9 / 11 * 2 / 11 / 4000))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"95 % is 0\.95"):
        interval([1.0, 2.0], level=95)
    with pytest.raises(InputError, match="at least one number"):
        prediction_interval([math.nan])
    with pytest.raises(InputError, match="resamples"):
        hierarchical_bootstrap([[1.0, 2.0]], resamples=0)
