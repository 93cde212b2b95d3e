"""Independent random streams: one seed, and a child of it for every purpose."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from qunlearn.errors import InputError


@dataclass(frozen=True)
class Seeds:
    """The streams that belong to one seed and one scope (a method, a training).

    Streams of different purposes are independent, and asking for one never moves another.

    >>> Seeds(0, "train").integer("order") == Seeds(0, "train").integer("order")
    True
    >>> Seeds(0, "train").integer("order") == Seeds(0, "train").integer("noise")
    False
    """

    seed: int
    scope: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise InputError(f"expected a seed that is a whole number of at least 0, got {self.seed!r}")

    def integer(self, purpose: str) -> int:
        """A seed from 0 to 2**63 - 1 for a purpose."""
        words = (self.seed, zlib.crc32(self.scope.encode()), zlib.crc32(purpose.encode()))
        return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def generator(self, purpose: str) -> torch.Generator:
        """A fresh generator (on the CPU) for a purpose."""
        return torch.Generator().manual_seed(self.integer(purpose))
