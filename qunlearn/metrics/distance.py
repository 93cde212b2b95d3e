"""How far two models are apart, in their weights, their probabilities and the states of their circuits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from qunlearn.errors import InputError
from qunlearn.metrics.arrays import Array, Values, column, mean


def circular_difference(first: Values, second: Values, periods: Values) -> Array:
    """Differences d = a - b, those of periodic weights wrapped into [-period / 2, period / 2].

    Args:
        first: weights a ``(weights,)``, angles in radians.
        second: weights b ``(weights,)``.
        periods: ``(weights,)``, above 0, in the unit of the weight; ``inf`` for a weight that isn't periodic.

    Returns:
        ``(weights,)``, float64.

    Raises:
        InputError: for different lengths or a period that isn't above 0.
    """
    a, b, period = column(first, "first"), column(second, "second"), column(periods, "periods")
    if not a.shape == b.shape == period.shape:
        raise InputError(f"expected three arrays of one length, got {a.size}, {b.size} and {period.size}")
    if not (period > 0).all():
        raise InputError("periods: expected numbers above 0 (inf: not periodic), got one that is not")
    difference = a - b
    wrapped = np.isfinite(period)
    difference[wrapped] -= period[wrapped] * np.round(difference[wrapped] / period[wrapped])
    return difference


def weight_distance(first: Values, second: Values, periods: Values) -> float:
    """Euclidean distance of two weight vectors, angles measured around their circle: sqrt(sum_j d_j^2).

    Two retrained models can be far apart and predict alike (equivalent weights are many), so read it beside
    their own distance.

    Args:
        first: weights ``(weights,)``, angles in radians.
        second: weights ``(weights,)``.
        periods: ``(weights,)``; 2 pi, or 4 pi for angles of controlled rotations; ``inf`` for plain weights.

    Returns:
        In [0, inf).
    """
    return float(np.linalg.norm(circular_difference(first, second, periods)))


def layer_distance(unlearned: Values, original: Values, retrained: Values, periods: Values) -> float:
    """How far a layer's weights are from retraining, in units of how far the original's are.

    ||u - r|| / ||o - r||, angles measured around their circle.

    Args:
        unlearned: weights u of the layer, ``(weights,)``, angles in radians.
        original: weights o.
        retrained: weights r.
        periods: as in `weight_distance`.

    Returns:
        In [0, inf); NaN where original and retrained model have the same weights. Equivalent weights are many, so
        read it beside other retrained models' values.

    Source: Tarun et al. 2023, arXiv 2111.08947 (layer-wise distance).
    """
    whole = weight_distance(original, retrained, periods)
    return weight_distance(unlearned, retrained, periods) / whole if whole > 0 else float("nan")


def state_fidelity(first: npt.ArrayLike | torch.Tensor, second: npt.ArrayLike | torch.Tensor) -> float:
    """Mean fidelity of two circuits' pure states on the same samples: ``mean_i |<psi_i|phi_i>|^2``.

    Args:
        first: states psi ``(samples, 2**qubits)``, complex, of norm 1.
        second: states phi, of the same shape.

    Returns:
        In [0, 1]; NaN for no samples.
    """
    one, other = (np.asarray(torch.as_tensor(states).cpu(), dtype=np.complex128) for states in (first, second))
    if one.shape != other.shape or one.ndim != 2:
        raise InputError(f"expected two arrays (samples, 2**qubits) of one shape, got {one.shape} and {other.shape}")
    overlaps = (one.conj() * other).sum(axis=1)
    return mean(np.minimum(np.abs(overlaps) ** 2, 1.0))
