"""Phases: what a gradient method asks the one loop to do, as frozen records, and the batches they take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from types import FunctionType, MethodType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from qunlearn.errors import InputError
from qunlearn.models.stream import Stream
from qunlearn.training.net import Net, Tensors

Memo = dict[str, Any]  # what a method prepared once, or at the start of an epoch, by name
DataOf = Literal["forget", "retain", "paired", "cycled", "mixed"]


class Samples(NamedTuple):
    """Inputs ``(batch, ...)``, labels ``(batch,)`` and positions in their set ``(batch,)`` (int64)."""

    x: Tensor
    y: Tensor
    position: Tensor

    def take(self, order: Tensor) -> Samples:
        """Of a whole set, the samples at the given positions, of any shape."""
        order = order.to(self.y.device)
        return Samples(self.x[order], self.y[order], order)

    def copies(self, number: int) -> Samples:
        """Of a whole set, every sample `number` times in a row; copy k of sample i has position ``i * number + k``."""
        if number == 1:
            return self
        repeated = [t.repeat_interleave(number, 0) for t in (self.x, self.y)]
        return Samples(repeated[0], repeated[1], torch.arange(len(self.y) * number, device=self.y.device))


class Batch(NamedTuple):
    """What a loss gets at one step; a part that the phase has no samples for is empty.

    Attributes:
        forget: samples of the forget set.
        retain: samples of the retain set.
        mixed: where the phase mixes the sets, samples of both; positions count the forget set first.
    """

    forget: Samples
    retain: Samples
    mixed: Samples


# All three also run under `torch.vmap`, for several models at once: no value may be looked at, and what is random comes
# from the stream.
Loss = Callable[[Net, Batch, Memo, Stream], Tensor]  # returns a scalar
Transform = Callable[[Tensors, Memo, Stream], Tensors]  # of the gradients, before the optimizer
Project = Callable[[Tensors, Memo, Stream], Tensors]  # of the parameters that move, after every step of the optimizer
Refresh = Callable[[Net, Memo, Stream], Memo]  # at the start of every epoch


@dataclass(frozen=True)
class Phase:
    """Some epochs of one loss over one kind of data.

    Attributes:
        data: ``"forget"`` or ``"retain"``: one pass over that set an epoch; ``"paired"``: a batch of each at
            every step, until the shorter set ends; ``"cycled"``: one pass over the retain set with the forget
            set shuffled and begun again as often as needed; ``"mixed"``: one pass over both sets, shuffled
            together.
        loss: ``loss(net, batch, memo, stream)``, a scalar to descend.
        epochs: how many.
        parameters: full names of those that move; None moves all.
        transform: changes the gradients (clips, adds noise, masks).
        project: changes the parameters that move after every step (holds some still, keeps them in a ball).
        refresh: renews the memo at the start of every epoch.
        forget_copies: how many times every forget sample appears (for labels that depend on the copy).
        candidate: whether the model after each of these epochs may be the one that is kept.
        retain_share: an epoch takes this share of the retain set (at least one sample), drawn anew every time.
        rate: multiple of the recipe's learning rate; where it changes, a fresh optimizer takes over.
    """

    data: DataOf
    loss: Loss
    epochs: int = 1
    parameters: frozenset[str] | None = None
    transform: Transform | None = None
    refresh: Refresh | None = None
    forget_copies: int = 1
    candidate: bool = True
    retain_share: float = 1.0
    rate: float = 1.0
    project: Project | None = None


def same_phases(one: Sequence[Phase], other: Sequence[Phase]) -> bool:
    """Whether phases that were made twice do the same: what they call is the same code with equal plain values."""
    return len(one) == len(other) and all(
        _same(getattr(a, item.name), getattr(b, item.name))
        for a, b in zip(one, other, strict=True)
        for item in fields(Phase)
    )


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, functools.partial) and isinstance(other, functools.partial):
        return _same((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        inside = [[cell.cell_contents for cell in each.__closure__ or ()] for each in (one, other)]
        defaults = [(each.__defaults__, each.__kwdefaults__) for each in (one, other)]
        return one.__code__ is other.__code__ and _same(*inside) and _same(*defaults)
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__func__ is other.__func__ and one.__self__ is other.__self__
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return isinstance(one, bool | int | float | str | frozenset) and type(one) is type(other) and bool(one == other)


def positions(
    data: DataOf,
    forget: int,
    retain: int,
    size: int,
    generator: torch.Generator,
    alone: bool = True,
    retain_share: float = 1.0,
) -> Iterator[dict[str, Tensor]]:
    """The batches of one epoch over sets of so many samples, in an order drawn from the generator.

    A batch is the positions ``(batch,)`` of its samples by the part of `Batch` that they go to. Unless `alone`, a
    last batch of a single sample joins the one before it (batch norm needs two). A share of the retain set is drawn
    without replacement.
    """
    taken = max(1, round(retain_share * retain))
    if data == "mixed":
        parts = _parts(forget + taken, size, generator, alone)
        if taken < retain:  # which of the retain set these are
            drawn = forget + torch.randperm(retain, generator=generator)[:taken]
            pool = torch.cat([torch.arange(forget), drawn])
            parts = (pool[part] for part in parts)
        yield from ({"mixed": part} for part in parts)
        return
    # An order is drawn for the sets in use only, when the first batch of the set is taken.
    of_forget = _parts(forget, size, generator, alone) if data != "retain" else iter(())
    of_retain = _parts(retain, size, generator, alone, taken) if data != "forget" else iter(())
    if data == "forget":
        yield from ({"forget": part} for part in of_forget)
    elif data == "retain":
        yield from ({"retain": part} for part in of_retain)
    elif data == "paired":
        yield from ({"forget": f, "retain": r} for f, r in zip(of_forget, of_retain, strict=False))
    else:
        for part in of_retain:
            found = next(of_forget, None)
            if found is None:
                of_forget = _parts(forget, size, generator, alone)
                found = next(of_forget)
            yield {"forget": found, "retain": part}


def _parts(
    length: int, size: int, generator: torch.Generator, alone: bool, taken: int | None = None
) -> Iterator[Tensor]:
    """Shuffled positions, all or the first `taken`, in parts of `size`, drawn at the first part that is asked for."""
    taken = length if taken is None else taken
    if not alone and (taken == 1 or size == 1):
        raise InputError(
            f"expected batches of at least 2 samples for a model with batch norm, got {taken} samples in batches of "
            f"{size}; take a larger set or batch, or a method that does not train on this set"
        )
    parts = list(torch.split(torch.randperm(length, generator=generator)[:taken], size))
    if not alone and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    yield from parts
