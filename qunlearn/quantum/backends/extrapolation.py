"""Values at several strengths of noise, extrapolated to none, with how each of them enters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qunlearn.errors import UnknownNameError

Floats = NDArray[np.float64]

EXTRAPOLATORS = ("linear", "richardson", "exponential")
_CLEAR = 2.0  # standard errors by which a value must differ from 0 for its logarithm to mean something
_LEAST_ERROR = 1e-4  # of a value, where all shots agree


def extrapolate(
    factors: Sequence[int], values: Floats, errors: Floats, extrapolator: str = "linear"
) -> tuple[Floats, Floats]:
    """Values at factor 0, and their slopes by the given values (for the propagation of errors).

    Args:
        factors: strengths of noise, at least two.
        values: ``(factors, ...)``.
        errors: their standard errors, same shape; they weigh the points of the exponential fit.
        extrapolator: "linear": least squares; "richardson": the polynomial through all points; "exponential":
            a exp(-b factor), fitted to the logarithms with weights (value / error)**2 and held to [-1, 1]; linear
            where a value has another sign than the rest or is not clear of 0.

    Returns:
        ``(...)`` and ``(factors, ...)``.
    """
    if extrapolator not in EXTRAPOLATORS:
        raise UnknownNameError("extrapolator", extrapolator, EXTRAPOLATORS)
    x = np.asarray(factors, dtype=np.float64)
    weights = _richardson(x) if extrapolator == "richardson" else _intercept(x)
    slopes = np.broadcast_to(weights.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    linear = (slopes * values).sum(0)
    if extrapolator != "exponential":
        return linear, slopes
    spread = np.maximum(errors, _LEAST_ERROR)
    clear = (np.abs(values) > _CLEAR * spread).all(0) & (np.sign(values) == np.sign(values[0])).all(0)
    decay, by_value = _decay(x, np.where(clear, values, 1.0), spread)
    return np.where(clear, np.clip(decay, -1.0, 1.0), linear), np.where(clear, by_value, slopes)


def _intercept(x: Floats) -> Floats:
    """How each point enters the intercept of the least-squares line."""
    centred = x - x.mean()
    weights: Floats = 1 / len(x) - x.mean() * centred / (centred**2).sum()
    return weights


def _richardson(x: Floats) -> Floats:
    """How each point enters the value at 0 of the polynomial through all of them."""
    others = [np.delete(x, k) for k in range(len(x))]
    return np.array([np.prod(rest / (rest - x[k])) for k, rest in enumerate(others)])


def _decay(x: Floats, values: Floats, errors: Floats) -> tuple[Floats, Floats]:
    """A of a exp(-b x), by weighted least squares of log |value|, and its slopes by the values."""
    x = x.reshape(-1, *[1] * (values.ndim - 1))
    weight = (values / errors) ** 2
    w0, w1, w2 = weight.sum(0), (weight * x).sum(0), (weight * x**2).sum(0)
    enters = weight * (w2 - w1 * x) / (w0 * w2 - w1**2)
    a = np.sign(values[0]) * np.exp((enters * np.log(np.abs(values))).sum(0))
    return a, a * enters / values
