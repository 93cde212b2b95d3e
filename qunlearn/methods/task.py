"""What goes into a method and what comes out: the task, the record, the result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from qunlearn.data import Dataset, ForgetRequest
from qunlearn.methods.certificate import Guarantee
from qunlearn.training.counting import Counts
from qunlearn.training.loop import Progress
from qunlearn.training.recipe import Recipe
from qunlearn.training.seeds import Seeds
from qunlearn.training.selection import Watch
from qunlearn.training.trace import Trace


@dataclass(frozen=True, eq=False)
class Task:
    """All that a method works on.

    Attributes:
        forget: the samples whose influence must go.
        retain: the rest of the training set.
        validation: picks the epoch; never the test set.
        request: what was asked to be forgotten.
        recipe: how the original model was trained.
        trace: what a training recorded for methods that need it.
        protocol: ``"sound"`` or ``"published"``.
        unseen: validation samples spoilt as the forget samples are; None where these are as all others.
    """

    forget: Dataset
    retain: Dataset
    validation: Dataset | None = None
    request: ForgetRequest | None = None
    recipe: Recipe | None = None
    trace: Trace | None = None
    protocol: str = "sound"
    unseen: Dataset | None = None

    @property
    def watch(self) -> Watch:
        """What measures the models between which epochs, settings and methods are chosen."""
        return Watch(self.forget, self.validation, self.retained_classes, self.unseen)

    @property
    def retained_classes(self) -> frozenset[int]:
        """The class numbers that the retain set holds."""
        return frozenset(self.retain.y.tolist())

    @property
    def forgotten_classes(self) -> frozenset[int]:
        """The class numbers that only the forget set holds: what a class request deletes."""
        return frozenset(self.forget.y.tolist()) - self.retained_classes


@dataclass(frozen=True)
class Record:
    """What happened, in full.

    Attributes:
        method: name.
        revision: of the method's code.
        hyperparameters: as the method was made.
        seed: the caller's.
        seconds: wall-clock time of the method alone; of several models unlearned at once, an equal share each.
        counts: see `Counts`.
        candidates: the epochs that could have been kept, with what was measured on each.
        chosen: position of the one that was.
        history: mean loss an epoch.
        duplicates_in_retain: forget samples that stand in the retain set as well, under another id.
        parent: SHA-256 of the parameters and buffers of the model that was unlearned.
        removed: SHA-256 of the sorted ids removed so far, from this model and its parents.
        notes: sentences a reader must know.
        guarantee: what the method vouches for, as `Guarantee.to_dict` gives it; None for most.
        details: figures of the method's own that a reader may want, by name, as JSON values.
    """

    method: str
    revision: int
    hyperparameters: dict[str, Any]
    seed: int
    seconds: float
    counts: Counts
    candidates: list[dict[str, Any]]
    chosen: int
    history: list[dict[str, Any]]
    duplicates_in_retain: int
    parent: str
    removed: str
    notes: list[str]
    guarantee: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {**vars(self), "counts": dataclasses.asdict(self.counts)}


@dataclass(frozen=True, eq=False)
class Unlearned:
    """A method's result: the new model and the record of how it came about."""

    model: nn.Module
    record: Record


@dataclass
class Work:
    """What the base class hands a method for one run: streams of randomness, counts, a place for notes."""

    seeds: Seeds
    counts: Counts
    progress: Progress | None = None
    seconds: float = 0.0
    candidates: list[dict[str, Any]] = field(default_factory=list)
    chosen: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    guarantee: Guarantee | None = None
    details: dict[str, Any] = field(default_factory=dict)
