"""`Split`: the sets of one experiment, and the guarantees that hold among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from qunlearn.data.checks import some
from qunlearn.data.dataset import Dataset
from qunlearn.data.request import ForgetRequest
from qunlearn.errors import InputError

_KEPT_APART = ("train", "validation", "test", "holdout")


@dataclass(frozen=True, eq=False)
class Split:
    """The sets of one experiment: train = forget + retain; train, validation, test, holdout have no sample in common.

    A set that `aliases` names stands for another one and is exempt from the second guarantee.

    Attributes:
        train: what there is to learn from.
        forget: what must go.
        retain: what stays.
        validation: picks epochs and hyper-parameters.
        test: touched once, to report.
        holdout: never trained or selected on; the non-members of membership attacks.
        original: the set that trains the original model.
        request: what was asked.
        protocol: the name of the protocol that built the split.
        seed: the seed it was built with.
        original_trains_on: the name of `original`: ``"train"``, ``"retain"`` or ``"subset-retain"``.
        aliases: of each set that stands for another, the name of the other, such as ``{"validation": "test"}``.
        scaling: the scaling of the features (`MinMaxScaling.to_config`), or None.
        uncorrupted: the corrupted training samples as they were before, or None where nothing was corrupted.
    """

    train: Dataset
    forget: Dataset
    retain: Dataset
    validation: Dataset
    test: Dataset
    holdout: Dataset
    original: Dataset
    request: ForgetRequest
    protocol: str
    seed: int
    original_trains_on: str = "train"
    aliases: dict[str, str] = field(default_factory=dict)
    scaling: dict[str, Any] | None = None
    uncorrupted: Dataset | None = None

    def __post_init__(self) -> None:
        """Hold the guarantees of the class."""
        _check_train(self)
        _check_disjoint(self)

    @property
    def forget_class(self) -> int | None:
        """The number of the class to forget; None if the request is not for a class."""
        return self.request.class_number(self.train)

    @cached_property
    def corrupted(self) -> Tensor:
        """The ids of the corrupted training samples, sorted, int64; empty where nothing was corrupted."""
        if self.uncorrupted is None:
            return torch.empty(0, dtype=torch.int64)
        ids = self.uncorrupted.ids.cpu()
        return ids[torch.isin(ids, self.train.ids.cpu())].sort().values

    @cached_property
    def clean(self) -> Dataset:
        """The train set as it was before the corruption, row by row beside `train`; `train` itself without one."""
        if self.uncorrupted is None:
            return self.train
        place = {number: row for row, number in enumerate(self.uncorrupted.ids.tolist())}
        rows = [(row, place[number]) for row, number in enumerate(self.train.ids.tolist()) if number in place]
        here, there = torch.tensor(rows, dtype=torch.int64).reshape(-1, 2).T
        x, y = self.train.x.clone(), self.train.y.clone()
        x[here], y[here] = self.uncorrupted.x[there].to(x), self.uncorrupted.y[there].to(y.device)
        return Dataset(x, y, self.train.ids, self.train.classes, self.train.name)

    def sets(self) -> dict[str, Dataset]:
        """The sets by name: train, forget, retain, validation, test, holdout."""
        return {name: getattr(self, name) for name in ("train", "forget", "retain", "validation", "test", "holdout")}


def _check_train(split: Split) -> None:
    """The train set is the forget set and the retain set, both with samples, each sample once."""
    for name in ("forget", "retain"):
        if len(getattr(split, name)) == 0:
            raise InputError(f"expected samples in the {name} set, got none; change the request")
    together = torch.cat([split.forget.ids, split.retain.ids]).sort().values
    if not torch.equal(together, split.train.ids.sort().values):
        raise InputError(
            f"expected forget and retain set to be the train set ({len(split.train)} samples) cut in two, "
            f"got {len(split.forget)} + {len(split.retain)} samples with other ids"
        )


def _check_disjoint(split: Split) -> None:
    """No sample lies in two of the sets that are kept apart, but for the aliases."""
    names = [name for name in _KEPT_APART if name not in split.aliases]
    for first, second in combinations(names, 2):
        ids = getattr(split, first).ids
        shared = ids[torch.isin(ids, getattr(split, second).ids)].tolist()
        if shared:
            raise InputError(f"expected no sample in both {first} and {second} set, got ids {some(shared)} in both")
