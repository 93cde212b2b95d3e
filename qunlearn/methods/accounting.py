"""From a distance and Gaussian noise to (epsilon, delta), and back."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from qunlearn.errors import InputError

ORDERS = 1.0 + np.geomspace(1e-6, 1e9, 3001)  # of Renyi divergences


def gaussian_delta(distance: float, sigma: float, epsilon: float) -> float:
    r"""The least delta with which N(0, sigma^2 I) and the same moved by `distance` are (epsilon, delta)-close.

    .. math:: \delta = \Phi(r/2 - \epsilon/r) - e^\epsilon\, \Phi(-r/2 - \epsilon/r), \qquad r = d / \sigma

    Exact for every epsilon of at least 0, where the textbook's ``sigma = d sqrt(2 ln(1.25 / delta)) / epsilon`` holds
    for epsilon below 1 alone.

    Source: Balle and Wang 2018, arXiv 1805.06530, theorem 8.
    """
    if distance == 0:
        return 0.0
    r = distance / sigma
    return max(0.0, _delta(r, epsilon / r - r / 2))


def _delta(r: float, t: float) -> float:
    """`gaussian_delta` at epsilon ``r t + r^2 / 2``; nothing overflows, however large r is."""
    from scipy.special import erfcx, ndtr

    return float(ndtr(-t) - erfcx((t + r) / math.sqrt(2)) * math.exp(-t * t / 2) / 2)


def gaussian_epsilon(distance: float, sigma: float, delta: float) -> float:
    """The least epsilon for which `gaussian_delta` is at most `delta`; inputs at least 0, sigma and delta above."""
    from scipy.optimize import brentq
    from scipy.special import ndtri

    _check(delta)
    if distance == 0 or gaussian_delta(distance, sigma, 0.0) <= delta:
        return 0.0
    r = distance / sigma
    high = -float(ndtri(delta))  # where P(privacy loss > epsilon), which bounds delta from above, is delta
    return r * (float(brentq(lambda t: _delta(r, t) - delta, -r / 2, max(high, 0.0), xtol=1e-13)) + r / 2)


def gaussian_sigma(distance: float, epsilon: float, delta: float) -> float:
    """The least standard deviation for which a shift by `distance` is (epsilon, delta)-close; epsilon above 0."""
    from scipy.optimize import brentq

    _check(delta)
    if distance == 0:
        return 0.0

    def surplus(log_sigma: float) -> float:
        return gaussian_delta(1.0, math.exp(log_sigma), epsilon) - delta

    return distance * math.exp(float(brentq(surplus, -60.0, 60.0, xtol=1e-13)))


def wrapped_epsilon(periods: Sequence[float], sigma: float) -> float:
    r"""The epsilon, at delta 0, of angles with N(0, sigma^2) noise that are known up to their periods only.

    .. math:: \epsilon = \sum_j \ln \frac{f_j(0)}{f_j(P_j / 2)}, \qquad
              f_j(x) \propto \sum_k e^{-(x + k P_j)^2 / (2 \sigma^2)}

    Whatever the angles were, no density of what is left exceeds another by more: a wrapped normal density is largest
    at its centre and least half a period away. Once the noise is wider than the period this falls as
    ``4 exp(-2 pi^2 sigma^2 / P^2)`` an angle, where the account of a straight line still grows with the distance.
    """
    from scipy.special import logsumexp

    widths = np.asarray(periods, dtype=np.float64)[:, None]
    reach = math.ceil(8 * sigma / float(widths.min())) + 2
    turns = np.arange(-reach, reach + 1)[None]
    top, bottom = (logsumexp(-(((turns + shift) * widths / sigma) ** 2) / 2, axis=1) for shift in (0.0, 0.5))
    return float(np.maximum(top - bottom, 0.0).sum())


def wrapped_sigma(periods: Sequence[float], epsilon: float) -> float:
    """The least standard deviation for which `wrapped_epsilon` is at most `epsilon`, which is above 0."""
    from scipy.optimize import brentq

    def surplus(log_sigma: float) -> float:
        return wrapped_epsilon(periods, math.exp(log_sigma)) - epsilon

    widest = math.log(max(periods))
    return math.exp(float(brentq(surplus, widest - 20, widest + 1.5, xtol=1e-13)))


def renyi_epsilon(rate: float, delta: float) -> float:
    r"""The epsilon that Renyi divergences ``rate * alpha`` of every order alpha above 1 imply at `delta`.

    Opacus converts: the least over alpha of ``rate alpha - (ln delta + ln alpha) / (alpha - 1) + ln(1 - 1 / alpha)``.

    Source: Balle et al. 2020, arXiv 1905.09982, theorem 21 (the conversion).
    """
    from opacus.accountants.analysis.rdp import get_privacy_spent

    _check(delta)
    if rate == 0:
        return 0.0
    with warnings.catch_warnings():
        # That the best order is the outermost one: the bound holds all the same, and is far from any use there.
        warnings.filterwarnings("ignore", message="Optimal order is the")
        epsilon, _ = get_privacy_spent(orders=ORDERS, rdp=rate * ORDERS, delta=delta)
    return max(0.0, float(epsilon))


def renyi_rate(epsilon: float, delta: float) -> float:
    """The largest rate for which `renyi_epsilon` is at most `epsilon`, which is above 0."""
    from scipy.optimize import brentq

    def surplus(log_rate: float) -> float:
        return renyi_epsilon(math.exp(log_rate), delta) - epsilon

    low = -40.0
    found = float(brentq(surplus, low, math.log(epsilon + 1.0), xtol=1e-12))
    return math.exp(found - 1e-9)  # on the safe side of the root's rounding


def _check(delta: float) -> None:
    if not 0 < delta < 1:
        raise InputError(f"expected delta above 0 and below 1, got {delta}")
