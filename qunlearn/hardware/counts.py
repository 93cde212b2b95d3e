"""Counts of outcomes, packed: of 2**qubits outcomes a row at most as many are there as there were shots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(counts: NDArray[np.int64], name: str = "") -> dict[str, NDArray[Any]]:
    """Counts ``(rows, outcomes)`` as their shape and, for every count above zero, its row, outcome and number.

    `name` stands before the name of each array.
    """
    row, outcome = np.nonzero(counts)
    return {
        f"{name}shape": np.array(counts.shape, dtype=np.int64),
        f"{name}row": row.astype(np.int32),
        f"{name}outcome": outcome.astype(np.int32),
        f"{name}count": counts[row, outcome].astype(np.int32),
    }


def unpack(packed: Mapping[str, NDArray[Any]], name: str = "") -> NDArray[np.int64]:
    """The counts ``(rows, outcomes)`` that `pack` packed under that name."""
    counts = np.zeros(tuple(packed[f"{name}shape"]), dtype=np.int64)
    counts[packed[f"{name}row"], packed[f"{name}outcome"]] = packed[f"{name}count"]
    return counts
