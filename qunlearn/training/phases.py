"""Phases: what a gradient method asks the one loop to do, as frozen records, and the batches they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.training.net import Net, Tensors

Memo = dict[str, Any]  # what a method prepared once, or at the start of an epoch, by name
DataOf = Literal["forget", "retain", "paired", "cycled", "mixed"]


class Samples(NamedTuple):
    """Part of a set: inputs ``(batch, ...)``, labels ``(batch,)``, positions in the set ``(batch,)`` (int64)."""

    x: Tensor
    y: Tensor
    position: Tensor

    def take(self, order: Tensor) -> Samples:
        """The samples at the given positions of this part."""
        return Samples(self.x[order], self.y[order], self.position[order])

    def copies(self, number: int) -> Samples:
        """Every sample `number` times in a row; copy k of sample i has position ``i * number + k``."""
        repeated = [t.repeat_interleave(number, 0) for t in (self.x, self.y)]
        return Samples(repeated[0], repeated[1], torch.arange(len(self.y) * number, device=self.y.device))


class Batch(NamedTuple):
    """What a loss gets at one step; a part that the phase has no samples for is empty."""

    forget: Samples
    retain: Samples


Loss = Callable[[Net, Batch, Memo, torch.Generator], Tensor]  # returns a scalar
Transform = Callable[[Tensors, Memo, torch.Generator], Tensors]  # of the gradients, before the optimizer
Refresh = Callable[[Net, Memo, torch.Generator], Memo]  # at the start of every epoch


@dataclass(frozen=True)
class Phase:
    """Some epochs of one loss over one kind of data.

    Attributes:
        data: ``"forget"`` or ``"retain"``: one pass over that set an epoch; ``"paired"``: a batch of each at
            every step, until the shorter set ends; ``"cycled"``: one pass over the retain set with the forget
            set shuffled and begun again as often as needed; ``"mixed"``: one pass over both sets, shuffled
            together.
        loss: ``loss(net, batch, memo, generator)``, a scalar to descend.
        epochs: how many.
        parameters: full names of those that move; None moves all.
        transform: changes the gradients (clips, adds noise, masks).
        refresh: renews the memo at the start of every epoch.
        forget_copies: how many times every forget sample appears (for labels that depend on the copy).
        candidate: whether the model after each of these epochs may be the one that is kept.
    """

    data: DataOf
    loss: Loss
    epochs: int = 1
    parameters: frozenset[str] | None = None
    transform: Transform | None = None
    refresh: Refresh | None = None
    forget_copies: int = 1
    candidate: bool = True


def batches(
    data: DataOf, forget: Samples, retain: Samples, size: int, generator: torch.Generator, alone: bool = True
) -> Iterator[Batch]:
    """The batches of one epoch, in an order drawn from the generator.

    Unless `alone`, a last batch of a single sample joins the one before it (batch norm needs two).
    """
    if data == "mixed":
        yield from _mixed(forget, retain, size, generator, alone)
        return
    # An order is drawn for the sets in use only, when the first batch of the set is taken.
    of_forget = _parts(len(forget.y), size, generator, alone) if data != "retain" else iter(())
    of_retain = _parts(len(retain.y), size, generator, alone) if data != "forget" else iter(())
    nothing = torch.empty(0, dtype=torch.int64, device=retain.y.device)
    if data == "forget":
        yield from (Batch(forget.take(part), retain.take(nothing)) for part in of_forget)
    elif data == "retain":
        yield from (Batch(forget.take(nothing), retain.take(part)) for part in of_retain)
    elif data == "paired":
        yield from (Batch(forget.take(f), retain.take(r)) for f, r in zip(of_forget, of_retain, strict=False))
    else:
        for part in of_retain:
            found = next(of_forget, None)
            if found is None:
                of_forget = _parts(len(forget.y), size, generator, alone)
                found = next(of_forget)
            yield Batch(forget.take(found), retain.take(part))


def _parts(length: int, size: int, generator: torch.Generator, alone: bool) -> Iterator[Tensor]:
    """Shuffled positions in parts of `size`, drawn at the first part that is asked for."""
    if not alone and (length == 1 or size == 1):
        raise InputError(
            f"expected batches of at least 2 samples for a model with batch norm, got {length} samples in batches of "
            f"{size}; take a larger set or batch, or a method that does not train on this set"
        )
    parts = list(torch.split(torch.randperm(length, generator=generator), size))
    if not alone and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts


def _mixed(forget: Samples, retain: Samples, size: int, generator: torch.Generator, alone: bool) -> Iterator[Batch]:
    border = len(forget.y)
    for part in _parts(border + len(retain.y), size, generator, alone):
        yield Batch(forget.take(part[part < border]), retain.take(part[part >= border] - border))
