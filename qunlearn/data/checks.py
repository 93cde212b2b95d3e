"""Turn what a user gives (arrays, tensors, lists) into checked tensors, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qunlearn.errors import InputError

Array = Tensor | NDArray[Any] | Sequence[Any]


def as_features(x: Array, name: str) -> Tensor:
    """Features as a tensor of their own memory: ``(samples, ...)``, float32 or float64, finite.

    float64 stays float64; every other number type becomes float32.

    Raises:
        InputError: not numbers, no feature axis, or a value that is not finite.
    """
    values = _tensor(x, f"x of {name}")
    if values.is_complex():
        raise InputError(f"expected real numbers in x of {name}, got {values.dtype}; give real and imaginary parts")
    if values.ndim < 2:
        raise InputError(
            f"expected x of {name} of shape (samples, features) or (samples, channels, height, width), "
            f"got {tuple(values.shape)}; one feature needs x.reshape(-1, 1)"
        )
    if values.dtype is not torch.float64:
        values = values.to(torch.float32)
    bad = (~torch.isfinite(values)).reshape(len(values), values[:1].numel() or 1).any(dim=1)
    if bad.any():
        rows = torch.nonzero(bad).flatten().tolist()
        raise InputError(
            f"expected finite numbers in x of {name}, got NaN or infinity in {len(rows)} samples "
            f"(first at position {rows[0]}); remove or fill them"
        )
    return values


def as_labels(y: Array, name: str) -> tuple[Tensor, tuple[str, ...] | None]:
    """Labels as int64 ``(samples,)``, and the class names if the labels were strings.

    Whole numbers are class numbers and stay as they are, so that a forget set of class 3 alone keeps
    its 3. Strings are numbered in the order of their names.

    Raises:
        InputError: fractions, negative numbers, or more than one axis.
    """
    if not isinstance(y, Tensor) and np.iterable(y) and len(y) and all(isinstance(label, str) for label in y):
        return name_labels([str(label) for label in y])
    values = _tensor(y, f"y of {name}")
    if values.ndim != 1:
        raise InputError(
            f"expected y of {name} of shape (samples,), got {tuple(values.shape)}; give one label a sample"
        )
    whole = values.to(torch.int64)
    if values.is_complex() or not torch.equal(whole.to(values.dtype), values):
        raise InputError(f"expected whole class numbers in y of {name}, got {values.dtype} with fractions or NaN")
    if len(whole) and int(whole.min()) < 0:
        raise InputError(
            f"expected class numbers from 0 in y of {name}, got {int(whole.min())}; "
            "give the labels as strings to have them numbered"
        )
    return whole, None


def name_labels(labels: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Number strings in the order of their names (by value, if all are whole numbers)."""
    distinct = set(labels)
    numeric = all(label.removeprefix("-").isdecimal() for label in distinct)
    names = sorted(distinct, key=lambda label: (int(label), label) if numeric else (0, label))
    number = {label: index for index, label in enumerate(names)}
    return torch.tensor([number[label] for label in labels], dtype=torch.int64), tuple(names)


def as_ids(ids: Array | None, samples: int, name: str) -> Tensor:
    """Ids as int64 ``(samples,)``, no two alike; 0, 1, 2, ... if none are given."""
    if ids is None:
        return torch.arange(samples)
    values = _tensor(ids, f"ids of {name}")
    whole = values.to(torch.int64)
    if values.ndim != 1 or values.is_complex() or not torch.equal(whole.to(values.dtype), values):
        raise InputError(
            f"expected whole numbers of shape (samples,) as ids of {name}, got {values.dtype} {tuple(values.shape)}"
        )
    distinct, counts = torch.unique(whole, return_counts=True)
    if (counts > 1).any():
        raise InputError(
            f"expected ids of {name} that are unique, got {some(distinct[counts > 1].tolist())} more than once; "
            "an id names one sample"
        )
    return whole


def same_length(name: str, **columns: Tensor) -> None:
    """Refuse columns of different lengths."""
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{count} in {column}" for column, count in lengths.items())
        raise InputError(f"expected as many rows in x, y and ids of {name}, got {found}")


def check_seed(seed: object) -> int:
    """A seed: a whole number, 0 or more."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"expected a whole number >= 0 as seed, got {seed!r}")
    return int(seed)


def some(items: Sequence[Any], most: int = 5) -> str:
    """The first few items as words: ``3, 7, 9 and 12 more``."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def _tensor(values: Array, what: str) -> Tensor:
    """A tensor with memory of its own, so that later changes by the caller do not reach it."""
    if isinstance(values, Tensor):
        return values.detach().clone()
    if isinstance(values, Sequence) and any(isinstance(value, Tensor) for value in values):
        values = [value.tolist() if isinstance(value, Tensor) else value for value in values]
    try:
        array = np.array(values)
    except ValueError as error:
        raise InputError(f"expected rows of equal length in {what}, got {error}") from None
    if array.dtype.kind not in "biufc":
        raise InputError(f"expected numbers in {what}, got {array.dtype}; encode text and categories as numbers first")
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
