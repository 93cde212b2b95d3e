"""Which of several methods are better over many tasks: ranks, post-hoc tests, and differences on common seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Values, column, rows
from qunlearn.metrics.statistics import hierarchical_bootstrap

LEAST_METHODS, LEAST_TASKS = 3, 2


@dataclass(frozen=True, eq=False)
class Ranking:
    """Mean ranks of methods over tasks, and which of them can be told apart.

    Attributes:
        names: of the methods, in the order of the table.
        ranks: mean rank of each method ``(methods,)``, 1 the best; ties share theirs.
        p_value: of the hypothesis that no method differs (Friedman's test).
        critical_difference: of two mean ranks, above which Nemenyi's test tells two methods apart.
        p_values: Nemenyi's, ``(methods, methods)``, 1 on the diagonal.
        groups: maximal sets of methods, by position and from the best on, whose mean ranks lie within the critical
            difference; only sets of two or more.
        n: number of tasks.
        left_out: number of tasks with a missing value, which count nowhere.
    """

    names: tuple[str, ...]
    ranks: Array
    p_value: float
    critical_difference: float
    p_values: Array
    groups: tuple[tuple[int, ...], ...]
    n: int
    left_out: int


class Paired(NamedTuple):
    """A mean difference on common splits and seeds.

    Attributes:
        mean: of the first less the second: the mean over splits of the mean over seeds.
        low: of the interval.
        high: of the interval.
        n: number of differences.
        p_value: Wilcoxon's signed-rank test, two-sided, over splits (over seeds where there is one split).
        units: over how many of them.
    """

    mean: float
    low: float
    high: float
    n: int
    p_value: float
    units: int


def rank(
    table: Values, names: Sequence[str] | None = None, *, smaller_is_better: bool = True, level: float = 0.95
) -> Ranking:
    """Rank methods on each task, test whether any differ (Friedman), and which (Nemenyi).

    critical difference = q sqrt(k (k + 1) / (6 n)) for k methods and n tasks, with q the quantile of the studentised
    range for k groups over sqrt 2. The tasks must be independent: one value a task, such as the mean over seeds.

    Args:
        table: ``(tasks, methods)``, at least 2 and 3; tasks with NaN are left out and counted.
        names: of the methods; their positions by default.
        smaller_is_better: else the greatest value has rank 1.
        level: 1 less the probability of telling any two equal methods apart, in (0, 1).

    Raises:
        InputError: too few tasks without a gap, or too few methods.

    Source: Demsar 2006, Journal of Machine Learning Research 7, 1; p-values by scikit-posthocs.
    """
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy.stats import rankdata, studentized_range

    values = rows(table, "table")
    kept = values[~np.isnan(values).any(axis=1)]
    tasks, methods = kept.shape
    if methods < LEAST_METHODS or tasks < LEAST_TASKS or not 0 < level < 1:
        raise InputError(
            f"expected at least {LEAST_METHODS} methods, {LEAST_TASKS} tasks with a value of each, and a level in "
            f"(0, 1), got {methods} methods, {tasks} such tasks of {len(values)}, and {level}"
        )
    called = tuple(names) if names is not None else tuple(str(number) for number in range(methods))
    if len(called) != methods:
        raise InputError(f"expected {methods} names of methods, got {len(called)}")
    ranked = rankdata(kept if smaller_is_better else -kept, axis=1)
    ranks: Array = ranked.mean(axis=0)
    quantile = studentized_range.ppf(level, methods, np.inf) / np.sqrt(2)
    difference = float(quantile * np.sqrt(methods * (methods + 1) / (6 * tasks)))
    pairs = np.asarray(posthoc_nemenyi_friedman(ranked), dtype=np.float64)
    left_out = len(values) - tasks
    return Ranking(called, ranks, _friedman(ranked), difference, pairs, _groups(ranks, difference), tasks, left_out)


def paired_difference(
    first: Values | Sequence[Values],
    second: Values | Sequence[Values],
    level: float = 0.95,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Paired:
    """Mean of first - second on common splits and seeds, with an interval that resamples splits, then seeds.

    Args:
        first: the one method's values of the seeds of a split ``(seeds,)``, or a sequence of such arrays, one a split.
        second: the other's, on the same splits and seeds in the same order.
        level: nominal coverage, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Pairs with NaN are left out. Bounds and p-value are NaN for fewer than two pairs. Six units are the fewest
        with which a p-value can fall below 5 %.

    Raises:
        InputError: for other splits or seeds on the two sides.

    Source: Wilcoxon 1945, Biometrics Bulletin 1, 80; the interval is `hierarchical_bootstrap`'s.
    """
    one, other = _by_split(first, "first"), _by_split(second, "second")
    if [part.size for part in one] != [part.size for part in other]:
        raise InputError(
            f"expected the same splits and seeds on both sides, got {[part.size for part in one]} and "
            f"{[part.size for part in other]} seeds; pair them by seed first"
        )
    differences = [a - b for a, b in zip(one, other, strict=True)]
    found = hierarchical_bootstrap(differences, level, resamples=resamples, seed=seed)
    present = [part[~np.isnan(part)] for part in differences]
    present = [part for part in present if part.size]
    units = present[0] if len(present) == 1 else np.array([part.mean() for part in present])
    return Paired(*found, _signed_rank(units), units.size)


def _friedman(ranked: Array) -> float:
    """The p-value of Friedman's test; 1 where all methods tie on every task."""
    from scipy.stats import friedmanchisquare

    if (ranked == ranked[:, :1]).all():
        return 1.0
    return float(friedmanchisquare(*ranked.T).pvalue)


def _groups(ranks: Array, difference: float) -> tuple[tuple[int, ...], ...]:
    """Maximal runs of methods, sorted by mean rank, that span no more than the critical difference."""
    order = np.argsort(ranks, kind="stable")
    found, reached = [], 0
    for start in range(len(order)):
        end = int((ranks[order] <= ranks[order[start]] + difference).sum())
        if end > reached and end - start > 1:
            found.append(tuple(int(position) for position in order[start:end]))
        reached = max(reached, end)
    return tuple(found)


def _by_split(values: Values | Sequence[Values], name: str) -> list[Array]:
    """A list of arrays, one a split; a single array is one split."""
    if isinstance(values, list | tuple) and values and np.ndim(values[0]) > 0:
        return [column(part, name) for part in values]
    return [column(values, name)]  # type: ignore[arg-type]


def _signed_rank(differences: Array) -> float:
    """Wilcoxon's two-sided p-value; 1 where no pair differs, NaN for fewer than two."""
    from scipy.stats import wilcoxon

    if differences.size < 2:
        return float("nan")
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences).pvalue)
