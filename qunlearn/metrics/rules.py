"""Decision rules that tell two groups of values apart, and the privacy loss that their errors show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from qunlearn.metrics.arrays import Array, Labels

DELTA = 1e-5
LARGEST = 50.0  # of epsilon, nats
PEAKY = 0.01  # of the wider range: a narrower group gives itself away
BUFFER = 2.0  # nats around the narrower group's range

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Rules:
    """Every rule of both families that differs on the values of two groups.

    A rule takes the values from level i to level j for those of the group it names.

    Attributes:
        levels: the distinct values, ascending.
        first: i of each rule ``(rules,)``.
        last: j of each rule.
        of_unlearned: whether the rule names the unlearned group.
    """

    levels: Array
    first: Labels
    last: Labels
    of_unlearned: Mask

    def errors(self, unlearned: Array, retrained: Array) -> tuple[Labels, Labels]:
        """How many values of the other group each rule takes, and how many of the named group it leaves."""
        inside = [self._inside(values) for values in (unlearned, retrained)]
        taken = np.where(self.of_unlearned, inside[1], inside[0])
        left = np.where(self.of_unlearned, unlearned.size - inside[0], retrained.size - inside[1])
        return taken, left

    def edges(self, rule: int) -> tuple[float, float, bool]:
        """Left and right end of a rule, half way to the next values, and whether it names the unlearned group."""
        ends = np.concatenate([[-np.inf], (self.levels[1:] + self.levels[:-1]) / 2, [np.inf]])
        return float(ends[self.first[rule]]), float(ends[self.last[rule] + 1]), bool(self.of_unlearned[rule])

    def _inside(self, values: Array) -> Labels:
        """How many of the values each rule takes."""
        counts = np.bincount(np.searchsorted(self.levels, values), minlength=self.levels.size)
        total = np.concatenate([[0], np.cumsum(counts)])
        inside: Labels = total[self.last + 1] - total[self.first]
        return inside


def family(unlearned: Array, retrained: Array) -> Rules | None:
    """The rules for two groups ``(N,)`` each; None where one group is peaky."""
    spread = [float(np.ptp(values)) for values in (unlearned, retrained)]
    if max(spread) > 0 and min(spread) / max(spread) < PEAKY:
        return None
    levels = np.unique(np.concatenate([unlearned, retrained]))
    greater = float(np.median(unlearned)) >= float(np.median(retrained))
    # Of two equal ranges the one with the smaller median counts as the narrower, as in the released code.
    narrow = spread[0] < spread[1] or (spread[0] == spread[1] and not greater)
    first, last = _windows(levels, unlearned if narrow else retrained)
    single = np.arange(levels.size)
    return Rules(
        levels,
        np.concatenate([single, first]),
        np.concatenate([np.full(levels.size, levels.size - 1), last]),
        np.concatenate([np.full(levels.size, greater), np.full(first.size, narrow)]),
    )


def _windows(levels: Array, narrow: Array) -> tuple[Labels, Labels]:
    """First and last level of every window near the range of the narrower group."""
    width, top = float(np.ptp(narrow)), float(narrow.max())
    # A right end r takes level j as the last if v_j <= r < v_(j+1); a left end l takes i first if v_(i-1) < l <= v_i.
    right_low, right_high = np.maximum(levels, top - BUFFER), np.minimum(np.append(levels[1:], np.inf), top + BUFFER)
    below = np.append(-np.inf, levels[:-1])
    first, last = _pairs(levels.size)
    reachable = (right_low <= right_high)[last]
    narrow_enough = right_low[last] - levels[first] <= width + BUFFER
    wide_enough = right_high[last] - below[first] >= width - BUFFER
    kept = reachable & narrow_enough & wide_enough
    return first[kept], last[kept]


@lru_cache(maxsize=8)
def _pairs(size: int) -> tuple[Labels, Labels]:
    """All pairs i <= j below a number."""
    first, last = np.triu_indices(size)
    return first, last


def epsilon(taken: Labels, left: Labels, size: int) -> float:
    """The greatest epsilon of rules with such errors; NaN where all rules are discarded.

    Args:
        taken: false positives of each rule, 0 to `size`.
        left: false negatives of each rule, 0 to `size`.
        size: how many values each group has.
    """
    found = _table(size)[taken, left]
    found = found[~np.isnan(found)]
    return float(found.max()) if found.size else float("nan")


@lru_cache(maxsize=8)
def _table(size: int) -> Array:
    """Epsilon by false positives and false negatives; NaN for a discarded rule."""
    rates = np.arange(size + 1) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        table = _loss(rates[:, None], rates[None, :])
    table[0, :] = table[:, 0] = np.nan  # a zero alone may only say that there are too few models
    table[0, 0] = np.inf
    return table


def _loss(false_positive: Array, false_negative: Array) -> Array:
    """max(0, ln(1 - delta - FPR) - ln FNR, ln(1 - delta - FNR) - ln FPR), for rates that may be 0 or 1."""
    one = np.log(np.maximum(1 - DELTA - false_positive, 0.0)) - np.log(false_negative)
    other = np.log(np.maximum(1 - DELTA - false_negative, 0.0)) - np.log(false_positive)
    result: Array = np.maximum(np.fmax(one, other), 0.0)
    return result


def lower_bound(unlearned: Array, retrained: Array, level: float = 0.95) -> float:
    """An epsilon that is exceeded with probability `level`, by Clopper and Pearson's bounds on the two error rates.

    Every second model chooses the rule with the greatest such bound, the others are counted, so that choosing the
    best of many rules proves nothing by itself.

    Args:
        unlearned: ``(N,)``, at least 4.
        retrained: ``(N,)``.
        level: in (0, 1); each rate's bound takes half of what is left.

    Returns:
        Nats, at least 0.

    Source: Jagielski, Ullman and Oprea 2020, arXiv 2006.07709 (bounds on both rates, the rule chosen apart).
    """
    halves = [(unlearned[start::2], retrained[start::2]) for start in (0, 1)]
    rules = family(*halves[0]) or _everything(*halves[0])
    chosen = int(np.argmax(_bounds(len(halves[0][0]), level)[rules.errors(*halves[0])]))
    low, high, of_unlearned = rules.edges(chosen)
    inside = [int(((values >= low) & (values <= high)).sum()) for values in halves[1]]
    named, other = (0, 1) if of_unlearned else (1, 0)
    size = len(halves[1][0])
    return float(_bounds(size, level)[inside[other], size - inside[named]])


def _everything(unlearned: Array, retrained: Array) -> Rules:
    """All windows that name the narrower group: the rules where that group is peaky."""
    levels = np.unique(np.concatenate([unlearned, retrained]))
    first, last = _pairs(levels.size)
    return Rules(levels, first, last, np.full(first.size, float(np.ptp(unlearned)) < float(np.ptp(retrained))))


@lru_cache(maxsize=8)
def _bounds(size: int, level: float) -> Array:
    """The epsilon that false positives and false negatives prove, by their numbers."""
    from scipy.stats import beta

    counts = np.arange(size + 1)
    upper = np.ones(size + 1)
    upper[:-1] = beta.ppf(1 - (1 - level) / 2, counts[:-1] + 1, size - counts[:-1])
    with np.errstate(divide="ignore"):
        return _loss(upper[:, None], upper[None, :])
