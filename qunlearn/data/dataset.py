"""`Dataset`: samples, their labels and their ids, frozen and checked once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qunlearn.data.checks import Array, as_features, as_ids, as_labels, check_seed, same_length
from qunlearn.errors import InputError

if TYPE_CHECKING:
    from qunlearn.data.protocols import Protocol
    from qunlearn.data.request import ForgetRequest
    from qunlearn.data.split import Split


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Dataset:
    """Samples with labels and ids; an id names a sample through every selection and split.

    >>> data = Dataset([[0.0, 1.0], [2.0, 3.0]], ["cat", "dog"], ids=[10, 11])
    >>> data.y.tolist(), data.classes, data.select([1]).ids.tolist()
    ([0, 1], ('cat', 'dog'), [11])

    Attributes:
        x: features, ``(samples, ...)``; float64 if given as float64, else float32.
        y: class numbers, ``(samples,)`` int64. Whole numbers stay as given; strings are numbered by name.
        ids: ``(samples,)`` int64, unique; positions if none are given.
        classes: the name of every class number; ``"0", "1", ...`` if none are given.
        name: what the data set is called in messages and records.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    name: str

    def __init__(
        self,
        x: Array,
        y: Array,
        ids: Array | None = None,
        classes: Sequence[str] | None = None,
        name: str = "custom",
    ) -> None:
        """Check and copy what is given; x, y, ids as in the class, any array or sequence.

        Raises:
            InputError: different lengths, not numbers, NaN, repeated ids, or a label without a name.
        """
        features = as_features(x, name)
        labels, found = as_labels(y, name)
        numbers = as_ids(ids, len(features), name)
        same_length(name, x=features, y=labels, ids=numbers)
        object.__setattr__(self, "x", features)
        object.__setattr__(self, "y", labels.to(features.device))
        object.__setattr__(self, "ids", numbers.to(features.device))
        object.__setattr__(self, "classes", _class_names(labels, found, classes, name))
        object.__setattr__(self, "name", name)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], label: str, ids: str | None = None) -> Dataset:
        """Read a CSV file with a header: `label` names the column of labels, `ids` one of ids, the rest are features.

        Raises:
            InputError: no such file or column, a feature column that is not numbers, or a missing value.
        """
        from qunlearn.data.csvfile import read_csv

        return read_csv(path, label, ids)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.x)

    def __repr__(self) -> str:
        """A line: name, number and shape of the samples, number of classes."""
        shape = tuple(self.x.shape[1:])
        return f"Dataset({self.name!r}, {len(self)} samples of shape {shape}, {len(self.classes)} classes)"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content (features, labels, ids, class names), 64 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps([str(self.x.dtype), list(self.x.shape), self.classes]).encode())
        for column in (self.x, self.y, self.ids):
            digest.update(column.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def select(self, positions: Array) -> Dataset:
        """The samples at `positions` (row numbers, not ids), in that order, each once.

        Raises:
            InputError: a position that is outside or comes twice.
        """
        chosen = torch.as_tensor(positions, device=self.x.device)
        if chosen.dtype is not torch.bool:
            chosen = chosen.to(torch.int64)
            if len(chosen) and not (int(chosen.min()) >= 0 and int(chosen.max()) < len(self)):
                raise InputError(
                    f"expected positions from 0 to {len(self) - 1} in {self.name}, "
                    f"got {int(chosen.min())} to {int(chosen.max())}"
                )
        return Dataset(self.x[chosen], self.y[chosen], self.ids[chosen], self.classes, self.name)

    def per_class(self, count: int, seed: int = 0) -> Dataset:
        """`count` random samples of every class, classes in order.

        One generator, seeded once, draws a permutation of each class in order; its first `count` stay.
        Source: the image subsets of Crivoi and Ionescu 2025 (arXiv 2512.19253).

        Raises:
            InputError: a class has fewer samples than that.
        """
        generator = torch.Generator().manual_seed(check_seed(seed))
        chosen = []
        for number, name in enumerate(self.classes):
            members = torch.nonzero(self.y.cpu() == number).flatten()
            if not 1 <= count <= len(members):
                raise InputError(
                    f"expected 1 to {len(members)} samples a class, got {count}: "
                    f"class {name!r} of {self.name} has {len(members)}"
                )
            chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
        return self.select(torch.cat(chosen))

    def with_x(self, x: Tensor) -> Dataset:
        """The same samples with other features ``(samples, ...)``."""
        return Dataset(x, self.y, self.ids, self.classes, self.name)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Dataset:
        """The same samples as float32 or float64, or on another device."""
        return self.with_x(self.x.to(device=device, dtype=dtype))

    def split(
        self,
        request: ForgetRequest,
        seed: int = 0,
        protocol: str | Protocol = "sound",
        scale: str | tuple[float, float] = "auto",
        **options: object,
    ) -> Split:
        """Train, forget, retain, validation, test and holdout sets, by a protocol (`qunlearn.data.protocols`).

        Args:
            request: what is to be forgotten.
            seed: decides the split, and what a request for a fraction draws.
            protocol: ``"sound"``, ``"published"``, or a protocol object (which has its own options).
            scale: ``"auto"``, ``"none"``, or the interval (low, high) in radians for the features.
            options: the protocol's other options, such as ``corruption=`` of the sound one.
        """
        from qunlearn.data.protocols import get_protocol

        return get_protocol(protocol, scale=scale, **options).build(self, request, seed)


def _class_names(
    labels: Tensor, found: tuple[str, ...] | None, given: Sequence[str] | None, name: str
) -> tuple[str, ...]:
    """The names of the classes, checked against the labels."""
    if found is not None and given is not None and tuple(given) != found:
        raise InputError(
            f"expected classes of {name} in the order {found}, got {tuple(given)}; leave them out for string labels"
        )
    if given is None and len(labels) == 0:
        raise InputError(f"expected at least one sample in {name}, got none")
    highest = int(labels.max()) if len(labels) else -1
    names = tuple(str(item) for item in given) if given is not None else found
    if names is None:
        return tuple(str(number) for number in range(highest + 1))
    if len(names) <= highest or len(set(names)) < len(names):
        raise InputError(f"expected a distinct name for each of {highest + 1} classes of {name}, got {names}")
    return names
