"""Intervals of the audits' figures, in closed form: an audit resamples nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qunlearn.metrics import Bounds, interval
from qunlearn.metrics.roc import effective

Floats = npt.NDArray[np.float64]
NAN = float("nan")


def distance_of_distributions(one: Floats, other: Floats, one_weights: Floats, other_weights: Floats) -> Bounds:
    """The Kolmogorov-Smirnov statistic max_t |F(t) - G(t)| with a 95 % interval that holds whatever F and G are.

    Each distribution function is within sqrt(ln(2 / 0.025) / 2 n) of the true one with probability 97.5 %, so the
    interval is the statistic -+ the sum of both, cut to [0, 1]. That is wide; two samples of one distribution give a
    statistic above 0 too.

    Args:
        one: values ``(m,)``.
        other: values ``(n,)``.
        one_weights: of each value ``(m,)``, at least 0; n is the effective number.
        other_weights: ``(n,)``.

    Returns:
        NaN where a side has no weight.

    Source: Massart 1990, Annals of Probability 18, 1269 (the Dvoretzky-Kiefer-Wolfowitz inequality).
    """
    if not min(one_weights.sum(), other_weights.sum()) > 0:
        return Bounds(NAN, NAN, NAN)
    points = np.concatenate([one, other])
    gaps = _shares_below(one, one_weights, points) - _shares_below(other, other_weights, points)
    value = float(np.abs(gaps).max())
    width = sum(np.sqrt(np.log(2 / 0.025) / (2 * effective(part))) for part in (one_weights, other_weights))
    return Bounds(value, float(max(0.0, value - width)), float(min(1.0, value + width)))


def mean_bounds(values: npt.ArrayLike, low: float = -np.inf, high: float = np.inf) -> Bounds:
    """A mean with Student's 95 % interval, cut to the values that it can take; NaN is left out."""
    found = interval(np.asarray(values, dtype=np.float64).reshape(-1))
    if found.n < 2:
        return Bounds(found.mean, NAN, NAN)
    return Bounds(found.mean, max(low, found.low), min(high, found.high))


def _shares_below(values: Floats, weights: Floats, points: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    found: Floats = sums[np.searchsorted(values[order], points, "right")] / sums[-1]
    return found
