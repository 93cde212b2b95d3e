"""What the audits of one split share: its sets, who is a member, the original, the retrained and an untrained model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import nn

from qunlearn import metrics
from qunlearn.data import Split
from qunlearn.errors import UnsupportedError
from qunlearn.evaluation.audit.subject import Subject, cannot_start_afresh, fresh_model
from qunlearn.evaluation.reference import unseen
from qunlearn.training.seeds import Seeds

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
MOST = 4096  # samples of a set that audits look at, evenly spaced where there are more


class Bench:
    """The material of many audits of one split.

    Args:
        split: its sets; non-members are `reference.unseen`.
        original: the model before unlearning, or None.
        retrained: models trained without the forget set.

    Attributes:
        sets: forget, retain, test and holdout, at most 4,096 evenly spaced samples of each.
    """

    def __init__(self, split: Split, original: nn.Module | None, retrained: Sequence[nn.Module]) -> None:
        self.split = split
        outside = unseen(split)
        whole = {"forget": split.forget, "retain": split.retain, "test": split.test, "holdout": outside.data}
        self.sets = {name: data.select(_even(len(data))) for name, data in whole.items()}
        # The classes that samples really have, also where labels were corrupted.
        self.members, self.others = (
            classes[_even(len(classes))] for classes in (outside.forget_classes, outside.classes)
        )
        self.original = None if original is None else Subject(original, self.sets)
        self.retrained = [Subject(model, self.sets) for model in retrained]
        self._untrained: dict[str, Subject | str] = {}

    @property
    def forget_class(self) -> int | None:
        """The class that was to be forgotten; None for other requests."""
        return self.split.forget_class

    def y(self, name: str) -> Labels:
        """The labels of a set ``(n,)``, as the models were trained on them."""
        found: Labels = self.sets[name].y.cpu().numpy()
        return found

    @cached_property
    def matching(self) -> tuple[Floats, Floats]:
        """Weights of forget and holdout samples, with which both hold every class alike; 0 where one side lacks it."""
        return metrics.class_weights(self.members, self.others)

    @property
    def strata(self) -> Labels:
        """The classes that forget and then holdout samples really have."""
        return np.concatenate([self.members, self.others])

    @cached_property
    def unmatched(self) -> str | None:
        """Why there are no non-members to compare with; None where there are."""
        if min(weights.sum() for weights in self.matching) > 0:
            return None
        return "no holdout sample has the class of a forget sample"

    def untrained(self, model: nn.Module) -> Subject | str:
        """A freshly initialised model like this one, its data-fitted parts fitted on the retain set; or why not."""
        key = str(model)
        if key not in self._untrained:
            self._untrained[key] = self._fresh(model)
        return self._untrained[key]

    def _fresh(self, model: nn.Module) -> Subject | str:
        try:
            fresh = fresh_model(model, Seeds(self.split.seed, "audit").integer("untrained"), self.split.retain.x)
            subject = Subject(fresh, self.sets)
            assert subject.outputs is not None  # runs it: only then is it certain that it can
        except UnsupportedError:
            return cannot_start_afresh(model)
        return subject


@dataclass(frozen=True, eq=False)
class Case:
    """One model on trial.

    Attributes:
        subject: the model.
        others: the retrained models that it is compared with, itself never among them.
        bench: what all audits of the split share.
        seeds: of all that is drawn, the same for every model.
        shadows: a `metrics.Shadows`, or why there is none.
        population: a `metrics.Population`, or why there is none.
        audited: whether it is the audited model, to which both belong, and no retrained one beside it.
    """

    subject: Subject
    others: Sequence[Subject]
    bench: Bench
    seeds: Seeds
    shadows: object = "no shadow models were given"
    population: object = "no populations were given"
    audited: bool = True

    def logits(self, name: str) -> Floats:
        """The model's logits on a set, ``(n, classes)``."""
        return self.subject.outputs.logits[name]

    def random(self, purpose: str) -> np.random.Generator:
        """A fresh generator for a purpose."""
        return np.random.default_rng(self.seeds.integer(purpose))


def _even(length: int) -> Labels:
    """Positions of all samples, or of evenly spaced ones where there are too many."""
    return np.unique(np.linspace(0, max(length - 1, 0), min(length, MOST)).round().astype(np.int64))
