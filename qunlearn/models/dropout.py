"""Dropout whose masks can come from a generator of the caller's."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import dropout

from qunlearn.errors import InputError


class Dropout(nn.Module):
    """Zeroes each entry with probability p in training mode, and divides the others by 1 - p.

    Args:
        p: share of entries that are zeroed, 0 to 1.

    Raises:
        InputError: for a p outside that range.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise InputError(f"expected p from 0 to 1, got {p!r}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The share, for printing."""
        return f"p={self.p}"
