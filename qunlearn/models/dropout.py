"""Dropout that can draw from a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.functional import dropout

from qunlearn.errors import InputError
from qunlearn.models.stream import Stream


class Dropout(nn.Module):
    """Zeroes each entry with probability p in training mode, and divides the others by 1 - p.

    Draws from torch's global generator as ``nn.Dropout`` does, unless inside `dropping`: hence models that hold this
    one can be trained at once, each with the masks that it would have alone.

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
        self.stream: Stream | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        if self.stream is None or not self.training or self.p in (0, 1):
            return dropout(x, self.p, self.training)
        return x * (self.stream.bernoulli(1 - self.p, x) / (1 - self.p))

    def extra_repr(self) -> str:
        """The share, for printing."""
        return f"p={self.p}"


@contextmanager
def dropping(model: nn.Module, stream: Stream) -> Iterator[None]:
    """Every `Dropout` of a model draws from the stream inside."""
    parts = [part for part in model.modules() if isinstance(part, Dropout)]
    for part in parts:
        part.stream = stream
    try:
        yield
    finally:
        for part in parts:
            part.stream = None
