"""Random numbers of several models that run at once, each from a generator of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Fill = Callable[[Tensor, torch.Generator], Tensor]  # overwrites a tensor on the CPU with draws


class Stream:
    """What losses, transforms and `Dropout` draw from.

    With one generator it draws like any other. With several, one a replica, it draws inside ``torch.vmap`` alone:
    there every replica gets what its own generator would give it without the others.

    Args:
        generators: on the CPU, one a replica.

    Attributes:
        index: which replica is running, 0-dimensional int64, mapped by ``torch.vmap``; None for one generator.
    """

    def __init__(self, *generators: torch.Generator) -> None:
        self.generators = generators
        self.index: Tensor | None = None

    def normal(self, like: Tensor) -> Tensor:
        """Independent standard normal numbers, of the shape, dtype and device of a tensor."""
        return self._draw(like, lambda out, generator: out.normal_(generator=generator))

    def integers(self, low: int, high: int, like: Tensor) -> Tensor:
        """Independent whole numbers from `low` to `high` - 1, of the shape, dtype and device of a tensor."""
        return self._draw(like, lambda out, generator: out.random_(low, high, generator=generator))

    def bernoulli(self, p: float, like: Tensor) -> Tensor:
        """Independent ones (with probability p) and zeros, of the shape, dtype and device of a tensor."""
        return self._draw(like, lambda out, generator: out.bernoulli_(p, generator=generator))

    def _draw(self, like: Tensor, fill: Fill) -> Tensor:
        if self.index is None:
            (generator,) = self.generators
            return fill(torch.empty(like.shape, dtype=like.dtype), generator).to(like.device)
        drawn: Tensor = _Draw.apply(self.index, like.shape, like.dtype, fill, self.generators)  # type: ignore[no-untyped-call]
        return drawn.to(like.device)


class _Draw(torch.autograd.Function):
    """Draws from the generator of the replica that an index names; of all replicas at once under ``torch.vmap``."""

    @staticmethod
    def forward(
        index: Tensor, shape: torch.Size, dtype: torch.dtype, fill: Fill, generators: Sequence[torch.Generator]
    ) -> Tensor:
        return fill(torch.empty(shape, dtype=dtype), generators[int(index)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Any,
        index: Tensor,
        shape: torch.Size,
        dtype: torch.dtype,
        fill: Fill,
        generators: Sequence[torch.Generator],
    ) -> tuple[Tensor, int]:
        drawn = torch.empty(len(index), *shape, dtype=dtype)
        for row, number in zip(drawn.unbind(), index.tolist(), strict=True):
            fill(row, generators[number])
        return drawn, 0
