"""Which epoch is kept: what is measured after each, and the rules that choose. No rule sees the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

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
        return {name: value for name, value in vars(self).items() if value is not None}


Rule = Callable[[Sequence[Candidate]], int]  # the position of the epoch to keep


@dataclass(frozen=True, eq=False)
class Watch:
    """Measures models after an epoch on the forget and validation sets (either may be missing)."""

    forget: Dataset | None = None
    validation: Dataset | None = None
    retained: frozenset[int] | None = None  # class numbers that the retain set holds
    unseen: Dataset | None = None  # what forget samples are matched with; None for the validation set as it is

    def __call__(self, net: Net, epoch: int) -> Candidate:
        """The candidate that `net` is after `epoch` epochs."""
        logits = None if self.inputs is None else net.logits(self.inputs)[None]
        return self.measure(logits, 1, epoch)[0]

    @cached_property
    def inputs(self) -> Tensor | None:
        """The samples ``(n, ...)`` whose logits are measured: forget, then validation, then unseen."""
        return torch.cat([data.x for data in self._sets]) if self._sets else None

    @property
    def _sets(self) -> list[Dataset]:
        return [data for data in (self.forget, self.validation, self.unseen) if data is not None]

    def measure(self, logits: Tensor | None, models: int, epoch: int) -> list[Candidate]:
        """The candidates that so many models are whose logits for `inputs` are ``(models, n, classes)``."""
        if logits is None:
            return [Candidate(epoch) for _ in range(models)]
        labels = torch.cat([data.y for data in self._sets]).to(logits.device)
        rows = logits.double()
        hits = (rows.argmax(2) == labels).double()
        losses = -log_softmax(rows, 2).gather(2, labels.expand(models, -1)[..., None]).squeeze(2)
        measured = self._measured(losses, hits)
        table = torch.stack(list(measured.values()), 1).tolist()  # one look at the device for all
        return [Candidate(epoch, **dict(zip(measured, values, strict=True))) for values in table]

    def _measured(self, losses: Tensor, hits: Tensor) -> dict[str, Tensor]:
        """What is known of each model ``(models,)``, from losses and hits ``(models, n)``."""
        parts = {}
        for name in ("forget", "validation", "unseen"):
            length = 0 if getattr(self, name) is None else len(getattr(self, name))
            parts[name] = losses[:, :length], hits[:, :length]
            losses, hits = losses[:, length:], hits[:, length:]
        values: dict[str, Tensor] = {}
        if self.forget is not None:
            loss, hit = parts["forget"]
            values |= {"forget_loss": loss.mean(1), "forget_accuracy": hit.mean(1)}
        if self.validation is not None:
            loss, hit = parts["validation"]
            values |= {"validation_loss": loss.mean(1), "validation_accuracy": hit.mean(1)}
            values |= {f"validation_accuracy_{name}": hit[:, rows].mean(1) for name, rows in self._classes.items()}
            if self._match is not None:
                loss, hit = parts["validation" if self.unseen is None else "unseen"]
                values |= {"matched_loss": loss @ self._match, "matched_accuracy": hit @ self._match}
        return values

    @cached_property
    def _classes(self) -> dict[str, Tensor]:
        """Positions of validation samples of retained and of forgotten classes, where there are any."""
        if self.retained is None or self.validation is None:
            return {}
        labels = self.validation.y
        kept = torch.isin(labels, torch.tensor(sorted(self.retained), dtype=labels.dtype, device=labels.device))
        parts = {"retained": kept.nonzero().flatten(), "forgotten": (~kept).nonzero().flatten()}
        return {name: rows for name, rows in parts.items() if len(rows)}

    @cached_property
    def _match(self) -> Tensor | None:
        """Weights ``(n,)`` of validation, or unseen, samples that give them the forget set's class mix."""
        if self.forget is None or self.validation is None:
            return None
        return _class_weights(self.forget.y, (self.unseen or self.validation).y)


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
    return _first_least([_finite(candidate.validation_loss) for candidate in candidates[1:]])


def keep_accuracy(candidates: Sequence[Candidate]) -> int:
    """The first epoch of highest validation accuracy; the model before the first epoch is no candidate."""
    return _first_least([_finite(_minus(candidate.validation_accuracy)) for candidate in candidates[1:]])


def keep_forgotten(candidates: Sequence[Candidate]) -> int:
    """The `sound` rule for unlearning, the same for every method; it needs no retrained model.

    Eligible are the epochs (the untouched model is one) that keep validation accuracy on retained classes
    within 2 points of the untouched model's. Of these: for a class request, the one whose validation
    accuracy on the forgotten class is lowest (ties: highest on the retained classes); otherwise the one whose
    forget loss is nearest to the loss of class-matched validation samples, which are spoilt alike where the forget
    samples are corrupted (`qunlearn.data.outsiders`). Ties go to the earliest. Where the validation set holds no
    class of the forget set, neither can be told, and the last eligible is kept.
    """
    return _by_forgetting(candidates)[0]


def keep_setting(untouched: Candidate, candidates: Sequence[Candidate]) -> int:
    """Of what several settings of a method left, the position of the one that `keep_forgotten` ranks first.

    The untouched model sets how much accuracy may be lost, and is no setting itself. Where every setting loses
    more, the one that loses least validation accuracy on retained classes; ties go to the first.
    """
    return ranked_settings(untouched, candidates)[0]


def ranked_settings(untouched: Candidate, candidates: Sequence[Candidate]) -> list[int]:
    """The positions of all candidates, best first: as `keep_forgotten` ranks them beside the untouched model.

    Those that lose more accuracy than that allows come last, whoever loses least foremost; ties go to the first.
    """
    eligible = [i - 1 for i in _by_forgetting([untouched, *candidates]) if i > 0]
    others = [i for i in range(len(candidates)) if i not in eligible]
    return [*eligible, *sorted(others, key=lambda i: -_or(candidates[i].validation_accuracy_retained, 0.0))]


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


def _first_least(values: Sequence[float]) -> int:
    """The epoch of the first of the lowest values, one an epoch; 0 where there is none."""
    return 1 + values.index(min(values)) if values else 0


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
