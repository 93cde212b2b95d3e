"""Which epoch is kept: what is measured after each, and the rules that choose. No rule sees the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from qunlearn.data import Dataset
from qunlearn.training.net import Net

TOLERANCE = 0.02  # validation accuracy on retained classes that an epoch may lose and stay eligible


@dataclass(frozen=True)
class Candidate:
    """A model at the end of an epoch (epoch 0 is the model before the first), and what was measured on it.

    Losses are mean cross entropies in nats, accuracies shares from 0 to 1; None where the set is missing.

    Attributes:
        epoch: 0-based count of epochs done.
        forget_loss: on the forget set.
        forget_accuracy: on the forget set.
        validation_loss: on the validation set, all its classes.
        validation_accuracy: on the validation set, all its classes.
        validation_accuracy_retained: on its samples of classes that the retain set holds.
        validation_accuracy_forgotten: on its samples of a class that the retain set does not hold.
        matched_loss: on the validation set, its classes weighted to the forget set's mix.
        matched_accuracy: likewise.
    """

    epoch: int
    forget_loss: float | None = None
    forget_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_accuracy_retained: float | None = None
    validation_accuracy_forgotten: float | None = None
    matched_loss: float | None = None
    matched_accuracy: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """What was measured, without what was not."""
        return {name: value for name, value in asdict(self).items() if value is not None}


Rule = Callable[[Sequence[Candidate]], int]  # the position of the epoch to keep


@dataclass(frozen=True, eq=False)
class Watch:
    """Measures a model after an epoch on the forget and validation sets (either may be missing)."""

    forget: Dataset | None = None
    validation: Dataset | None = None
    retained: frozenset[int] | None = None  # class numbers that the retain set holds

    def __call__(self, net: Net, epoch: int) -> Candidate:
        """The candidate that `net` is after `epoch` epochs."""
        values: dict[str, float | None] = {}
        if self.forget is not None:
            losses, hits = _scores(net, self.forget)
            values |= {"forget_loss": _mean(losses), "forget_accuracy": _mean(hits)}
        if self.validation is not None:
            values |= self._on_validation(net, self.validation)
        return Candidate(epoch, **values)

    def _on_validation(self, net: Net, validation: Dataset) -> dict[str, float | None]:
        losses, hits = _scores(net, validation)
        labels = validation.y.cpu()
        values = {"validation_loss": _mean(losses), "validation_accuracy": _mean(hits)}
        if self.retained is not None:
            kept = torch.isin(labels, torch.tensor(sorted(self.retained), dtype=labels.dtype))
            values |= {
                "validation_accuracy_retained": _mean(hits[kept]),
                "validation_accuracy_forgotten": _mean(hits[~kept]),
            }
        if self.forget is not None:
            weights = _class_weights(self.forget.y.cpu(), labels)
            if weights is not None:
                values |= {"matched_loss": float(losses @ weights), "matched_accuracy": float(hits @ weights)}
        return values


def _scores(net: Net, data: Dataset) -> tuple[Tensor, Tensor]:
    """Cross entropies and hits ``(n,)`` in float64 on the CPU."""
    logits = net.logits(data.x).double()
    losses = cross_entropy(logits, data.y.to(logits.device), reduction="none")
    return losses.cpu(), (logits.argmax(1).cpu() == data.y.cpu()).double()


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _class_weights(forget: Tensor, validation: Tensor) -> Tensor | None:
    """Weights ``(n,)`` that give the validation samples the forget set's class mix; None where none is shared."""
    size = int(max(int(forget.max()), int(validation.max()))) + 1
    wanted = torch.bincount(forget, minlength=size).double()
    present = torch.bincount(validation, minlength=size).double()
    per_class = torch.where(present > 0, wanted / present.clamp(min=1), 0.0)
    weights = per_class[validation]
    return weights / weights.sum() if weights.sum() > 0 else None


def keep_last(candidates: Sequence[Candidate]) -> int:
    """The last epoch."""
    return len(candidates) - 1


def keep_loss(candidates: Sequence[Candidate]) -> int:
    """The first epoch of lowest validation loss; the model before the first epoch is no candidate."""
    return min(range(1, len(candidates)), key=lambda i: _finite(candidates[i].validation_loss), default=0)


def keep_accuracy(candidates: Sequence[Candidate]) -> int:
    """The first epoch of highest validation accuracy; the model before the first epoch is no candidate."""
    return min(range(1, len(candidates)), key=lambda i: _finite(_minus(candidates[i].validation_accuracy)), default=0)


def keep_forgotten(candidates: Sequence[Candidate]) -> int:
    """The `sound` rule for unlearning, the same for every method; it needs no retrained model.

    Eligible are the epochs (the untouched model is one) that keep validation accuracy on retained classes
    within 2 points of the untouched model's. Of these: for a class request, the one whose validation
    accuracy on the forgotten class is lowest (ties: highest on the retained classes); otherwise the one whose
    forget loss is nearest to the loss of class-matched validation samples. Ties go to the earliest. Where the
    validation set holds no class of the forget set, neither can be told, and the last eligible is kept.
    """
    return _by_forgetting(candidates)[0]


def keep_setting(untouched: Candidate, candidates: Sequence[Candidate]) -> int:
    """Of what several settings of a method left, the position of the one that `keep_forgotten` ranks first.

    The untouched model sets how much accuracy may be lost, and is no setting itself. Where every setting loses
    more, the one that loses least validation accuracy on retained classes; ties go to the first.
    """
    ranked = [i - 1 for i in _by_forgetting([untouched, *candidates]) if i > 0]
    least_loss = max(range(len(candidates)), key=lambda i: _or(candidates[i].validation_accuracy_retained, 0.0))
    return ranked[0] if ranked else least_loss


def _by_forgetting(candidates: Sequence[Candidate]) -> list[int]:
    """The positions of those that are eligible beside the first, best first; see `keep_forgotten`."""
    floor = _or(candidates[0].validation_accuracy_retained, 0.0) - TOLERANCE - 1e-9
    eligible = [i for i, c in enumerate(candidates) if _or(c.validation_accuracy_retained, 0.0) >= floor]

    def rank(i: int) -> tuple[float, float]:
        c = candidates[i]
        if c.validation_accuracy_forgotten is not None:
            return c.validation_accuracy_forgotten, -_or(c.validation_accuracy_retained, 0.0)
        gap = _gap(c.forget_loss, c.matched_loss)
        return gap, 0.0 if c.matched_loss is not None else -i

    return sorted(eligible, key=rank)


def keep_matched_error(candidates: Sequence[Candidate]) -> int:
    """SCRUB's rewind: the epoch whose forget error is nearest to that of class-matched validation samples.

    The model before the first epoch is a candidate; ties go to the earliest, which did the least harm. Where the
    validation set holds no class of the forget set, the last is kept. Source: Kurmanji et al. 2023, arXiv
    2302.09880, section 3.2 (SCRUB+R).
    """

    def distance(i: int) -> tuple[float, float]:
        c = candidates[i]
        return round(_gap(c.forget_accuracy, c.matched_accuracy), 9), 0.0 if c.matched_accuracy is not None else -i

    return min(range(len(candidates)), key=distance)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _gap(one: float | None, other: float | None) -> float:
    """How far apart two values are; infinity where either is missing or not finite."""
    gap = abs(_finite(one) - _finite(other))
    return gap if gap == gap else float("inf")


def _finite(value: float | None) -> float:
    """The value, or infinity where it is missing or not a number (so that it is never chosen first)."""
    return value if value is not None and value == value else float("inf")
