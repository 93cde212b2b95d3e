"""What every metric does to its inputs: float64 NumPy arrays, checked for shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from qunlearn.errors import InputError

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Values = npt.ArrayLike | torch.Tensor
"""What metrics take: torch tensors (any device), NumPy arrays, lists."""


def _numpy(values: Values) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def rows(values: Values, name: str = "logits") -> Array:
    """The values as a float64 array ``(samples, columns)``.

    Raises:
        InputError: for another number of dimensions.
    """
    array = _numpy(values).astype(np.float64)
    if array.ndim != 2:
        raise InputError(f"{name}: expected shape (samples, classes), got {array.shape}; give one row per sample")
    return array


def column(values: Values, name: str) -> Array:
    """The values as a float64 array ``(samples,)``.

    Raises:
        InputError: for another number of dimensions.
    """
    array = _numpy(values).astype(np.float64)
    if array.ndim != 1:
        raise InputError(f"{name}: expected shape (samples,), got {array.shape}")
    return array


def labels(values: Values, samples: int, name: str = "labels") -> Labels:
    """The values as an int64 array ``(samples,)`` of class numbers.

    Raises:
        InputError: for another shape.
    """
    array = _numpy(values)
    if array.shape != (samples,):
        raise InputError(f"{name}: expected shape ({samples},), one per row of logits, got {array.shape}")
    return array.astype(np.int64)


def pair(first: Values, second: Values) -> tuple[Array, Array]:
    """Two arrays ``(samples, classes)`` about the same samples, row i of one belonging to row i of the other.

    Raises:
        InputError: for arrays of different shapes.
    """
    one, other = rows(first), rows(second)
    if one.shape != other.shape:
        raise InputError(f"expected two arrays of one shape, got {one.shape} and {other.shape}; align them by id")
    return one, other


def log_softmax(logits: Values) -> Array:
    """Log-probabilities: z - ln sum exp z, exact also where a probability underflows.

    Args:
        logits: ``(samples, classes)``; log-probabilities are logits and come back unchanged.

    Returns:
        ``(samples, classes)``, float64, nats, at most 0.
    """
    array = rows(logits)
    if array.shape[1] == 0:
        raise InputError("logits: expected at least one class, got none")
    shifted: Array = array - array.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def mean(values: npt.NDArray[Any]) -> float:
    """The mean, and NaN for no values (a set may be empty; that is no error and no number)."""
    return float(values.mean()) if values.size else float("nan")
