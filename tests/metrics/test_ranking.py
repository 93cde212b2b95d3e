"""Ranks, post-hoc tests and paired differences against scipy and published tables."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, friedmanchisquare, rankdata, studentized_range, wilcoxon

from qunlearn.errors import InputError
from qunlearn.metrics import paired_difference, rank

# Two-tailed Nemenyi quantiles at 5 % for 3 to 10 classifiers: table 5a of Demsar 2006.
DEMSAR = (2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)


def table(tasks: int, methods: int, seed: int = 0, slope: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(tasks, methods)) + slope * np.arange(methods)


@pytest.mark.parametrize("methods", range(3, 11))
def test_the_critical_difference_is_the_published_one(methods: int) -> None:
    found = rank(table(14, methods))
    assert found.critical_difference == pytest.approx(
        DEMSAR[methods - 3] * math.sqrt(methods * (methods + 1) / (6 * 14)), rel=3e-4
    )


def test_ranks_and_p_values_are_scipys() -> None:
    values = table(12, 5).round(0)  # ties
    found = rank(values, ["a", "b", "c", "d", "e"])
    ranks = rankdata(values, axis=1).mean(axis=0)
    assert found.ranks.tolist() == ranks.tolist()
    assert found.p_value == pytest.approx(friedmanchisquare(*values.T).pvalue)
    for i, j in combinations(range(5), 2):
        statistic = abs(ranks[i] - ranks[j]) / math.sqrt(5 * 6 / (6 * 12)) * math.sqrt(2)
        assert found.p_values[i, j] == pytest.approx(studentized_range.sf(statistic, 5, np.inf), abs=1e-9)
        assert found.p_values[i, j] == found.p_values[j, i]
        assert (found.p_values[i, j] < 0.05) == (abs(ranks[i] - ranks[j]) > found.critical_difference)
    assert (found.names, found.n, found.left_out) == (("a", "b", "c", "d", "e"), 12, 0)
    turned = rank(-values, smaller_is_better=False)
    assert turned.ranks.tolist() == found.ranks.tolist()


@given(st.integers(3, 7), st.integers(2, 15), st.integers(0, 1000), st.floats(0, 2))
def test_groups_are_the_maximal_sets_that_no_pair_splits(methods: int, tasks: int, seed: int, slope: float) -> None:
    found = rank(table(tasks, methods, seed, slope))
    alike = {(i, j): abs(found.ranks[i] - found.ranks[j]) <= found.critical_difference
             for i in range(methods) for j in range(methods)}  # fmt: skip
    sets = [frozenset(group) for size in range(2, methods + 1) for group in combinations(range(methods), size)
            if all(alike[pair] for pair in combinations(group, 2))]  # fmt: skip
    maximal = {group for group in sets if not any(group < other for other in sets)}
    assert {frozenset(group) for group in found.groups} == maximal
    assert all(found.ranks[group[0]] <= found.ranks[group[-1]] for group in found.groups)


def test_gaps_are_left_out_and_counted_and_ties_all_over_are_no_difference() -> None:
    values = table(12, 4)
    with_gap = np.vstack([values, [1.0, math.nan, 2.0, 3.0]])
    found = rank(with_gap)
    assert (found.ranks.tolist(), found.n, found.left_out) == (rank(values).ranks.tolist(), 12, 1)
    same = rank(np.ones((5, 3)))
    assert (same.p_value, same.ranks.tolist(), same.groups) == (1.0, [2.0, 2.0, 2.0], ((0, 1, 2),))


def test_equal_methods_are_told_apart_seldom() -> None:
    runs = 100
    alarms = sum(len(found.groups) != 1 or len(found.groups[0]) != 5
                 for found in (rank(table(15, 5, seed, 0.0)) for seed in range(runs)))  # fmt: skip
    assert alarms <= binom.ppf(0.999, runs, 0.05)


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(InputError, match="at least 3 methods"):
        rank(table(10, 2))
    with pytest.raises(InputError, match="got 4 methods, 1 such tasks of 2"):
        rank(np.vstack([table(1, 4), np.full((1, 4), math.nan)]))
    with pytest.raises(InputError, match="expected 4 names of methods, got 1"):
        rank(table(10, 4), ["a"])


def test_differences_on_one_split_are_paired_by_seed() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(size=20) * 10
    first, second = hard + 0.5 + 0.1 * rng.normal(size=20), hard
    found = paired_difference(first, second)
    assert found.mean == pytest.approx((first - second).mean())
    assert 0 < found.low < found.mean < found.high
    assert found.high - found.low < 0.2  # what the seeds share is gone
    assert found.p_value == pytest.approx(wilcoxon(first, second).pvalue)
    assert (found.n, found.units) == (20, 20)
    assert paired_difference(list(first), list(second)) == found
    flipped = paired_difference(second, first)
    assert (flipped.mean, flipped.p_value) == (-found.mean, found.p_value)


def test_differences_on_many_splits_have_splits_as_units() -> None:
    rng = np.random.default_rng(1)
    second = [rng.normal(size=4) for _ in range(6)]
    first = [part + shift for part, shift in zip(second, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), strict=True)]
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(3.5)
    assert (found.n, found.units) == (24, 6)
    assert found.p_value == pytest.approx(2 / 2**6)  # all six signs alike
    # The spread lies between splits: the interval is that of six means, not of 24 values.
    assert found.high - found.low > 2
    gaps = [np.where(np.arange(4) == 0, math.nan, part) for part in first]
    assert paired_difference(gaps, second).n == 18
    gone = [np.full(4, math.nan), *first[1:]]
    assert paired_difference(gone, second).units == 5


def test_differences_without_spread_or_pairs() -> None:
    same = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.mean, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    single = paired_difference([1.0], [0.5])
    assert single.mean == 0.5
    assert all(math.isnan(value) for value in (single.low, single.high, single.p_value))
    assert math.isnan(paired_difference([], []).mean)
    with pytest.raises(InputError, match=r"got \[3\] and \[2\] seeds; pair them by seed first"):
        paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_the_paired_interval_covers_a_known_difference() -> None:
    runs, covered = 150, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        found = paired_difference(rng.normal(0.3, 1, 30), rng.normal(0, 1, 30), resamples=300)
        covered += found.low <= 0.3 <= found.high
    assert covered >= binom.ppf(1e-3, runs, 0.93)
